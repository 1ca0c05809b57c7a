"""Apply and revert: the one mechanism by which search, serving and export change weights.

`apply_` saves the bits that it overwrites; `revert_` writes them back. Nothing is ever subtracted,
so the base is bit-identical afterwards whatever the dtype.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nps_store.switch.patch import Patch


@dataclass
class UndoLog:
    """Old values of what was overwritten, in order of writing."""

    entries: list[tuple[Tensor, Tensor | None, Tensor]] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes held to undo the application."""
        return sum(old.nbytes for _, _, old in self.entries)


@torch.no_grad()
def apply_(changes: Iterable[tuple[Tensor, Patch]]) -> UndoLog:
    """Apply each patch to its tensor in place; all or nothing.

    The reference implementation: plain torch indexing on whatever device the tensor lies on. A
    patch is computed before it is written, and a failure part-way reverts what was written.

    Args:
        changes: (contiguous tensor, patch) pairs; a tensor may occur once.

    Returns:
        The log that `revert_` takes.
    """
    log = UndoLog()
    try:
        for tensor, patch in changes:
            _write(tensor.view(-1), patch, log)
    except BaseException:
        revert_(log)
        raise
    return log


@torch.no_grad()
def revert_(log: UndoLog) -> None:
    """Write the saved bits back, newest first; the log is empty afterwards."""
    while log.entries:
        flat, index, old = log.entries[-1]
        if index is None:
            flat.copy_(old)
        else:
            flat.index_copy_(0, index, old)
        log.entries.pop()


def _write(flat: Tensor, patch: Patch, log: UndoLog) -> None:
    index = patch.index
    if index is None:
        new = patch.new_values(flat)
        log.entries.append((flat, None, flat.clone()))
        flat.copy_(new)
    else:
        old = flat.index_select(0, index)
        new = patch.new_values(old)
        log.entries.append((flat, index, old))
        flat.index_copy_(0, index, new)
