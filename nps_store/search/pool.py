"""The elements that some candidate may keep, collected once.

A candidate keeps K elements in all, and in each band those of highest score. So the K best of every
band are all that any candidate can touch, whatever its weights: the rest of the model never has to
be looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from formats.dither import tensor_seed
from nps_store.search.dither import uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nps_store.search.rule import Float32, Rule

TaskVectors = Callable[[], Iterator[tuple[str, Tensor]]]
"""Iterates anew over (tensor name, flat float32 task vector) at each call, in the same order. Best
on the device of the search, to which it is copied else."""

_CHUNK = 1 << 20
# Histograms over the upper half of the float32 bit pattern: monotone for positive numbers, 128 bins
# an octave, no range to choose.
_N_BINS = 1 << 15
_SHIFT = 16


@dataclass(frozen=True, eq=False)
class Pool:
    """Candidate elements, ordered by tensor, then position; tensors lie on the search's device.

    Attributes:
        rule: The rule that scored them.
        dither: Names the random numbers that they were scored with.
        tensors: Names of the tensors.
        starts: int64 [n_tensors + 1], each tensor's slice of the arrays below.
        position: int32 [n], flat index in the tensor, its low 32 bits; see `positions`.
        tau: float32 [n], the task vector there.
        score: float32 [n].
        band: uint8 [n], 0 is the band of smallest magnitude.
        numel: Elements of the whole task vector.
        n_changed: Those of them that are not zero.
        energy: float64 [n_tensors], each tensor's sum of squares over *all* its elements.
        max_keep: The most elements that a candidate may keep.
    """

    rule: Rule
    dither: str
    tensors: tuple[str, ...]
    starts: Tensor
    position: Tensor
    tau: Tensor
    score: Tensor
    band: Tensor
    numel: int
    n_changed: int
    energy: NDArray[np.float64]
    max_keep: int

    @property
    def holds_all(self) -> bool:
        """Whether no element is missing that could be kept at any rate."""
        return self.max_keep >= self.numel

    def seed_of(self, tensor: str) -> int | None:
        """Seed of a tensor's random numbers, where selection depends on them."""
        is_random = self.rule.dithered or self.rule.random
        return tensor_seed(self.dither, tensor) if is_random else None

    def positions(self, index: Tensor) -> Tensor:
        """int64 [n], flat positions in their own tensors of some elements."""
        return self.position[index].long() & 0xFFFFFFFF


def collect(
    vectors: TaskVectors,
    *,
    rule: Rule,
    max_keep: Callable[[int], int],
    seed: str,
    device: str = "cpu",
) -> Pool:
    """Stream over the task vector and keep what a candidate may need: three times, or twice where
    there is but one band.

    Memory is one tensor plus the pool: at most about `n_bands * max_keep` elements of 13 bytes.
    Bin 0 holds zeros and what is too small for float32 to square; it is never kept.

    Args:
        vectors: The task vector.
        rule: How elements are scored.
        max_keep: The most elements that a candidate may keep, at least 1, given how many there are.
        seed: Names the random numbers; another task must use another seed.
        device: Where scores are computed and the pool lies; its content is the same everywhere.
    """
    edges = band_edges(vectors, rule, device)
    histogram = torch.zeros(rule.n_bands * _N_BINS, dtype=torch.int64, device=device)
    numel = n_changed = 0
    for chunk in _scored(vectors, rule, seed, edges, device):
        cell = _bins(chunk.score).add_(chunk.band, alpha=_N_BINS)
        histogram += torch.bincount(cell, minlength=histogram.numel())
        numel += chunk.tau.numel()
        n_changed += int(torch.count_nonzero(chunk.tau))
    most = max_keep(numel)
    counts_of = histogram.cpu().numpy().reshape(rule.n_bands, _N_BINS)
    # One more than may be kept: the threshold is found between the last kept and the next.
    cut = np.array([max(_cut_bin(row, most + 1), 1) for row in counts_of], dtype=np.int32)
    least = torch.from_numpy(cut).to(device)

    n_pool = sum(int(row[bin_:].sum()) for row, bin_ in zip(counts_of, cut, strict=True))
    position = torch.empty(n_pool, dtype=torch.int32, device=device)
    tau = torch.empty(n_pool, device=device)
    score = torch.empty(n_pool, device=device)
    band = torch.empty(n_pool, dtype=torch.uint8, device=device)
    counts: dict[str, int] = {}
    energy: dict[str, float] = {}
    end = 0
    for chunk in _scored(vectors, rule, seed, edges, device):
        found = torch.nonzero(_bins(chunk.score) >= least[chunk.band.int()])[:, 0]
        start, end = end, end + len(found)
        position[start:end] = found + chunk.start
        tau[start:end] = chunk.tau[found]
        score[start:end] = chunk.score[found]
        band[start:end] = chunk.band[found]
        counts[chunk.tensor] = counts.get(chunk.tensor, 0) + len(found)
        squares = float(chunk.tau.double().square().sum())
        energy[chunk.tensor] = energy.get(chunk.tensor, 0.0) + squares
    return Pool(
        rule=rule,
        dither=seed,
        tensors=tuple(counts),
        starts=torch.tensor([0, *counts.values()]).cumsum(0).to(device),
        position=position,
        tau=tau,
        score=score,
        band=band,
        numel=numel,
        n_changed=n_changed,
        energy=np.array(list(energy.values())),
        max_keep=most,
    )


@dataclass(frozen=True, eq=False)
class _Scored:
    """A run of elements of one tensor, from `start` on, with their scores and bands (uint8)."""

    tensor: str
    start: int
    tau: Tensor
    score: Tensor
    band: Tensor


def _scored(
    vectors: TaskVectors, rule: Rule, seed: str, edges: Float32, device: str
) -> Iterator[_Scored]:
    for tensor, flat in vectors():
        key = tensor_seed(seed, tensor)
        for start, tau, strength in _runs(flat, rule, device):
            u = uniform(key, start, tau.numel(), device=device)
            band = torch.zeros_like(strength, dtype=torch.uint8)
            for edge in edges.tolist():
                band += strength >= edge
            yield _Scored(tensor, start, tau, rule.score(strength, u), band)


def _runs(flat: Tensor, rule: Rule, device: str) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(first position, task vector, what its elements compete by), a chunk at a time."""
    # Ranks can be told only of a whole tensor; else a copy of an embedding, gigabytes, is saved.
    ranked = rule.strength(flat) if rule.scope == "tensor" else None
    for start in range(0, max(len(flat), 1), _CHUNK):
        run = slice(start, start + _CHUNK)
        tau = flat[run].to(device)
        yield start, tau, rule.strength(tau) if ranked is None else ranked[run].to(device)


def band_edges(vectors: TaskVectors, rule: Rule, device: str) -> Float32:
    """Lower edges of bands 1 .. n_bands-1, float32.

    Log-spaced ones lie below the largest magnitude; the lowest stands where the magnitudes below it
    hold 2 % of the energy, and elements under it share band 0. Equal-count ones divide the elements
    that are not zero.

    Args:
        vectors: The task vector.
        rule: How many bands, and how they are spaced.
        device: Where to look.
    """
    if rule.n_bands == 1:
        return np.empty(0, dtype=np.float32)
    histogram = torch.zeros(_N_BINS, dtype=torch.int64, device=device)
    for _, flat in vectors():
        for _, _, strength in _runs(flat, rule, device):
            histogram += torch.bincount(_bins(strength), minlength=_N_BINS)
    count = histogram.cpu().numpy()
    count[0] = 0
    return _edges(count, rule)


def _edges(count: NDArray[np.int64], rule: Rule) -> Float32:
    """Band edges from a histogram of the magnitudes' bins."""
    magnitude = (np.arange(_N_BINS, dtype=np.uint32) << _SHIFT).view(np.float32)
    magnitude[~np.isfinite(magnitude)] = 0
    if not count.any():
        return np.zeros(rule.n_bands - 1, dtype=np.float32)
    if rule.spacing == "count":
        shares = np.arange(1, rule.n_bands) / rule.n_bands
        below = np.cumsum(count)
        edges: Float32 = magnitude[np.searchsorted(below, shares * below[-1])]
        return edges
    energy = np.cumsum(count * np.square(magnitude, dtype=np.float64))
    low, high = np.searchsorted(energy, np.array([0.02, 0.9999]) * energy[-1])
    return np.geomspace(magnitude[low], magnitude[high], rule.n_bands)[:-1].astype(np.float32)


def _bins(values: Tensor) -> Tensor:
    """int32: the upper half of the bits of numbers that are not negative."""
    return values.view(torch.int32) >> _SHIFT


def _cut_bin(histogram: NDArray[np.int64], max_keep: int) -> int:
    """The highest bin from which on at least `max_keep` elements lie."""
    above = np.cumsum(histogram[::-1])
    return max(0, _N_BINS - 1 - int(np.searchsorted(above, max_keep)))
