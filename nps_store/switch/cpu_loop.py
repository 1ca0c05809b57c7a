"""The compiled loop of a switch on the CPU, for those who install the ``fast`` extra.

One call serves a whole model: each block of 65,536 elements is restored and given its next values
while it is in the processor's cache.
"""

from __future__ import annotations

import functools
import sys
import threading
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from nps_store.switch.written import Written

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_ONE_AT_A_TIME = threading.Lock()
"""Some of numba's thread pools end the process when two threads enter them."""


@functools.cache
def is_available() -> bool:
    """Whether numba is installed; does not load it."""
    return sys.byteorder == "little" and find_spec("numba") is not None


def exchange_(out: Written, new: Written, number: int) -> None:
    """Take one out and put another in; see `written`.

    The first use of a dtype on a machine takes seconds to compile, later ones in other processes
    a few tenths of one to load.
    """
    numba: Any = import_module("numba")
    kernel: Any = import_module("nps_store.switch.cpu_kernel")
    group = new.packed.group
    fixed = (group.addresses, group.numels, group.first_block, group.tensor_of)
    with _ONE_AT_A_TIME:
        n_threads = torch.get_num_threads()
        numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))
        if torch.get_num_threads() != n_threads:  # the pool that it starts is OpenMP's, as torch's
            torch.set_num_threads(n_threads)
        kernel.exchange(
            *(each.numpy() for each in fixed), new.copies.table(group).numpy(),
            *_side(out), *_side(new), number, _DTYPES.index(group.dtype),
        )  # fmt: skip


def _side(written: Written) -> tuple[Any, int, Any, Any]:
    """The table, where the packed bytes begin, the old bits and the numbers of the passes."""
    packed = written.packed
    old = written.old.numpy().view(f"<u{written.old.element_size()}")
    return packed.table.numpy(), packed.data.data_ptr(), old, written.passes.numpy()
