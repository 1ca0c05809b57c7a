"""Which inputs run next: admission, a queue per task, fair turns, and the worker."""
