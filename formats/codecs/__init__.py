"""One codec a file: pairs of pure functions between numpy arrays and bytes."""
