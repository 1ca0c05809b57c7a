"""Which tensor of a fine-tune is which tensor of its base.

A fine-tune with a task head wraps the base's body, so its names carry a prefix ("bert.") that the
base's lack. The prefix is found from the names alone; no architecture is known here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nps_store.errors import ShapeMismatchError, UnrelatedModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from torch import Tensor


class TensorTable(Protocol):
    """Names and shapes of a checkpoint."""

    @property
    def names(self) -> tuple[str, ...]:
        """All tensor names."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""


class StateTable:
    """The tensor table of a state dict."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self.names = tuple(sorted(tensors))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return tuple(self._tensors[name].shape)


@dataclass(frozen=True)
class Alignment:
    """How a fine-tune's tensors relate to the base's.

    Attributes:
        prefix: What the fine-tune's names have in front of the base's.
        shared: (task name, base name) of tensors of equal shape.
        grown: (task name, base name) of tensors with rows appended (a grown vocabulary).
        new: Task tensors that the base lacks (heads), or heads of another shape.
        absent: Base tensors that the task lacks.
    """

    prefix: str
    shared: tuple[tuple[str, str], ...]
    grown: tuple[tuple[str, str], ...]
    new: tuple[str, ...]
    absent: tuple[str, ...]


def align(
    base: TensorTable,
    task: TensorTable,
    *,
    base_has_head: bool = False,
    tied: Mapping[str, Sequence[str]] | None = None,
    second: Collection[str] = (),
) -> Alignment:
    """Match the tensors of `task` with those of `base`.

    Args:
        base: The base's tensors.
        task: The fine-tune's tensors.
        base_has_head: The base is no bare body; its head may have another shape in the task.
        tied: All names of a tied tensor in checkpoints of the task's class, by the one in the task.
        second: Further names of tensors in the task, which are left out.

    Raises:
        UnrelatedModelError: Fewer than half of the base's names are found.
        ShapeMismatchError: A tensor of the body has another shape (names the first).
    """
    add, cut = _prefixes(base.names, task.names)
    known = set(base.names)
    own = [name for name in task.names if name not in second]
    same = {name: (name, *(tied or {}).get(name, ())) for name in own}
    pairs = [
        (name, found[0])
        for name in own
        if (found := [b for b in _base_names(same[name], add, cut) if b in known])
    ]
    heads = head_names(base.names) if base_has_head else frozenset()
    # The output layer of a language model grows with its vocabulary; other heads are just new.
    growths = {
        (base.shape(base_name)[0], task.shape(name)[0])
        for name, base_name in pairs
        if base_name not in heads and _is_grown(base.shape(base_name), task.shape(name))
    }
    shared, grown = [], []
    for name, base_name in pairs:
        ours, theirs = task.shape(name), base.shape(base_name)
        if ours == theirs:
            shared.append((name, base_name))
        elif _is_grown(theirs, ours) and (
            base_name not in heads or (theirs[0], ours[0]) in growths
        ):
            grown.append((name, base_name))
        elif base_name not in heads:
            raise ShapeMismatchError(
                f"tensor {name!r} has shape {list(ours)}; expected {list(theirs)} as in the base; "
                "only heads and appended vocabulary rows may differ"
            )
    matched = {base_name for _, base_name in (*shared, *grown)}
    new = tuple(sorted(set(own) - {name for name, _ in (*shared, *grown)}))
    absent = tuple(name for name in base.names if name not in matched)
    return Alignment(add, tuple(shared), tuple(grown), new, absent)


def _base_names(names: Iterable[str], add: str, cut: str) -> list[str]:
    """What the base would call tensors of the task."""
    return [cut + name.removeprefix(add) for name in names if name.startswith(add)]


def _is_grown(base: tuple[int, ...], task: tuple[int, ...]) -> bool:
    """Whether rows may have been appended to a matrix."""
    return len(task) == len(base) == 2 and task[1] == base[1] and task[0] > base[0]


def _prefixes(base: tuple[str, ...], task: tuple[str, ...]) -> tuple[str, str]:
    """What the task's names have in front of the base's, and the reverse; one of them is empty."""
    added = _common_prefix(base, task)
    missing = _common_prefix(task, base)
    best = max(added, missing, key=lambda item: item[1])
    if best[1] * 2 < len(base):
        raise UnrelatedModelError(
            f"only {best[1]} of the base's {len(base)} tensors have a counterpart in the task; "
            "expected a fine-tune of this base (same architecture and tensor names)"
        )
    return (added[0], "") if added[1] >= missing[1] else ("", missing[0])


def _common_prefix(inner: tuple[str, ...], outer: tuple[str, ...]) -> tuple[str, int]:
    """The prefix that turns most names of `inner` into names of `outer`, and how many."""
    wanted = set(inner)
    votes: Counter[str] = Counter()
    for name in outer:
        parts = name.split(".")
        for depth in range(len(parts)):
            if ".".join(parts[depth:]) in wanted:
                votes[".".join([*parts[:depth], ""]) if depth else ""] += 1
    return max(votes.items(), key=lambda item: (item[1], item[0] == ""), default=("", 0))


def head_names(names: tuple[str, ...]) -> frozenset[str]:
    """Tensors outside the body, which is what most names share as their first component."""
    body, _ = Counter(name.split(".")[0] for name in names).most_common(1)[0]
    return frozenset(name for name in names if name.split(".")[0] != body)
