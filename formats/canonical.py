"""Index documents: canonical JSON in one zstd frame, parsed strictly.

A document is written in exactly one way and read with every type checked and every unknown key
refused, so that a damaged or hostile index fails here and not somewhere in the arithmetic.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn, TypeAlias, TypeVar

from formats.codecs import zstd
from formats.errors import (
    DuplicateNameError,
    InvalidRecordError,
    MalformedIndexError,
    SizeLimitError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from formats.buffers import Buffer

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

T = TypeVar("T")

MAX_INT = (1 << 63) - 1
MAX_NAME_NBYTES = 4096
FREE_DOCUMENT_NBYTES = 1 << 18
MAX_DOCUMENT_RATIO = 128


def dump(document: JSON, *, max_nbytes: int = MAX_INT) -> bytes:
    """Compressed canonical form: sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        InvalidRecordError: The document is not JSON.
        SizeLimitError: It is so large or so repetitive that no reader would take it.
    """
    try:
        text = json.dumps(
            document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        data = text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRecordError("not representable as JSON", hint=str(error)) from error
    _check_size(len(data), len(data), max_nbytes)
    frame = zstd.compress(data)
    _check_size(len(data), len(frame), max_nbytes)
    return frame


def load(frame: Buffer, *, max_nbytes: int) -> JSON:
    """Inverse of :func:`dump`; bounded before anything is allocated.

    Raises:
        SizeLimitError: The document is larger than ``max_nbytes`` or than its frame can justify.
        CompressedFrameError: The frame is malformed.
        DuplicateNameError: An object has a key twice.
        MalformedIndexError: The document is not JSON.
    """
    nbytes = zstd.declared_nbytes(frame)
    _check_size(nbytes, len(frame), max_nbytes)
    data = zstd.decompress(frame, nbytes)
    try:
        document: JSON = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, (DuplicateNameError, MalformedIndexError)):
            raise
        raise MalformedIndexError("index is not JSON", hint=str(error)) from error
    return document


def closed(
    value: JSON, where: str, *, required: Collection[str], optional: Collection[str] = ()
) -> dict[str, JSON]:
    """An object that has every required key and no unknown one."""
    fields = as_object(value, where)
    is_complete = all(map(fields.__contains__, required))
    n_known = len(required) + sum(map(fields.__contains__, optional))
    if not is_complete or n_known != len(fields):
        raise MalformedIndexError(
            "wrong keys in an index object",
            where=where,
            expected=", ".join(sorted([*required, *optional])),
            actual=", ".join(sorted(fields)) or "none",
        )
    return fields


def as_object(value: JSON, where: str) -> dict[str, JSON]:
    """``value`` if it is an object."""
    if not isinstance(value, dict):
        _mistyped(value, where, "an object")
    return value


def as_list(value: JSON, where: str, *, lengths: Collection[int] | None = None) -> list[JSON]:
    """``value`` if it is a list (of one of the lengths)."""
    if not isinstance(value, list) or (lengths is not None and len(value) not in lengths):
        _mistyped(value, where, "a list" if lengths is None else f"a list of {lengths} items")
    return value


def as_int(value: JSON, where: str, *, low: int = 0, high: int = MAX_INT) -> int:
    """``value`` if it is an integer within the bounds; booleans are none."""
    if type(value) is not int or not low <= value <= high:
        _mistyped(value, where, f"an integer from {low} to {high}")
    return value


def as_str(value: JSON, where: str) -> str:
    """``value`` if it is a string."""
    if not isinstance(value, str):
        _mistyped(value, where, "a string")
    return value


def as_name(value: JSON, where: str) -> str:
    """``value`` if it is a name: data, not empty, valid UTF-8, no NUL, bounded in length."""
    name = as_str(value, where)
    try:
        nbytes = len(name) if name.isascii() else len(name.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise MalformedIndexError("name is not UTF-8", where=where, actual=repr(name)) from error
    if not 0 < nbytes <= MAX_NAME_NBYTES or "\0" in name:
        _mistyped(value, where, f"a name of 1 to {MAX_NAME_NBYTES} bytes without NUL")
    return name


def as_file_name(value: JSON, where: str) -> str:
    """``value`` if it is the name of a file below a directory, as in ``1_Pooling/config.json``."""
    name = as_name(value, where)
    parts = name.split("/")
    if "\\" in name or ":" in parts[0] or not {"", ".", ".."}.isdisjoint(parts):
        _mistyped(value, where, "a relative file name without '.', '..', '\\' or a drive")
    return name


def as_checksum(value: JSON, where: str) -> str:
    """``value`` if it is 32 lower-case hexadecimal digits."""
    if not isinstance(value, str) or len(value) != 32 or value.strip("0123456789abcdef"):
        _mistyped(value, where, "32 hexadecimal digits")
    return value


def mapping_from_json(
    value: JSON,
    what: str,
    parse_key: Callable[[JSON, str], str],
    parse_item: Callable[[JSON, str], T],
) -> dict[str, T]:
    """An object whose keys and items are parsed."""
    return {
        parse_key(key, where := f"{what} {key!r}"): parse_item(item, where)
        for key, item in as_object(value, what).items()
    }


def _check_size(nbytes: int, frame_nbytes: int, max_nbytes: int) -> None:
    """Bounds what parsing may cost, some twenty times the document, by what was stored for it."""
    limit = min(max_nbytes, FREE_DOCUMENT_NBYTES + MAX_DOCUMENT_RATIO * frame_nbytes)
    if nbytes > limit:
        raise SizeLimitError(
            "index too large", expected=f"<= {limit} bytes", actual=f"{nbytes} bytes"
        )


def _mistyped(value: JSON, where: str, expected: str) -> NoReturn:
    raise MalformedIndexError(
        "wrong value in an index", where=where, expected=expected, actual=repr(value)[:80]
    )


def _unique(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [key for key, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise DuplicateNameError("key occurs twice in an index object", actual=repr(repeated)[:80])
    return fields


def _no_constant(name: str) -> NoReturn:
    raise MalformedIndexError("index is not JSON", actual=name)
