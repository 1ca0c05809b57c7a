"""A fine-tune's directory, whichever kind it is of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from nps_store.adapters.checkpoint import AdapterCheckpoint
from nps_store.adapters.settings import SETTINGS_NAME
from nps_store.checkpoint import INDEX_NAME, WEIGHTS_NAME, Checkpoint

if TYPE_CHECKING:
    import os

    from nps_store.sources import BaseSource

FineTuneSource: TypeAlias = Checkpoint | AdapterCheckpoint


def open_fine_tune(path: str | os.PathLike[str], base: BaseSource) -> FineTuneSource:
    """A directory with a whole model, or with an adapter of the base.

    A directory that has both is read as the whole model.

    Raises:
        ModelDirectoryMissingError: There is no such directory.
        NotAModelDirectoryError: It is neither.
        UnsupportedTaskError: The adapter has what cannot be stored as such (names it).
    """
    directory = Path(path)
    is_whole = any((directory / name).is_file() for name in (WEIGHTS_NAME, INDEX_NAME))
    if (directory / SETTINGS_NAME).is_file() and not is_whole:
        return AdapterCheckpoint(directory, base)
    return Checkpoint(directory)
