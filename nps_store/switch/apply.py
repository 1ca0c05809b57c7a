"""Apply and revert: the one mechanism by which search, serving and export change weights.

`apply_` saves the bits that it overwrites; `revert_` writes them back. Nothing is ever subtracted,
so the base is bit-identical afterwards whatever the dtype. `switch_` is one after the other, in one
pass where that is faster.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from nps_store.switch.packed import Packed
from nps_store.switch.resident import ResidentTask
from nps_store.switch.written import PristineCopies, Written, exchange_

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nps_store.switch.patch import Patch
    from nps_store.switch.targets import Group


class Undo(Protocol):
    """What was overwritten somewhere."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""

    def revert_(self) -> None:
        """Write it back; once more does no harm."""


@dataclass(frozen=True, eq=False)
class Overwritten:
    """Old values of a flat tensor, at positions or (None) everywhere."""

    flat: Tensor
    index: Tensor | None
    old: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.old.nbytes

    def revert_(self) -> None:
        """Write them back."""
        if self.index is None:
            self.flat.copy_(self.old)
        else:
            self.flat.index_copy_(0, self.index, self.old)


@dataclass
class UndoLog:
    """Old values of what was overwritten, in order of writing: all that is in place.

    Attributes:
        entries: What each write overwrote.
        copies: Of the base's values of tensors that were changed densely.
        keeps_copies: Whether they stay when all is reverted, for the next task.
    """

    entries: list[Undo] = field(default_factory=list)
    copies: PristineCopies = field(default_factory=PristineCopies)
    keeps_copies: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes held to undo the application, without the copies, which are kept beyond it."""
        return sum(entry.nbytes for entry in self.entries)


@torch.no_grad()
def apply_(
    changes: ResidentTask | Iterable[tuple[Tensor, Patch]], *, log: UndoLog | None = None
) -> UndoLog:
    """Apply each patch to its tensor in place; all or nothing.

    Pairs go through plain torch indexing on whatever device the tensor lies on: the reference. A
    resident task goes through the fastest path that equals it. A patch is computed before it is
    written, and a failure part-way reverts what the log holds.

    Args:
        changes: A resident task, or (contiguous tensor, patch) pairs; a tensor may occur once.
        log: Where to write down what is overwritten, an empty one; by default one of its own.

    Returns:
        The log that `revert_` takes.

    Raises:
        ValueError: The log holds another application.
    """
    log = UndoLog() if log is None else log
    if log.entries:
        raise ValueError("the log holds another application; revert it first")
    try:
        if isinstance(changes, ResidentTask):
            for packed in changes.packed.values():
                _put(log, packed)
            changes = changes.rest
        for tensor, patch in changes:
            _write(tensor.view(-1), patch, log)
    except BaseException:
        revert_(log)
        raise
    return log


@torch.no_grad()
def revert_(log: UndoLog) -> None:
    """Write the saved bits back, newest first; the log is empty afterwards.

    A failure leaves in the log what is still to be written, so that it can be tried again.
    """
    while log.entries:
        log.entries[-1].revert_()
        log.entries.pop()
    if not log.keeps_copies:
        log.copies = PristineCopies()


@torch.no_grad()
def switch_(log: UndoLog, task: ResidentTask) -> None:
    """Revert what a log holds and apply a task; the log holds its undoing afterwards.

    A failure leaves the base in place and the log empty.
    """
    try:
        coming = dict(task.packed)
        if not all(log.copies.has_all(packed) for packed in coming.values()):
            revert_(log)  # copies are made of the base
        while log.entries and not _is_exchangeable(log, coming):
            log.entries[-1].revert_()
            log.entries.pop()
        for entry in list(log.entries):
            if isinstance(entry, Written):
                new = Written(coming.pop(entry.packed.group), log.copies)
                log.entries.append(new)  # before the pass: an interrupt must not come between
                exchange_(entry, new)
                log.entries.remove(entry)
        for packed in coming.values():
            _put(log, packed)
        for tensor, patch in task.rest:
            _write(tensor.view(-1), patch, log)
    except BaseException:
        revert_(log)
        raise


def _is_exchangeable(log: UndoLog, coming: dict[Group, Packed]) -> bool:
    """Whether each entry is of a group with a successor in `coming`, of which each is used once."""
    groups = [entry.packed.group for entry in log.entries if isinstance(entry, Written)]
    return len(groups) == len(log.entries) == len({*groups} & coming.keys())


def _put(log: UndoLog, packed: Packed) -> None:
    """Write packed changes to tensors that hold the base's values."""
    new = Written(packed, log.copies)
    log.entries.append(new)  # before the pass: an interrupt must not come between
    exchange_(Written(Packed.empty(packed.group), log.copies), new)


def _write(flat: Tensor, patch: Patch, log: UndoLog) -> None:
    index = patch.index
    if index is None:
        new = patch.new_values(flat)
        log.entries.append(Overwritten(flat, None, log.copies.of(flat)))
        flat.copy_(new)
    else:
        old = flat.index_select(0, index)
        new = patch.new_values(old)
        log.entries.append(Overwritten(flat, index, old))
        flat.index_copy_(0, index, new)
