"""Attached files: content-addressed, whole, compressed or stored against another file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from formats.checksum import hexdigest
from formats.codecs import zstd
from formats.errors import (
    ChecksumMismatchError,
    MalformedIndexError,
    MissingFileError,
    SizeLimitError,
)
from formats.index import BaseRecord, FileRef, StoredFile

if TYPE_CHECKING:
    from formats.buffers import Buffer

BaseFile = Callable[[FileRef], bytes]
"""Fetches a file of an external base."""

FREE_FILE_NBYTES = 16 << 20
MAX_FILE_RATIO = 128


def is_plausible(nbytes: int, stored_nbytes: int) -> bool:
    """Whether a file may decode to ``nbytes``; what it may cost is bounded by what was stored.

    Args:
        nbytes: Of its content.
        stored_nbytes: Of its section and of the file that it was compressed against.
    """
    return nbytes <= FREE_FILE_NBYTES + MAX_FILE_RATIO * stored_nbytes


def file_ref(data: bytes) -> FileRef:
    """The reference of a file's content."""
    return FileRef(hexdigest(data), len(data))


def read_file(
    ref: FileRef,
    *,
    stored: Mapping[str, StoredFile],
    section: Callable[[StoredFile], Buffer],
    base: BaseRecord,
    base_file: BaseFile | None,
) -> bytes:
    """Content of an attached file, verified.

    Args:
        ref: What to read.
        stored: Files of the store by hash.
        section: Gives the verified stored bytes of a file.
        base: Knows the files that only an external base has.
        base_file: Fetches those.

    Raises:
        MissingFileError: It, or what it was compressed against, is neither stored nor fetched.
        ChecksumMismatchError: The content has another hash.
    """
    entry = stored.get(ref.hash)
    if entry is None:
        content = _from_base(ref, base, base_file)
    elif entry.dictionary is None:
        content = _plain(entry, section)
    else:
        against = stored.get(entry.dictionary)
        if against is None:
            dictionary = _from_base(_base_ref(entry.dictionary, base), base, base_file)
        elif against.dictionary is None:
            dictionary = _checked(_plain(against, section), entry.dictionary)
        else:
            raise MalformedIndexError("file is compressed against a compressed file", actual=ref)
        if entry.section.raw_nbytes is None:
            raise MalformedIndexError("file with a dictionary is not compressed", actual=ref)
        content = _decompressed(section(entry), entry.nbytes, dictionary)
    return _checked(content, ref.hash)


def _plain(entry: StoredFile, section: Callable[[StoredFile], Buffer]) -> bytes:
    if entry.section.raw_nbytes is None:
        return bytes(section(entry))
    return _decompressed(section(entry), entry.section.raw_nbytes, None)


def _decompressed(frame: Buffer, nbytes: int, dictionary: bytes | None) -> bytes:
    stored_nbytes = len(frame) + len(dictionary or b"")
    if not is_plausible(nbytes, stored_nbytes):
        raise SizeLimitError(
            "attached file too large for what is stored of it",
            expected=f"<= {FREE_FILE_NBYTES + MAX_FILE_RATIO * stored_nbytes} bytes",
            actual=f"{nbytes} bytes",
        )
    return zstd.decompress(frame, nbytes, dictionary=dictionary)


def _base_ref(key: str, base: BaseRecord) -> FileRef:
    for ref in base.files.values():
        if ref.hash == key:
            return ref
    raise MissingFileError("file is neither in the store nor in its base", actual=key)


def _from_base(ref: FileRef, base: BaseRecord, base_file: BaseFile | None) -> bytes:
    _base_ref(ref.hash, base)
    if base_file is None:
        raise MissingFileError(
            "file belongs to the external base", actual=ref.hash, hint="pass the base"
        )
    return _checked(base_file(ref), ref.hash)


def _checked(content: bytes, expected: str) -> bytes:
    actual = hexdigest(content)
    if actual != expected:
        raise ChecksumMismatchError(
            "attached file has another content", expected=expected, actual=actual
        )
    return content
