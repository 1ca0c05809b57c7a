"""New stores are written beside their path and appear there complete, by rename.

The name of the unfinished file is fixed, so that a killed writer's leftover is taken over by the
next one instead of piling up; its lock becomes the lock of the store when it is renamed.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from formats.append import Appender
from formats.errors import named
from formats.layout import DATA_OFFSET, KNOWN_FEATURES, RootPointer, pack_superblock
from formats.lock import open_locked

PART_SUFFIX = ".part"


class NewFile:
    """An empty store under its temporary name, locked.

    Args:
        path: Where it is going to appear.
        timeout_s: Seconds to wait for another writer that creates the same store.
        mode: Permissions; the process's default where None.
    """

    def __init__(self, path: str, *, timeout_s: float = 0.0, mode: int | None = None) -> None:
        self._path = path
        self._part = path + PART_SUFFIX
        self._is_published = False
        self.fd = open_locked(self._part, flags=os.O_CREAT, timeout_s=timeout_s)
        superblock = pack_superblock(features=KNOWN_FEATURES)
        self.appender = Appender(self.fd, superblock, DATA_OFFSET, path=path)
        try:
            with named(path):
                os.ftruncate(self.fd, 0)
                if mode is not None:
                    os.fchmod(self.fd, mode & 0o7777)
                os.pwrite(self.fd, superblock, 0)
        except BaseException:
            self.discard()
            os.close(self.fd)
            raise

    def publish(self, pointer: RootPointer) -> None:
        """Fills the other root slot too and moves the file to its path, durably."""
        self.appender.write_slot(replace(pointer, generation=pointer.generation - 1))
        Path(self._part).replace(self._path)
        self._is_published = True
        sync_directory(self._path)

    def discard(self) -> None:
        """Removes the file unless it is published; the descriptor stays open."""
        if not self._is_published:
            Path(self._part).unlink(missing_ok=True)


def sync_directory(path: str) -> None:
    """Makes the directory entry of ``path`` durable."""
    fd = os.open(Path(path).resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
