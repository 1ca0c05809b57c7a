"""Where each chunk of a task lies: chunks fill the sections of their stream, one after another."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from formats.errors import SizeMismatchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from formats.encoding import RecordEntry
    from formats.sections import SectionRef
    from formats.tensor_table import TensorTable

Place: TypeAlias = "tuple[SectionRef | None, int]"
"""A section and the first byte in it; no section for a chunk of no bytes."""

_PARTS = ("record", "extra")


class ChunkPlaces:
    """Places of the chunks of all tensors.

    Raises:
        SizeMismatchError: Chunks do not cover their streams exactly.
    """

    def __init__(self, tensors: TensorTable, streams: Mapping[str, Sequence[SectionRef]]) -> None:
        self._streams = streams
        self._section_ends = {
            stream: [*accumulate(ref.content_nbytes for ref in refs)]
            for stream, refs in streams.items()
        }
        self._ends = {stream: [*accumulate(each)] for stream, each in _nbytes(tensors).items()}
        for stream in (*streams, *(self._ends.keys() - streams.keys())):
            _check(stream, self._ends.get(stream, []), self._section_ends.get(stream, []))

    def of(self, number: int, part: str, stored: RecordEntry) -> Iterator[Place]:
        """Of a record's chunks, in their order."""
        for chunk in stored.chunks:
            if not chunk.nbytes:
                yield None, 0
                continue
            end = self._ends[chunk.stream][2 * number + _PARTS.index(part)]
            section_ends = self._section_ends[chunk.stream]
            section = bisect_right(section_ends, end - 1)
            before = section_ends[section - 1] if section else 0
            yield self._streams[chunk.stream][section], end - chunk.nbytes - before

    def ends(self, stream: str, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[n], where in a stream the chunks of some tensors' records end."""
        return np.array(self._ends[stream], np.int64)[2 * numbers]


def _check(stream: str, ends: Sequence[int], section_ends: Sequence[int]) -> None:
    n_covered = ends[-1] if ends else 0
    n_stored = section_ends[-1] if section_ends else 0
    if n_covered > n_stored or not {*section_ends[:-1]} <= {*ends}:
        raise SizeMismatchError("chunks exceed the sections of their stream", where=stream)
    if n_covered < n_stored:
        raise SizeMismatchError("bytes that no chunk covers", where=stream)


def _nbytes(tensors: TensorTable) -> dict[str, list[int]]:
    """By stream the lengths of each tensor's chunks, of the record and of the extra one."""
    found = {}
    for stream, nbytes in tensors.signs.nbytes_by_stream():
        found[stream] = [0] * 2 * len(tensors)
        for number, each in zip(tensors.signs.numbers.tolist(), nbytes.tolist(), strict=True):
            found[stream][2 * number] = each
    for number, entry in tensors.others.items():
        for place, stored in enumerate((entry.record, entry.extra), 2 * number):
            for chunk in () if stored is None else stored.chunks:
                found.setdefault(chunk.stream, [0] * 2 * len(tensors))[place] = chunk.nbytes
    return found
