"""The error tree of the whole product, and the container's own branch of it.

One class per rule, so that a caller matches a class and never a text. Every class has a stable
``id`` and a process exit code; the text is composed from fields, so a low-level codec raises what
it knows and the layers above add the path and the place with :func:`located`.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


class NpsError(Exception):
    """Root of every error that this product raises on purpose.

    Args:
        problem: What is wrong, lower case, without a full stop.
        path: The file it was found in.
        where: The place inside the file or the argument.
        expected: What should have been there.
        actual: What was there.
        hint: What to do about it.
    """

    id: ClassVar[str] = "nps"
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        problem: str,
        *,
        path: str | os.PathLike[str] | None = None,
        where: str | None = None,
        expected: object = None,
        actual: object = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = None if path is None else os.fspath(path)
        self.where = where
        self.expected = expected
        self.actual = actual
        self.hint = hint

    def __str__(self) -> str:
        text = self.problem if self.path is None else f"{self.path}: {self.problem}"
        if self.where is not None:
            text += f" ({self.where})"
        facts = []
        if self.expected is not None:
            facts.append(f"expected {self.expected}")
        if self.actual is not None:
            facts.append(f"got {self.actual}")
        if facts:
            text += ": " + ", ".join(facts)
        if self.hint is not None:
            text += f"; {self.hint}"
        return text


class located:  # noqa: N801 (a context manager, called as a function)
    """Adds the path and the place to an error that passes through and lacks them.

    A class, because a generator takes three times as long and readers enter many.
    """

    __slots__ = ("_path", "_where")

    def __init__(
        self, *, path: str | os.PathLike[str] | None = None, where: str | None = None
    ) -> None:
        self._path = path
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if not isinstance(error, NpsError):
            return
        if error.path is None and self._path is not None:
            error.path = os.fspath(self._path)
        if error.where is None:
            error.where = self._where
        elif self._where is not None and self._where not in error.where:
            error.where = f"{self._where}, {error.where}"


@contextmanager
def named(path: str) -> Iterator[None]:
    """Adds the path to an error of the system that lacks it, such as a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


class InvalidStateError(NpsError, RuntimeError):
    """A reader or writer was used out of order: closed, already finished, no base yet."""

    id = "format.invalid_state"
    exit_code = 9


class FormatError(NpsError, ValueError):
    """The bytes of a store break a rule of FORMAT.md; subclasses say which."""

    id = "format"
    exit_code = 10


class BadMagicError(FormatError):
    """The file does not begin with the magic of a store."""

    id = "format.bad_magic"
    exit_code = 11


class UnsupportedVersionError(FormatError):
    """The store has a major version that this reader does not know."""

    id = "format.unsupported_version"
    exit_code = 12


class UnsupportedFeatureError(FormatError):
    """The store sets a feature bit that a reader must understand and this one does not."""

    id = "format.unsupported_feature"
    exit_code = 13


class TruncatedError(FormatError):
    """The file ends before something that it promises."""

    id = "format.truncated"
    exit_code = 14


class ChecksumMismatchError(FormatError):
    """Stored bytes do not have the checksum that was recorded for them."""

    id = "format.checksum_mismatch"
    exit_code = 15


class NoValidRootError(FormatError):
    """Both root slots are damaged and no valid trailer was found."""

    id = "format.no_valid_root"
    exit_code = 16


class CompressedFrameError(FormatError):
    """A zstd frame is malformed, declares a wrong size or is followed by other bytes."""

    id = "format.compressed_frame"
    exit_code = 17


class SizeLimitError(FormatError):
    """Something is larger than the format allows."""

    id = "format.size_limit"
    exit_code = 18


class MalformedIndexError(FormatError):
    """An index or directory is not the JSON document that the format describes."""

    id = "format.malformed_index"
    exit_code = 19


class DuplicateNameError(FormatError):
    """A name that must be unique occurs twice."""

    id = "format.duplicate_name"
    exit_code = 20


class SectionLayoutError(FormatError):
    """Sections overlap, leave holes, are not aligned or lie outside the committed bytes."""

    id = "format.section_layout"
    exit_code = 21


class SizeMismatchError(FormatError):
    """A stored length does not agree with a shape, a dtype or a count."""

    id = "format.size_mismatch"
    exit_code = 22


class UnknownEncodingError(FormatError):
    """A dtype, record kind, stream or codec has a name that this reader does not know."""

    id = "format.unknown_encoding"
    exit_code = 23


class CorruptStreamError(FormatError):
    """A stream decodes to values that its codec can not have written."""

    id = "format.corrupt_stream"
    exit_code = 24


class MissingFileError(NpsError, LookupError):
    """An attached file, or the file it was compressed against, is not at hand."""

    id = "format.missing_file"
    exit_code = 25


class InvalidRecordError(NpsError, ValueError):
    """What was handed to a writer contradicts itself or the base."""

    id = "format.invalid_record"
    exit_code = 26


class TaskNotFoundError(NpsError, KeyError):
    """The store has no task of that name."""

    id = "format.task_not_found"
    exit_code = 27


class StoreLockedError(NpsError, TimeoutError):
    """Another writer holds the store."""

    id = "format.store_locked"
    exit_code = 28


class StoreExistsError(NpsError, FileExistsError):
    """A store is to be created where a file already is."""

    id = "format.store_exists"
    exit_code = 29
