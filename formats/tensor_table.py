"""The tensors of a task, those that are alike read all at once.

Nearly every tensor of a sparse task has one record of signs at ranked positions, and a directory
lists hundreds. Their numbers are gathered into columns and checked by column; entries are made when
somebody asks for them. What looks otherwise is parsed by itself, and where anything at all is
wrong, every tensor is, so that there is one place which says what.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from formats.base import BaseTensor, tensors_from_json
from formats.canonical import as_name
from formats.codecs import segments
from formats.encoding import Chunk, RecordEntry
from formats.errors import FormatError, located
from formats.tensor_entry import TensorEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from formats.canonical import JSON

SIGN_STREAMS = ("segments", "ranks", "signs", "scales")
"""Of a record of signs at ranked positions."""
_KEYS = {"base", "record"}
_RECORD_KEYS = {"kind", "chunks", "levels", "n_kept"}


@dataclass(frozen=True, eq=False, slots=True)
class SignRows:
    """Tensors that have the base's name and shape and one record, of signs at ranked positions.

    Attributes:
        numbers: int64[n], places among the tensors of the task, increasing.
        bases: int64[n], their base tensors.
        numels: int64[n], elements.
        n_kept: int64[n], kept entries.
        nbytes: int64[n, 4], chunks by stream, all of them raw.
    """

    numbers: NDArray[np.int64]
    bases: NDArray[np.int64]
    numels: NDArray[np.int64]
    n_kept: NDArray[np.int64]
    nbytes: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of tensors."""
        return self.numbers.size

    def nbytes_by_stream(self) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Each stream with the lengths of the chunks."""
        return zip(SIGN_STREAMS, self.nbytes.T, strict=True)


class TensorTable(Sequence[TensorEntry]):
    """Entries in the order of their chunks in the streams.

    Attributes:
        signs: Those that are alike, as columns.
        others: The rest, by place.
        names: Of all.
        bases: Of all, the base tensor that each derives from, None for a new one.
    """

    def __init__(
        self,
        base: Sequence[BaseTensor],
        prefix: str,
        signs: SignRows,
        others: dict[int, TensorEntry],
    ) -> None:
        self._base = base
        self.signs = signs
        self.others = others
        self._made = dict(others)
        self.bases: list[int | None] = [None] * (len(signs) + len(others))
        self.names = [""] * len(self.bases)
        for number, index in zip(signs.numbers.tolist(), signs.bases.tolist(), strict=True):
            self.names[number] = as_name(prefix + base[index].name, "name")
            self.bases[number] = index
        for number, entry in others.items():
            self.names[number], self.bases[number] = entry.name, entry.base

    @classmethod
    def of(cls, entries: Iterable[TensorEntry]) -> TensorTable:
        """Of entries that are there already."""
        return cls((), "", _rows((), (), ()), dict(enumerate(entries)))

    @classmethod
    def from_json(
        cls, value: JSON, base: Sequence[BaseTensor], prefix: str, where: str
    ) -> TensorTable:
        """Parses and checks the list of a directory.

        Raises:
            FormatError: The class says which rule is broken.
        """
        items = tensors_from_json(value, where)
        table = cls._by_columns(items, base, prefix)
        if table is None:
            with located(where=where):
                table = cls.of(_one_by_one(items, base, prefix))
        return table

    @classmethod
    def _by_columns(
        cls, items: Sequence[JSON], base: Sequence[BaseTensor], prefix: str
    ) -> TensorTable | None:
        """None where anything is wrong."""
        try:
            numbers = [*map(_numbers, items)]
            others = {
                place: TensorEntry.from_json(items[place], base, prefix)
                for place, found in enumerate(numbers)
                if found is None
            }
            places = [place for place, found in enumerate(numbers) if found is not None]
            rows = _rows(places, [found for found in numbers if found is not None], base)
            return cls(base, prefix, rows, others)
        except (FormatError, AttributeError, ArithmeticError, LookupError, TypeError, ValueError):
            return None

    @property
    def has_ranked(self) -> bool:
        """Whether positions of any are coded in the order of their dither."""
        records = (entry.record for entry in self.others.values())
        return bool(len(self.signs)) or any(r is not None and r.is_ranked for r in records)

    def __eq__(self, other: object) -> bool:
        """Whether the entries are equal."""
        return isinstance(other, TensorTable) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self.bases)

    @overload
    def __getitem__(self, index: int) -> TensorEntry: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TensorEntry, ...]: ...
    def __getitem__(self, index: int | slice) -> TensorEntry | tuple[TensorEntry, ...]:
        """The entry of a tensor."""
        if isinstance(index, slice):
            return tuple(map(self.__getitem__, range(len(self))[index]))
        number = range(len(self))[index]
        entry = self._made.get(number)
        if entry is None:
            entry = self._made[number] = self._entry(number)
        return entry

    def _entry(self, number: int) -> TensorEntry:
        """Made of a row."""
        row = int(np.searchsorted(self.signs.numbers, number))
        index = int(self.signs.bases[row])
        pairs = zip(SIGN_STREAMS, self.signs.nbytes[row].tolist(), strict=True)
        chunks = tuple([Chunk(stream, "raw", nbytes) for stream, nbytes in pairs])
        record = RecordEntry("sparse_levels", chunks, int(self.signs.n_kept[row]), (1, 1))
        origin = self._base[index]
        return TensorEntry(self.names[number], origin.dtype, origin.shape, index, record)


def _one_by_one(
    items: Sequence[JSON], base: Sequence[BaseTensor], prefix: str
) -> Iterator[TensorEntry]:
    for number, item in enumerate(items):
        with located(where=f"tensor {number}"):
            yield TensorEntry.from_json(item, base, prefix)


def _numbers(item: Any) -> tuple[Any, ...] | None:  # noqa: ANN401 (any JSON; what it is shows)
    """Of a tensor that may be a row, not checked: base, kept entries, levels, lengths of chunks."""
    record = item.get("record")
    if item.keys() != _KEYS or record.keys() != _RECORD_KEYS:
        return None
    chunks = record["chunks"]
    if record["kind"] != "sparse_levels" or len(chunks) != len(SIGN_STREAMS):
        return None
    (a, of_a, n_a), (b, of_b, n_b), (c, of_c, n_c), (d, of_d, n_d) = chunks
    if (a, b, c, d) != SIGN_STREAMS or not of_a == of_b == of_c == of_d == "raw":
        return None
    return item["base"], record["n_kept"], *record["levels"], n_a, n_b, n_c, n_d


def _rows(
    places: Sequence[int], numbers: Sequence[tuple[Any, ...]], base: Sequence[BaseTensor]
) -> SignRows:
    """Rows of what `_numbers` found, checked by the rules of :meth:`TensorEntry.check`.

    Raises:
        ValueError: One is broken.
    """
    if not {*map(type, chain.from_iterable(numbers))} <= {int}:
        raise ValueError("not integers")
    columns = np.array(numbers, np.int64).reshape(len(numbers), 4 + len(SIGN_STREAMS))
    bases, n_kept, nbytes = columns[:, 0], columns[:, 1], columns[:, 4:]
    if (columns < 0).any() or (columns[:, 2:4] != 1).any() or bases.max(initial=-1) >= len(base):
        raise ValueError("out of range")
    shapes = [base[index].shape for index in bases.tolist()]
    numels = np.array([*map(math.prod, shapes)], np.int64)
    n_rows = np.array([shape[0] if shape else 1 for shape in shapes], np.int64)
    n_headers, _, n_signs, n_scales = nbytes.T
    if not (
        (n_kept <= numels).all()
        and (n_headers <= segments.N_BUCKETS).all()
        and (n_signs == (n_kept + 7) // 8).all()
        and ((n_scales == 4) | (n_scales == 4 * n_rows)).all()
    ):
        raise ValueError("wrong lengths")
    return SignRows(np.array(places, np.int64), bases, numels, n_kept, nbytes)
