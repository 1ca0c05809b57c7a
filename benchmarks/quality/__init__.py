"""Rate against quality: every method of `benchmarks.methods` on the same models in one run."""
