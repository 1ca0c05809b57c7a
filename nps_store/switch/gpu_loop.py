"""The Triton loop of a switch on a GPU: what `cpu_loop` is on the CPU, a program a block.

One launch serves a whole model. Its arithmetic is torch's: one product, one sum in float32, rounded
once; which NaN a NaN becomes is left open.
"""

from __future__ import annotations

import functools
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from nps_store.switch.written import Written

TILE = 1024
"""Entries that a program handles at a time: at 1 % a block of 65,536 elements has 655."""
N_WARPS = 8
"""Of a program. With more of them fewer programs are on the device at once, and less lies between
the reading and the writing of a line."""
PREFETCH = True
"""Whether lines are fetched before a part of them is restored; Triton's interpreter cannot."""


@functools.cache
def is_available() -> bool:
    """Whether Triton is installed; does not load it."""
    return find_spec("triton") is not None


def exchange_(out: Written, new: Written, number: int) -> None:
    """Take one out and put another in; see `written`. The GPU may still be at it on return."""
    kernel: Any = import_module("nps_store.switch.gpu_kernel").exchange
    group = new.packed.group
    grid = (group.tensor_of.numel(),)
    kernel[grid](
        group.addresses, group.numels, group.first_block, group.tensor_of, new.copies.table(group),
        *_side(out), *_side(new), number,
        KIND_OF_WEIGHTS=str(group.dtype).removeprefix("torch."), TILE=TILE, PREFETCH=PREFETCH,
        num_warps=N_WARPS,
        enable_fp_fusion=False,  # a fused product and sum rounds once where torch rounds twice
    )  # fmt: skip


def _side(written: Written) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The table, the packed bytes, the old bits and the numbers of the passes."""
    return written.packed.table, written.packed.data, written.old, written.passes
