"""Looking for damage without stopping at the first find."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from formats.container import Container
from formats.errors import MissingFileError, NpsError, located
from formats.index import FileRef
from formats.layout import TRAILER, parse_trailer
from formats.sections import SectionRef

if TYPE_CHECKING:
    from collections.abc import Iterator

    from formats.task_reader import TaskReader

LEVELS = ("structure", "checksums", "decode")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        id: Of the error class, as in ``format.checksum_mismatch``.
        where: Part of the store.
        message: The whole sentence.
    """

    id: str
    where: str
    message: str


def verify(path: str | os.PathLike[str], level: str = "checksums") -> list[Finding]:
    """Checks a store and reports everything that is found, in place of raising it.

    Args:
        path: Of the store.
        level: "structure" (slots, indices, directories, layout), "checksums" (and every stored
            section) or "decode" (and every record and attached file).

    Returns:
        Findings, empty for a sound store. A file that only an external base has is none.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: There is no such level.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}: expected one of {', '.join(LEVELS)}")
    return _Verifier(os.fspath(path), LEVELS.index(level)).run()


class _Verifier:
    def __init__(self, path: str, depth: int) -> None:
        self._path = path
        self._depth = depth
        self._findings: list[Finding] = []

    def run(self) -> list[Finding]:
        with self._collect("store"), Container.open(self._path) as store:
            for slot in store.selection.damaged_slots:
                self._report(
                    "format.root_slot_damaged",
                    f"root slot {slot}",
                    f"{self._path}: root slot {slot} is damaged; the next writer repairs it",
                )
            self._trailer(store)
            if store.root.base_data is not None:
                with self._collect("base data"):
                    self._task(store.base_reader(), "base data")
            for name in store.root.tasks:
                with self._collect(f"task {name!r}"):
                    self._task(store.task_reader(name), f"task {name!r}")
                    for file_name, ref in store.directory(name).files.items():
                        self._file_exists(store, ref, f"task {name!r} file {file_name!r}")
            if store.base.storage == "embedded":
                for file_name, ref in store.base.files.items():
                    self._file_exists(store, ref, f"base file {file_name!r}")
            self._files(store)
        return self._findings

    def _trailer(self, store: Container) -> None:
        pointer, superblock = store.selection.pointer, store.selection.superblock
        offset = pointer.trailer_offset
        trailer = store.section(SectionRef(offset, TRAILER.size, ""))
        found = parse_trailer(bytes(trailer), superblock, offset=offset)
        # The first commit fills both slots: with its own slot lost, the other's generation is read.
        if found is None or replace(found, generation=pointer.generation) != pointer:
            self._report(
                "format.trailer_damaged",
                f"trailer at {offset}",
                f"{self._path}: trailer at {offset} is damaged; the next commit writes a new one",
            )

    def _task(self, reader: TaskReader, where: str) -> None:
        if self._depth < 1:
            return
        sound = set()
        for stream, ref in reader.directory.sections():
            with self._collect(f"{where} {stream}"), located(where=where):
                reader.section(stream, ref)
                sound.add(ref)
        if self._depth < 2:
            return
        for entry in reader:
            if not reader.sections_of(entry) <= sound:
                continue  # its section is reported already, and nothing in it can be decoded
            with self._collect(f"{where} tensor {entry.name!r}"):
                reader.record(entry)
                reader.extra(entry)  # noqa: S610

    def _files(self, store: Container) -> None:
        files, sound = store.root.files, set()
        for key, stored in files.items():
            with self._collect(f"file {key}"):
                if self._depth >= 1:
                    _verify_section(store, stored.section)
                sound.add(key)
        if self._depth < 2:
            return
        for key, stored in files.items():
            if not {key, stored.dictionary} & files.keys() <= sound:
                continue  # it, or what it is compressed against, is reported already
            with self._collect(f"file {key}"):
                try:
                    store.file(FileRef(key, stored.nbytes))
                except MissingFileError:
                    if stored.dictionary not in _external_files(store):
                        raise

    def _file_exists(self, store: Container, ref: FileRef, where: str) -> None:
        if ref.hash not in store.root.files and ref.hash not in _external_files(store):
            self._report(
                MissingFileError.id,
                where,
                f"{self._path}: attached file is nowhere ({where}): got {ref.hash}",
            )

    @contextmanager
    def _collect(self, where: str) -> Iterator[None]:
        try:
            with located(path=self._path):
                yield
        except NpsError as error:
            self._report(error.id, where, str(error))

    def _report(self, rule: str, where: str, message: str) -> None:
        self._findings.append(Finding(rule, where, message))


def _verify_section(store: Container, ref: SectionRef) -> None:
    ref.verify(store.section(ref), "attached file")


def _external_files(store: Container) -> set[str]:
    """Hashes of the files that only an external base has."""
    if store.base.storage != "external":
        return set()
    return {ref.hash for ref in store.base.files.values()}
