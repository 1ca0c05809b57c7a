"""Where the elements of a checkpoint lie in a model that fuses, pads or shards them.

A checkpoint tensor is a few runs of elements, each of which lies in one piece in some parameter.
Positions map by a search among the runs; no mask of a whole tensor is ever made for a task.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from server.errors import UnsafeLayoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    Positions = NDArray[np.int64]

MAX_RUNS_PER_ELEMENT = 1 / 4
"""Beyond it (a transposed matrix: every element is a run) the runs outgrow the weights."""
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, eq=False)
class Piece:
    """Runs of a checkpoint tensor's elements that lie in one parameter.

    Attributes:
        parameter: Its name.
        source: int64 [n_runs], where each run begins in the flat tensor; increasing.
        local: int64 [n_runs], where it begins in the flat parameter.
        length: int64 [n_runs].
    """

    parameter: str
    source: Positions
    local: Positions
    length: Positions

    @classmethod
    def of(cls, parameter: str, source: Positions, local: Positions, length: Positions) -> Piece:
        """Of runs in any order.

        Raises:
            UnsafeLayoutError: They are too many, or an element lies in two places.
        """
        if len(source) > max(16, MAX_RUNS_PER_ELEMENT * int(length.sum())):
            raise UnsafeLayoutError(
                f"parameter {parameter!r} is scattered ({len(source)} runs of {length.sum()} "
                "elements), as a transposed one is; tasks cannot be put into it"
            )
        order = np.argsort(source)
        source, local, length = source[order], local[order], length[order]
        if np.any(source[:-1] + length[:-1] > source[1:]):
            raise UnsafeLayoutError(
                f"parameter {parameter!r} holds elements of its checkpoint twice; "
                "tasks cannot be put into it"
            )
        return cls(parameter, source, local, length)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.source.nbytes + self.local.nbytes + self.length.nbytes

    def locate(self, positions: Positions) -> tuple[Positions, Positions]:
        """Which of some positions of the tensor lie here, and where.

        Args:
            positions: int64 [n], in the flat tensor.

        Returns:
            Indices [k] into `positions`, and int64 [k] in the flat parameter.
        """
        run = np.searchsorted(self.source, positions, side="right") - 1
        inside = run >= 0
        inside &= positions < self.source[run] + self.length[run]
        kept = np.flatnonzero(inside)
        run = run[kept]
        return kept, positions[kept] - self.source[run] + self.local[run]

    def elements(self) -> tuple[Positions, Positions]:
        """All elements' places, in the flat tensor and in the flat parameter, by the latter."""
        order = np.argsort(self.local)
        source, local, length = self.source[order], self.local[order], self.length[order]
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        return np.repeat(source, length) + within, np.repeat(local, length) + within


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each tensor of a checkpoint lies in one process's part of a model.

    Attributes:
        parameters: Of the model, by its names.
        pieces: By checkpoint tensor; none for those that the model does not load.
    """

    parameters: dict[str, Tensor]
    pieces: Mapping[str, tuple[Piece, ...]]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(piece.nbytes for pieces in self.pieces.values() for piece in pieces)

    def held_as_one(self) -> list[tuple[str, ...]]:
        """Checkpoint tensors that lie at the same elements of a parameter, in groups."""
        runs: dict[str, list[tuple[int, int, str]]] = {}
        for name, pieces in self.pieces.items():
            for piece in pieces:
                ends = piece.local + piece.length
                triples = zip(piece.local.tolist(), ends.tolist(), [name] * len(ends), strict=True)
                runs.setdefault(piece.parameter, []).extend(triples)
        groups: dict[str, set[str]] = {}
        for of_parameter in runs.values():
            of_parameter.sort()
            for (_, end, one), (start, _, other) in pairwise(of_parameter):
                if start < end:
                    together = groups.get(one, {one}) | groups.get(other, {other})
                    groups.update(dict.fromkeys(together, together))
        return sorted({tuple(sorted(group)) for group in groups.values()})

    def check(self, tensor: Callable[[str], Tensor]) -> None:
        """The self-test: the checkpoint put through the layout is what is resident, bit for bit.

        Args:
            tensor: Reads a tensor of the checkpoint, in any floating dtype.

        Raises:
            UnsafeLayoutError: It is not, because weights were quantised, permuted or derived after
                loading (names the first parameter).
        """
        for name, pieces in self.pieces.items():
            if not pieces:
                continue
            values = tensor(name).reshape(-1)
            for piece in pieces:
                self._check(name, piece, values)

    def _check(self, name: str, piece: Piece, values: Tensor) -> None:
        resident = self.parameters[piece.parameter]
        if resident.is_floating_point():
            values = values.to(resident.dtype)
        first = int(piece.local.min())
        end = int((piece.local + piece.length).max())
        held = resident.view(-1)[first:end].cpu()
        if held.dtype != values.dtype or not _are_equal(
            _bits(held), _bits(values), piece.local - first, piece.source, piece.length
        ):
            raise UnsafeLayoutError(
                f"parameter {piece.parameter!r} does not hold the checkpoint's {name!r} as it was "
                "loaded: it was quantised, permuted or derived, so tasks cannot be put into it",
                hint="serve unquantised weights, or this base with the torch engine",
            )


def _are_equal(
    held: Tensor, values: Tensor, at: Positions, source: Positions, length: Positions
) -> bool:
    """Compare run by run: an index of every element would take eight times the weights."""
    runs = zip(at.tolist(), source.tolist(), length.tolist(), strict=True)
    return all(torch.equal(held[a : a + n], values[s : s + n]) for a, s, n in runs)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(_INTEGERS[tensor.element_size()])
