"""Attached files: content-addressed, whole, compressed or stored against another file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from formats.checksum import hexdigest
from formats.codecs import zstd
from formats.errors import ChecksumMismatchError, MalformedIndexError, MissingFileError
from formats.index import BaseRecord, FileRef, StoredFile

if TYPE_CHECKING:
    from formats.buffers import Buffer

BaseFile = Callable[[FileRef], bytes]
"""Fetches a file of an external base."""


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
        content = zstd.decompress(section(entry), entry.nbytes, dictionary=dictionary)
    return _checked(content, ref.hash)


def _plain(entry: StoredFile, section: Callable[[StoredFile], Buffer]) -> bytes:
    if entry.section.raw_nbytes is None:
        return bytes(section(entry))
    return zstd.decompress(section(entry), entry.section.raw_nbytes)


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
