"""A task's changes of checkpoint tensors, made changes of the parameters they lie in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nps_store.errors import UnsupportedTaskError
from nps_store.switch import AddAll, AddProduct, BlockIndex, Multiply, Replace, SparseDelta, XorAll

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from nps_store.switch import Patch
    from server.engines.vllm.layout import Layout, Piece, Positions

    Scales = NDArray[np.float32]


def placed(layout: Layout, patches: Iterable[tuple[str, Patch]]) -> Iterator[tuple[Tensor, Patch]]:
    """Pairs for `ResidentTask.of`, in the parameters' own order of elements.

    Sparse changes of all tensors that a parameter is made of become one. A dense one is of the part
    of the parameter that its tensor fills.

    Args:
        layout: Of the model.
        patches: By checkpoint tensor, each once; those that lie elsewhere (in another process's
            shard) give nothing.

    Raises:
        UnsupportedTaskError: Two changes are of the same element.
    """
    sparse: dict[str, list[tuple[Piece, SparseDelta]]] = {}
    for name, patch in patches:
        for piece in layout.pieces[name]:
            if isinstance(patch, SparseDelta):
                sparse.setdefault(piece.parameter, []).append((piece, patch))
            else:
                yield from _dense(layout.parameters[piece.parameter], piece, patch)
    for parameter, parts in sparse.items():
        tensor = layout.parameters[parameter]
        patch = _merged(parameter, tensor, parts)
        if len(patch.where):
            yield tensor, patch


def _merged(parameter: str, tensor: Tensor, parts: list[tuple[Piece, SparseDelta]]) -> SparseDelta:
    """One sparse change of a parameter from those of the tensors it is made of."""
    places, amounts, scales = [], [], []
    for piece, patch in parts:
        positions = patch.index.numpy()
        kept, local = piece.locate(positions)
        places.append(local)
        amounts.append(_amounts(patch)[torch.from_numpy(kept)])
        scales.append(_scales_at(patch.scales, positions[kept], patch.where.numel))
    local = np.concatenate(places)
    order = np.argsort(local, kind="stable")
    local = local[order]
    if np.any(local[1:] == local[:-1]):
        raise UnsupportedTaskError(
            f"the model holds tensors that the task changes apart as one, in {parameter!r}"
        )
    where = BlockIndex.of(local, tensor.numel())
    by_row = _by_row(np.concatenate(scales)[order], local, tensor)
    kinds = {each.dtype for each in amounts}
    common = kinds.pop() if len(kinds) == 1 else torch.float32
    merged = torch.cat([each.to(common) for each in amounts])[torch.from_numpy(order)]
    if common == torch.int8:
        return SparseDelta.of_levels(where, merged.numpy(), by_row)
    return SparseDelta(where, merged, torch.from_numpy(by_row))


def _amounts(patch: SparseDelta) -> Tensor:
    """One an entry: sign bits as levels."""
    if patch.amounts.dtype != torch.uint8:
        return patch.amounts
    negative = np.unpackbits(patch.amounts.numpy(), bitorder="little", count=len(patch.where))
    return torch.from_numpy(1 - 2 * negative.astype(np.int8))


def _scales_at(scales: Tensor, positions: Positions, numel: int) -> Scales:
    """float32 [n], the scale at each position of a tensor that has one a row."""
    row = positions // max(1, numel // scales.numel())
    found: Scales = scales.numpy()[row]
    return found


def _by_row(scales: Scales, local: Positions, tensor: Tensor) -> Scales:
    """One scale if all are equal, else one a row, else (rows mix tensors) one an element."""
    if not len(scales) or np.all(scales == scales[0]):
        return scales[:1] if len(scales) else np.ones(1, np.float32)
    for n_rows in (len(tensor), tensor.numel()):
        row = local // (tensor.numel() // n_rows)
        by_row = np.ones(n_rows, np.float32)
        by_row[row] = scales
        if np.array_equal(by_row[row], scales):
            break
    return by_row


def _dense(tensor: Tensor, piece: Piece, patch: Patch) -> Iterator[tuple[Tensor, Patch]]:
    """A dense change of the parts of a parameter that a tensor fills without a gap."""
    source, local = piece.elements()
    edges = np.flatnonzero(np.diff(local) != 1) + 1
    first = 0
    for end in [*edges.tolist(), len(local)]:
        start = int(local[first])
        view = tensor.view(-1)[start : start + end - first]
        yield view, _taken(patch, source[first:end], start, tensor)
        first = end


def _taken(patch: Patch, source: Positions, start: int, tensor: Tensor) -> Patch:
    """A dense change's elements at `source`, which lie in the parameter from `start` on."""
    index = torch.from_numpy(source)
    match patch:
        case XorAll():
            return XorAll(patch.bits.reshape(-1)[index])
        case Replace():
            return Replace(patch.values.reshape(-1)[index])
        case AddAll():
            return AddAll(patch.levels[index], _part_scales(patch, source, start, tensor))
        case AddProduct() | Multiply():
            return patch.part(*_rows_and_columns(patch.shape, index))
    kind: Any = type(patch)
    raise TypeError(f"no way to place a {kind.__name__}")


def _rows_and_columns(shape: tuple[int, int], index: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows and columns of a matrix its elements at `index` are, row after row.

    Raises:
        UnsupportedTaskError: They are no such part of it.
    """
    row, column = index // shape[1], index % shape[1]
    width = int((row == row[0]).cumprod(0).sum())
    rows, columns = row[::width], column[:width]
    if not torch.equal((rows[:, None] * shape[1] + columns).reshape(-1), index):
        raise UnsupportedTaskError(
            "the model holds a tensor that the task has factors of in an order of its own; "
            "`nps export` the task and serve it by itself"
        )
    return rows, columns


def _part_scales(patch: AddAll, source: Positions, start: int, tensor: Tensor) -> Tensor:
    """Like `_by_row`, for a part of a parameter."""
    scales = _scales_at(patch.scales, source, patch.levels.numel())
    row = max(1, tensor.numel() // max(1, len(tensor)))
    rows = scales.reshape(-1, row) if start % row == len(scales) % row == 0 else scales[:, None]
    if np.all(scales == scales[0]):
        return torch.from_numpy(scales[:1])
    if np.all(rows == rows[:, :1]):
        return torch.from_numpy(rows[:, 0].copy())
    return torch.from_numpy(scales)
