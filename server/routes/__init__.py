"""One route group a file; each makes its router from the service that it fronts."""
