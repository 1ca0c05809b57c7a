"""Positions decoded by compiled loops, for those who install the ``fast`` extra.

Each loop does what the numpy code beside it does and is held to it by tests; without numba, or
before many entries were asked for, the numpy code runs.
"""

from __future__ import annotations

import functools
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from formats.parallel import in_shares

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

    from formats.buffers import Buffer

MIN_ENTRIES = 1 << 21
"""Entries that a process asks for before it loads the loops.

As skis are rented until the rent has come to their price: numpy takes .2 to .4 s for so many, and
loading takes as long, or 10 s where nothing is on disk yet.
"""
ENTRIES_A_RECORD = 1 << 9
"""What a record takes besides its entries, in entries."""
ENTRIES_A_CALL = 1 << 10
"""What a call counts besides its entries, because numpy takes its time for the fewest."""

SOUND, WRONG_COUNT, BEYOND_BLOCK = 0, 1, 2

_n_asked = 0


@functools.cache
def is_available() -> bool:
    """Whether numba is installed; does not load it."""
    return sys.byteorder == "little" and find_spec("numba") is not None


def is_worth_it(n_entries: int) -> bool:
    """Whether the loops shall decode so many entries; counts them."""
    global _n_asked  # of threads at once one may be lost, which does no harm
    if not is_available():
        return False
    _n_asked += n_entries + ENTRIES_A_CALL
    return _n_asked >= MIN_ENTRIES


def warm_up() -> bool:
    """Loads the loops, so that no reader has to wait for it; whether they are available."""
    global _n_asked
    if not is_available():
        return False
    _loops("loops"), _loops("rank_loops")
    _n_asked = max(_n_asked, MIN_ENTRIES)
    return True


def decode_blocks(
    data: Buffer,
    counts: NDArray[np.int64],
    k: NDArray[np.int64],
    nbytes: NDArray[np.int64],
    positions: NDArray[np.int64],
) -> int:
    """Fills ``positions`` from Rice-coded blocks.

    Args:
        data: Payloads of all blocks, ``nbytes.sum()`` bytes.
        counts: Entries of every block; their sum is the size of ``positions``, and each fits its
            payload: ``counts * (k + 1) <= nbytes * 8``.
        k: Low bits of every block, at most 15.
        nbytes: Payload of every block.
        positions: int64[n], written.

    Returns:
        ``SOUND``, ``WRONG_COUNT`` or ``BEYOND_BLOCK``.
    """
    outcome: int = _loops("loops").decode_blocks(as_words(data), counts, k, nbytes, positions)
    return outcome


def decode_bitmap(data: Buffer, positions: NDArray[np.int64]) -> int:
    """Fills ``positions`` with the bits set in a bitmap; ``SOUND`` or ``WRONG_COUNT``."""
    outcome: int = _loops("loops").decode_bitmap(as_words(data), positions)
    return outcome


def decode_ranks(
    headers: NDArray[np.uint8],
    payload: Buffer,
    records: NDArray[np.int64],
    starts: NDArray[np.int64],
    offsets: NDArray[np.uint16],
) -> bool:
    """Fills ``starts`` and ``offsets`` from ranked segments of many tensors.

    Args:
        headers: One byte a segment.
        payload: Codes of all segments.
        records: int64[n_records, 9], a row a tensor: where its headers begin, how many they are,
            where in the payload its codes begin, how many bytes they are, the tensor's elements,
            the seed of its dither, where its starts begin, where its offsets begin, and how many
            they are.
        starts: Written: the first entry of each block of 65,536 elements, and their number.
        offsets: Written: places within the blocks, increasing.

    Returns:
        Whether headers and payload are sound.
    """
    loop, words = _loops("rank_loops").decode, as_words(payload)
    if len(records) == 1:
        return bool(loop(words, headers, records, starts, offsets))
    shares = in_shares(
        lambda share: loop(words, headers, records[share], starts, offsets),
        records[:, -1] + ENTRIES_A_RECORD,
    )
    return all(shares)


def flat_positions(starts: NDArray[np.int64], offsets: NDArray[np.uint16]) -> NDArray[np.int64]:
    """int64[n] positions of offsets within blocks, as :func:`decode_ranks` fills them."""
    positions = np.empty(offsets.size, np.int64)
    _loops("rank_loops").flatten(starts, offsets, positions)
    return positions


def as_words(data: Buffer) -> NDArray[np.uint64]:
    """The data as little-endian words, read-only, with two words of zeros and more behind it."""
    padded = b"".join((data, bytes(24 - len(data) % 8)))
    return np.frombuffer(padded, np.uint64)


@functools.cache
def _loops(module: str) -> ModuleType:
    return import_module(f"formats.codecs.{module}")
