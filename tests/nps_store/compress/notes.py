"""A listener that remembers what it was told."""

from __future__ import annotations

from nps_store.compress import Silent


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, task, text):
        self.notes.append(f"{task}: {text}")
