"""Writing one task: tensors stream through, the directory comes last."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

from formats.canonical import JSON, as_file_name, as_name, dump
from formats.directory import TaskDirectory
from formats.dither import tensor_seed
from formats.dtypes import element_count
from formats.encode import encode_record
from formats.errors import (
    DuplicateNameError,
    InvalidRecordError,
    InvalidStateError,
    located,
)
from formats.index import MAX_DIRECTORY_NBYTES, BaseTensor, FileRef, TaskEntry
from formats.layout import FACTORS, OUTLIERS, RANKED
from formats.records import Factors, Record, SparseLevels, SparseValues, check_covers
from formats.streams import StreamBuffers
from formats.tensor_entry import TensorEntry
from formats.tensor_table import TensorTable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from formats.append import Appender
    from formats.encoding import RecordEntry


class TaskWriter:
    """Adds the tensors of one task to a store; made by :class:`formats.writer.ContainerWriter`.

    Memory is bounded by the largest tensor and one section per stream. As a context manager it
    drops the task when left without :meth:`finish`. Not thread-safe.
    """

    def __init__(
        self,
        appender: Appender,
        base: Sequence[BaseTensor],
        *,
        path: str,
        name: str,
        prefix: str,
        dtype: str | None,
        dither: str | None,
        check_files: Callable[[Mapping[str, FileRef]], None],
        on_close: Callable[[TaskEntry | None], None],
    ) -> None:
        self._appender = appender
        self._path = path
        self._base = base
        self._name = name
        self._prefix = prefix
        self._dtype = dtype
        self._dither = dither
        self._check_files = check_files
        self._on_close = on_close
        self._start = appender.position
        self._origin = appender.align()
        self._streams = StreamBuffers(appender, self._origin)
        self._entries: dict[str, TensorEntry] = {}
        self._is_open = True

    def add(
        self,
        name: str,
        *,
        dtype: str,
        shape: Sequence[int],
        base: int | None,
        record: Record | None,
        extra: Record | None = None,
    ) -> TensorEntry:
        """Encodes and writes one tensor.

        Args:
            name: In the task's checkpoint, the task's prefix included.
            dtype: In the task's checkpoint.
            shape: In the task's checkpoint.
            base: Index of the base tensor it derives from, None for a new tensor.
            record: Over the whole tensor, or over the base's rows where it grew; None when those
                equal the base.
            extra: Over the rows appended to the base's.

        Returns:
            The entry, which says what was chosen and how many bytes it takes.

        Raises:
            InvalidRecordError: A record contradicts itself, the shape or the task's dither.
            DuplicateNameError: The task already has a tensor of that name.
            FormatError: The entry breaks a rule of the format.
        """
        self._require_open()
        with (
            located(path=self._path, where=f"task {self._name!r}"),
            located(where=f"tensor {name!r}"),
        ):
            as_name(name, "tensor name")
            if name in self._entries:
                raise DuplicateNameError("tensor was already added", actual=repr(name))
            if base is not None and not 0 <= base < len(self._base):
                raise InvalidRecordError("no such base tensor", actual=base)
            bare = TensorEntry(name, dtype, tuple(shape), base)
            element_count(bare.shape, dtype)
            common, appended = bare.shapes(self._base)
            check_covers(record, common)
            check_covers(extra, appended)
            record, extra = self._seeded(record, base), self._seeded(extra, None)
            stored, chunks = self._encode(record, dtype)
            stored_extra, extra_chunks = self._encode(extra, dtype)
            entry = TensorEntry(name, dtype, bare.shape, base, stored, stored_extra)
            entry.check(self._base)
        try:
            for payload in (chunks, extra_chunks):
                for stream, chunk in payload.items():
                    self._streams.add(stream, chunk)
        except BaseException:
            self.abort()  # half of a tensor is in the streams
            raise
        self._entries[name] = entry
        return entry

    def finish(
        self,
        *,
        absent: Sequence[int] = (),
        files: Mapping[str, FileRef] | None = None,
        meta: Mapping[str, JSON] | None = None,
    ) -> TaskEntry:
        """Writes the directory. The task becomes visible with the store's next commit.

        Args:
            absent: Indices of base tensors that the task does not have.
            files: Attached files by file name, each added to the store or part of the base.
            meta: Calibration, measured quality and anything else that is JSON.

        Raises:
            MissingFileError: A file is not in the store.
            FormatError: The directory breaks a rule of the format.
        """
        self._require_open()
        with located(path=self._path, where=f"task {self._name!r}"):
            directory = self._directory(absent, dict(files or {}), dict(meta or {}))
        directory = replace(directory, streams=self._streams.finish())
        section = self._appender.section(self._document(directory))
        entry = TaskEntry(section, self._origin, section.end - self._origin)
        self._is_open = False
        self._on_close(entry)
        return entry

    def abort(self) -> None:
        """Drops the task; the next one overwrites its bytes."""
        if self._is_open:
            self._is_open = False
            self._appender.position = self._start
            self._on_close(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abort()

    def _seeded(self, record: Record | None, base: int | None) -> Record | None:
        """The record with a seed that readers are going to know, or with none.

        Raises:
            InvalidRecordError: It was selected with other random numbers than the task's.
        """
        if not isinstance(record, SparseLevels | SparseValues) or record.seed is None:
            return record
        if self._dither is None or base is None:
            expected = None
        else:
            expected = tensor_seed(self._dither, self._base[base].name)
        if record.seed != expected:
            raise InvalidRecordError(
                "seed of other random numbers", expected=expected, actual=record.seed
            )
        # A store of version 1.0 has readers that know nothing of ranks.
        return record if self._appender.features & RANKED else replace(record, seed=None)

    def _encode(
        self, record: Record | None, dtype: str
    ) -> tuple[RecordEntry | None, dict[str, bytes]]:
        if record is None:
            return None, {}
        if isinstance(record, Factors) and not self._appender.features & FACTORS:
            raise InvalidRecordError(
                "store is of a version before 1.3, whose readers know no factors",
                hint="compact it first, which makes it one of the newest version",
            )
        # A store of version 1.1 has readers that know nothing of outliers.
        with_outliers = bool(self._appender.features & OUTLIERS)
        return encode_record(record, dtype=dtype, with_outliers=with_outliers)

    def _directory(
        self, absent: Sequence[int], files: dict[str, FileRef], meta: dict[str, JSON]
    ) -> TaskDirectory:
        """The checked directory, still without its streams."""
        for name in files:
            as_file_name(name, "file name")
        self._check_files(files)
        directory = TaskDirectory(
            self._name,
            self._prefix,
            self._dtype,
            TensorTable.of(self._entries.values()),
            tuple(sorted(absent)),
            files,
            meta,
            dither=self._dither if self._is_ranked() else None,
        )
        directory.check(self._base)
        self._document(directory)  # refuses what is not JSON before more is written
        return directory

    def _is_ranked(self) -> bool:
        stored = (entry.record for entry in self._entries.values())
        return any(record is not None and record.is_ranked for record in stored)

    def _document(self, directory: TaskDirectory) -> bytes:
        return dump(directory.to_json(self._base), max_nbytes=MAX_DIRECTORY_NBYTES)

    def _require_open(self) -> None:
        if not self._is_open:
            raise InvalidStateError("task is already finished", where=f"task {self._name!r}")
