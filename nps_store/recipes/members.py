"""Which stored tasks a merge is defined for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nps_store.errors import UnsupportedTaskError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from formats.directory import TaskDirectory


def check_alike(name: str, members: Mapping[str, TaskDirectory]) -> None:
    """Refuse members that cannot be merged with each other.

    Args:
        name: Of the recipe, for the error.
        members: Directories of the stored tasks by name; the first is what others are compared to.

    Raises:
        UnsupportedTaskError: One was compressed for another dtype, or has a grown vocabulary.
    """
    first, *_ = members
    for member, directory in members.items():
        if directory.dtype != members[first].dtype:
            raise UnsupportedTaskError(
                f"recipe {name!r}: {member!r} was compressed for another dtype than {first!r}"
            )
        grown = [entry.name for entry in directory.tensors.others.values() if entry.extra]
        if grown:
            raise UnsupportedTaskError(
                f"recipe {name!r}: {member!r} has a grown vocabulary ({grown[0]!r}), "
                "which cannot be merged"
            )
