"""The container of the NPS store: bytes on disk and nothing else.

One file holds any number of fine-tunes of one base model. This package knows how they are laid
out, encoded, verified and committed; it knows neither torch nor networks nor what a task means.
``FORMAT.md`` beside this file is the specification.
"""

from __future__ import annotations

from formats.container import Container
from formats.task_reader import TaskReader
from formats.writer import ContainerWriter, Finding, TaskWriter, compact, verify

__all__ = [
    "Container",
    "ContainerWriter",
    "Finding",
    "TaskReader",
    "TaskWriter",
    "compact",
    "verify",
]
