"""Attached files on the way in: deduplicated at once, written with the next commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from formats.codecs import zstd
from formats.errors import MissingFileError
from formats.files import file_ref, is_plausible
from formats.index import BaseRecord, FileRef, StoredFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from formats.append import Appender


@dataclass(frozen=True, slots=True)
class _Pending:
    stored: bytes
    raw_nbytes: int | None
    dictionary: str | None


class FileWriter:
    """The attached files of a store that is being written.

    Files wait in memory, compressed, so that they never come to lie inside a task's extent.

    Args:
        stored: Files that the store already has, by hash.
    """

    def __init__(self, stored: Mapping[str, StoredFile]) -> None:
        self._stored = dict(stored)
        self._pending: dict[str, _Pending] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._stored or key in self._pending

    @property
    def is_dirty(self) -> bool:
        """Whether files wait to be written."""
        return bool(self._pending)

    def add(self, data: bytes, *, dictionary: bytes | None, base: BaseRecord | None) -> FileRef:
        """Keeps a file unless the store or its external base has it.

        Raises:
            MissingFileError: ``dictionary`` is neither in the store nor in its base.
        """
        ref = file_ref(data)
        if ref.hash in self or ref.hash in _external(base):
            return ref
        key = None if dictionary is None else file_ref(dictionary).hash
        if key is not None and key not in self and key not in _external(base):
            raise MissingFileError(
                "file to compress against is neither in the store nor in its base",
                actual=key,
                hint="add it first, or pass no dictionary",
            )
        self._pending[ref.hash] = _compress(data, None, None)
        if key is not None and dictionary and not self._has_dictionary(key):
            against = _compress(data, dictionary, key)
            if len(against.stored) < len(self._pending[ref.hash].stored):
                self._pending[ref.hash] = against
        return ref

    def check(self, files: Mapping[str, FileRef], *, base: BaseRecord | None) -> None:
        """Checks that every file can be found again.

        Raises:
            MissingFileError: One can not.
        """
        for name, ref in files.items():
            if ref.hash not in self and ref.hash not in _external(base):
                raise MissingFileError(
                    "file is neither in the store nor in its base",
                    where=f"file {name!r}",
                    actual=ref.hash,
                    hint="add it with add_file first",
                )

    def write(self, appender: Appender) -> dict[str, StoredFile]:
        """Writes the waiting files; all files of the store."""
        for key, pending in self._pending.items():
            section = appender.section(pending.stored, raw_nbytes=pending.raw_nbytes)
            self._stored[key] = StoredFile(section, pending.dictionary)
        self._pending.clear()
        return dict(self._stored)

    def _has_dictionary(self, key: str) -> bool:
        """Whether a file is itself stored against another; such a file is no dictionary."""
        entry = self._stored.get(key) or self._pending.get(key)
        return entry is not None and entry.dictionary is not None


def _external(base: BaseRecord | None) -> set[str]:
    """Hashes of the files that an external base provides."""
    if base is None or base.storage != "external":
        return set()
    return {ref.hash for ref in base.files.values()}


def _compress(data: bytes, dictionary: bytes | None, key: str | None) -> _Pending:
    frame = zstd.compress(data, dictionary=dictionary) if data else data
    is_readable = is_plausible(len(data), len(frame) + len(dictionary or b""))
    if len(frame) < len(data) and is_readable:
        return _Pending(frame, len(data), key)
    return _Pending(data, None, None)
