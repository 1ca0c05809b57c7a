"""Slow, plain second implementations, written from the documents alone."""
