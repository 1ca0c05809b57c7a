"""The shipped store and what can be done with it."""
