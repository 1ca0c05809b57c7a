from __future__ import annotations

import itertools

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import dither

SEEDS = st.integers(0, 2**64 - 1)
BLOCKS = st.integers(0, 2**20)
N_BLOCKS = 200
SIGMAS = 5.0


def reference_rank(seed: int, block: int, offset: int) -> int:
    """The definition, in Python's integers."""
    words = []
    for counter in (2 * block + 1, 2 * block + 2):
        z = (seed + counter * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        z ^= z >> 31
        words += [z >> 16 * i & 0xFFFF for i in range(4)]
    x = offset
    for term, factor in zip(words[:4], words[4:], strict=True):
        x ^= term
        x ^= x >> 7
        x = x * (factor | 1) & 0xFFFF
    return x ^ x >> 7


def all_ranks(seed: int, block: int) -> np.ndarray:
    return dither.ranks(seed, block, n=dither.BLOCK)


def centred(seed: int, block: int) -> np.ndarray:
    """Numbers of a block, of mean 0 and variance 1."""
    return (all_ranks(seed, block) - 32_767.5) / (65_536 / 12**0.5)


@settings(max_examples=60, deadline=None)
@given(SEEDS, BLOCKS, st.integers(0, 65_535))
def test_equals_the_definition(seed: int, block: int, offset: int) -> None:
    expected = reference_rank(seed, block, offset)
    assert dither.ranks(seed, block, start=offset, n=1).tolist() == [expected]


@settings(max_examples=60, deadline=None)
@given(SEEDS, BLOCKS)
def test_is_a_bijection_and_offsets_are_its_inverse(seed: int, block: int) -> None:
    ranks = all_ranks(seed, block)
    assert ranks.dtype == np.uint16
    assert (np.bincount(ranks, minlength=dither.BLOCK) == 1).all()
    offsets = dither.offsets(seed, block, n=dither.BLOCK)
    assert offsets.dtype == np.uint16
    assert np.array_equal(ranks[offsets], np.arange(dither.BLOCK))


@settings(max_examples=30, deadline=None)
@given(SEEDS, BLOCKS, st.integers(0, 65_536), st.integers(0, 65_536))
def test_parts_of_a_block(seed: int, block: int, a: int, b: int) -> None:
    start, end = sorted((a, b))
    part = dither.ranks(seed, block, start=start, n=end - start)
    assert np.array_equal(part, all_ranks(seed, block)[start:end])
    part = dither.offsets(seed, block, n=end)
    assert np.array_equal(part, dither.offsets(seed, block, n=dither.BLOCK)[:end])


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.lists(st.integers(0, 2**36), max_size=20))
def test_scattered_positions(seed: int, scattered: list[int]) -> None:
    positions = np.array(scattered, np.int64)
    ranks = dither.ranks_of(seed, positions)
    expected = [reference_rank(seed, at >> 16, at & 0xFFFF) for at in scattered]
    assert ranks.dtype == np.uint16
    assert ranks.tolist() == expected
    back = dither.positions_of(seed, positions >> 16, ranks)
    assert back.dtype == np.int64
    assert np.array_equal(back, positions)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 2**36), st.lists(st.integers(0, 90_000), max_size=4))
def test_chunks_do_not_matter(seed: int, start: int, cuts: list[int]) -> None:
    ends = np.cumsum([0, *cuts])
    whole = dither.uniform(seed, start, int(ends[-1]))
    parts = [dither.uniform(seed, start + int(a), int(b - a)) for a, b in itertools.pairwise(ends)]
    assert whole.dtype == np.float32
    assert np.array_equal(whole, np.concatenate([np.empty(0, np.float32), *parts]))


def test_uniform_is_the_rank() -> None:
    numbers = dither.uniform(3, 0, 3 * dither.BLOCK)
    for block in range(3):
        expected = (all_ranks(3, block).astype(np.float64) + 0.5) / 65_536
        assert np.array_equal(numbers[block * 65_536 :][:65_536], expected)
    assert 0 < numbers.min() < 1e-5 < 1 - 1e-5 < numbers.max() < 1


def test_every_offset_takes_every_rank_alike() -> None:
    offsets = np.array([0, 1, 255, 256, 32_767, 32_768, 65_535])
    n = 3000
    constants = dither.keys(17, np.arange(n))[:, :, :, None]
    ranks = np.repeat(offsets[None].astype(np.uint16), n, axis=0)
    dither.permute_(ranks, constants)
    for values in (ranks.T >> 12, ranks.T & 15):
        for column in values:
            counts = np.bincount(column, minlength=16)
            chi2 = ((counts - n / 16) ** 2 / (n / 16)).sum()
            assert chi2 < 15 + SIGMAS * 30**0.5


@pytest.mark.parametrize("n_ranks", [1, 16, 64, 1024])
def test_the_smallest_numbers_lie_anywhere(n_ranks: int) -> None:
    n_blocks = 1 << 16 >> n_ranks.bit_length()
    offsets = np.concatenate([dither.offsets(5, block, n=n_ranks) for block in range(n_blocks)])
    for cells in (offsets >> 8, offsets & 255):
        counts = np.bincount(cells, minlength=256)
        chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
        assert abs(chi2 - 255) < SIGMAS * 510**0.5


@pytest.mark.parametrize("lag", [1, 2, 3, 8, 64, 128, 256, 384, 1024, 1536, 4096, 16_384, 32_768])
def test_neighbours_are_uncorrelated(lag: int) -> None:
    z = []
    for block in range(N_BLOCKS):
        numbers = centred(99, block)
        z.append((numbers[:-lag] * numbers[lag:]).mean() * (numbers.size - lag) ** 0.5)
    assert abs(np.sum(z)) < SIGMAS * N_BLOCKS**0.5
    assert np.max(np.abs(z)) < SIGMAS + 1  # of each key, not only of their mean
    assert abs(np.mean(np.square(z)) - 1) < SIGMAS * (2 / N_BLOCKS) ** 0.5


def test_blocks_are_uncorrelated() -> None:
    z = [(centred(1, b) * centred(1, b + 1)).sum() / 256 for b in range(N_BLOCKS)]
    assert abs(np.sum(z)) < SIGMAS * N_BLOCKS**0.5
    assert abs(np.mean(np.square(z)) - 1) < SIGMAS * (2 / N_BLOCKS) ** 0.5


def test_seeds_are_uncorrelated() -> None:
    near = [(seed, seed + 1) for seed in range(50)]
    far = [(dither.tensor_seed(f"{i}", "w"), dither.tensor_seed(f"{i}", "v")) for i in range(50)]
    z = [(centred(a, 0) * centred(b, 0)).sum() / 256 for a, b in near + far]
    assert abs(np.sum(z)) < SIGMAS * len(z) ** 0.5
    assert abs(np.mean(np.square(z)) - 1) < SIGMAS * (2 / len(z)) ** 0.5


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=9), st.text(max_size=9))
def test_tensor_seed(dither_: str, name: str) -> None:
    data = dither_.encode() + b"\0" + name.encode()
    assert dither.tensor_seed(dither_, name) == xxhash.xxh3_64(data, seed=0).intdigest()


def test_the_numbers_never_change() -> None:
    """Stored positions are coded with them: other numbers would decode to other positions."""
    seed = dither.tensor_seed("0:role", "encoder.weight")
    assert (seed, dither.ranks(seed, 3, start=5, n=4).tolist()) == FIXED


FIXED = (8901934104021537034, [65423, 24071, 63019, 32441])
