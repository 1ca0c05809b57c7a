"""The elements that some candidate may keep, collected once.

A candidate keeps K elements in all, and in each band those of highest score. So the K best of every
band are all that any candidate can touch, whatever its weights: the rest of the model never has to
be looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from formats.dither import tensor_seed, uniform
from nps_store.search.rule import Float32, Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

TaskVectors = Callable[[], Iterator[tuple[str, Float32]]]
"""Iterates anew over (tensor name, flat float32 task vector) at each call, in the same order."""

_CHUNK = 1 << 20
# Histograms over the upper half of the float32 bit pattern: monotone for positive numbers, 128 bins
# an octave, no range to choose.
_N_BINS = 1 << 15
_SHIFT = 16


@dataclass(frozen=True)
class Pool:
    """Candidate elements, ordered by tensor, then position.

    Attributes:
        rule: The rule that scored them.
        dither: Names the random numbers that they were scored with.
        tensors: Names of the tensors.
        starts: int64 [n_tensors + 1], each tensor's slice of the arrays below.
        position: uint32 [n], flat index in the tensor.
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
    starts: NDArray[np.int64]
    position: NDArray[np.uint32]
    tau: Float32
    score: Float32
    band: NDArray[np.uint8]
    numel: int
    n_changed: int
    energy: NDArray[np.float64]
    max_keep: int

    def seed_of(self, tensor: str) -> int | None:
        """Seed of a tensor's random numbers, where selection depends on them."""
        is_random = self.rule.dithered or self.rule.random
        return tensor_seed(self.dither, tensor) if is_random else None

    def rounded(self, amplitude: float) -> Pool:
        """The same elements with the numbers drawn in to their middle: u' = 1/2 + a (u - 1/2).

        Amplitude 1 is unbiased dither, 0 plain rounding. An element may then be kept that none of
        amplitude 1 would have kept, so the pool must hold all that are not zero.
        """
        if amplitude == 1:
            return self
        if len(self.score) < self.n_changed:
            raise ValueError("only a pool of all changed elements can be rounded otherwise")
        magnitude = np.abs(self.tau)
        drawn_in = 0.5 + amplitude * (magnitude / self.score - 0.5)
        return replace(self, score=(magnitude / drawn_in).astype(np.float32))


def collect(
    vectors: TaskVectors, *, rule: Rule, max_keep: int, seed: str, device: str = "cpu"
) -> Pool:
    """Stream over the task vector three times and keep what a candidate may need.

    Memory is one tensor plus the pool: at most about `n_bands * max_keep` elements of 13 bytes.
    Bin 0 holds zeros and what is too small for float32 to square; it is never kept.

    Args:
        vectors: The task vector.
        rule: How elements are scored.
        max_keep: The most elements that a candidate may keep, at least 1.
        seed: Names the random numbers; another task must use another seed.
        device: Where scores are computed; the result is the same everywhere.
    """
    edges = _band_edges(vectors, rule, device)
    histogram = torch.zeros(rule.n_bands * _N_BINS, dtype=torch.int64, device=device)
    for chunk in _scored(vectors, rule, seed, edges):
        cell = _bins(chunk.score) + _N_BINS * chunk.band
        histogram += torch.bincount(cell, minlength=histogram.numel())
    counts_of = histogram.cpu().numpy().reshape(rule.n_bands, _N_BINS)
    # One more than may be kept: the threshold is found between the last kept and the next.
    cut = np.array([max(_cut_bin(row, max_keep + 1), 1) for row in counts_of])
    least = torch.from_numpy(cut).to(device)

    n_pool = sum(int(row[bin_:].sum()) for row, bin_ in zip(counts_of, cut, strict=True))
    position = np.empty(n_pool, dtype=np.uint32)
    tau, score = np.empty(n_pool, dtype=np.float32), np.empty(n_pool, dtype=np.float32)
    band = np.empty(n_pool, dtype=np.uint8)
    counts: dict[str, int] = {}
    energy: dict[str, float] = {}
    numel = n_changed = end = 0
    for chunk in _scored(vectors, rule, seed, edges):
        found = torch.nonzero(_bins(chunk.score) >= least[chunk.band])[:, 0]
        start, end = end, end + len(found)
        position[start:end] = found.cpu().numpy() + chunk.start
        tau[start:end] = chunk.tau[found].cpu().numpy()
        score[start:end] = chunk.score[found].cpu().numpy()
        band[start:end] = chunk.band[found].cpu().numpy()
        counts[chunk.tensor] = counts.get(chunk.tensor, 0) + len(found)
        squares = float(chunk.tau.double().square().sum())
        energy[chunk.tensor] = energy.get(chunk.tensor, 0.0) + squares
        numel += chunk.tau.numel()
        n_changed += int(torch.count_nonzero(chunk.tau))
    return Pool(
        rule=rule,
        dither=seed,
        tensors=tuple(counts),
        starts=np.cumsum([0, *counts.values()], dtype=np.int64),
        position=position,
        tau=tau,
        score=score,
        band=band,
        numel=numel,
        n_changed=n_changed,
        energy=np.array(list(energy.values())),
        max_keep=max_keep,
    )


@dataclass(frozen=True)
class _Scored:
    """A run of elements of one tensor, from `start` on, with their scores and bands (int64)."""

    tensor: str
    start: int
    tau: Tensor
    score: Tensor
    band: Tensor


def _scored(vectors: TaskVectors, rule: Rule, seed: str, edges: Tensor) -> Iterator[_Scored]:
    for tensor, flat in vectors():
        key = tensor_seed(seed, tensor)
        for start, tau, strength in _runs(flat, rule, edges.device):
            u = torch.from_numpy(uniform(key, start, tau.numel())).to(edges.device)
            band = torch.bucketize(strength, edges, right=True)
            yield _Scored(tensor, start, tau, rule.score(strength, u), band)


def _runs(
    flat: Float32, rule: Rule, device: torch.device | str
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(first position, task vector, what its elements compete by), a chunk at a time."""
    whole = torch.from_numpy(flat)
    strength = rule.strength(whole)
    for start in range(0, max(len(flat), 1), _CHUNK):
        run = slice(start, start + _CHUNK)
        yield start, whole[run].to(device), strength[run].to(device)


def _band_edges(vectors: TaskVectors, rule: Rule, device: str) -> Tensor:
    """Lower edges of bands 1 .. n_bands-1, float32.

    Log-spaced ones lie below the largest magnitude; the lowest stands where the magnitudes below it
    hold 2 % of the energy, and elements under it share band 0. Equal-count ones divide the elements
    that are not zero.
    """
    if rule.n_bands == 1:
        return torch.empty(0, device=device)
    histogram = torch.zeros(_N_BINS, dtype=torch.int64, device=device)
    for _, flat in vectors():
        for _, _, strength in _runs(flat, rule, device):
            histogram += torch.bincount(_bins(strength), minlength=_N_BINS)
    count = histogram.cpu().numpy()
    count[0] = 0
    return torch.from_numpy(_edges(count, rule)).to(device)


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
    """int64: the upper half of the bits of numbers that are not negative."""
    return (values.view(torch.int32) >> _SHIFT).long()


def _cut_bin(histogram: NDArray[np.int64], max_keep: int) -> int:
    """The highest bin from which on at least `max_keep` elements lie."""
    above = np.cumsum(histogram[::-1])
    return max(0, _N_BINS - 1 - int(np.searchsorted(above, max_keep)))
