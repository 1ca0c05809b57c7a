"""A disk that loses power: what was not synced arrives in part, torn into sectors, or never."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

SECTOR = 512
Event = tuple[Any, ...]


class Disk:
    """The files of a folder as they were, and every change since, in order.

    Contents become durable by ``fsync`` of the file, names by ``fsync`` of the folder. Until then
    any sectors of any writes and any truncations may be lost, and of the changes to names all from
    some point on (no file system forgets an earlier rename and keeps a later one).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = {path.name: path.stat().st_ino for path in folder.iterdir()}
        self._contents = {path.stat().st_ino: path.read_bytes() for path in folder.iterdir()}
        self.events: list[Event] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Notes what the code inside does, while really doing it."""
        real = {name: getattr(os, name) for name in _CALLS}

        def call(name: str, *arguments: Any, **keywords: Any) -> Any:
            before = {path.name for path in self._folder.iterdir()} if name == "open" else set()
            result = real[name](*arguments, **keywords)
            self._note(name, arguments, result, before)
            return result

        with pytest.MonkeyPatch.context() as patch:
            for name in _CALLS:
                patch.setattr(os, name, lambda *a, _name=name, **k: call(_name, *a, **k))
            yield

    def crash(self, point: int, chance: random.Random) -> dict[str, bytes]:
        """Files after the power failed before event ``point``; their content by name."""
        contents = {inode: bytearray(data) for inode, data in self._contents.items()}
        names = dict(self._names)
        happened = self.events[:point]
        synced = {event[1]: i for i, event in enumerate(happened) if event[0] == "fsync"}
        lost = chance.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        n_names = sum(event[0] in _NAMING for event in happened)
        durable = sum(e[0] in _NAMING for e in happened[: synced.get("folder", -1) + 1])
        n_kept_names = chance.randint(durable, n_names)
        for i, event in enumerate(happened):
            kind = event[0]
            if kind in _NAMING:
                n_kept_names -= 1
                if n_kept_names >= 0:
                    _rename(names, event)
                if kind == "create":
                    contents.setdefault(event[2], bytearray())
                continue
            is_durable = i < synced.get(event[1], -1)
            if kind == "truncate" and (is_durable or chance.random() >= lost):
                _resize(contents[event[1]], event[2])
            elif kind == "write":
                for start, sector in _sectors(event[2], event[3]):
                    if is_durable or chance.random() >= lost:
                        _put(contents[event[1]], start, sector)
        return {name: bytes(contents[inode]) for name, inode in names.items()}

    def _note(self, name: str, arguments: Any, result: Any, before: set[str]) -> None:
        if name == "open":
            new = Path(arguments[0]).name
            if arguments[1] & os.O_CREAT and new not in before:
                self.events.append(("create", new, os.fstat(result).st_ino))
        elif name == "pwrite":
            fd, data, offset = arguments
            written = bytes(memoryview(data)[:result])
            self.events.append(("write", os.fstat(fd).st_ino, offset, written))
        elif name == "ftruncate":
            self.events.append(("truncate", os.fstat(arguments[0]).st_ino, arguments[1]))
        elif name == "fsync":
            inode = os.fstat(arguments[0]).st_ino
            is_folder = inode == self._folder.stat().st_ino
            self.events.append(("fsync", "folder" if is_folder else inode))
        else:
            self.events.append((name, *(Path(argument).name for argument in arguments)))


_CALLS = ("open", "pwrite", "ftruncate", "fsync", "replace", "unlink")
_NAMING = ("create", "replace", "unlink")


def _rename(names: dict[str, int], event: Event) -> None:
    kind, name, other = (*event, None)[:3]
    if kind == "create":
        names[name] = other
    elif kind == "replace":
        names[other] = names.pop(name)
    else:
        names.pop(name, None)


def _resize(content: bytearray, nbytes: int) -> None:
    del content[nbytes:]
    content.extend(bytes(nbytes - len(content)))


def _put(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """A write as pieces that a disk writes whole."""
    start = 0
    while start < len(data):
        nbytes = SECTOR - (offset + start) % SECTOR
        yield offset + start, data[start : start + nbytes]
        start += nbytes
