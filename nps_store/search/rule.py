"""Selection rules: how a task vector element earns its place, and what is stored of it.

Every rule gives each element a *score*; an element of band m is kept iff its score reaches
`threshold_m`. Re-weighting a band by w_m divides its threshold by w_m, so a candidate of the search
is nothing but one threshold a band.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Rule:
    """One way to select.

    Attributes:
        name: As in the CLI.
        dithered: Score |tau|/u, u uniform: kept with probability w*|tau|/step (dithered rounding).
        random: Score 1/u: kept with the same probability whatever the magnitude (DARE).
        levels: Stored as sign and integer level with one common scale; else with real values.
        n_bands: Magnitude bands with a weight each; 1 means nothing to search but the scale.
        searched: Whether band weights and scale are searched on calibration data.
        spacing: Bands of equal width in log magnitude ("log"), or of equal count ("count").
        scope: Whether magnitudes compete in the whole model ("global"), or stand for their rank
            in their own tensor ("tensor"), so that each keeps the same share.
    """

    name: str
    dithered: bool = False
    random: bool = False
    levels: bool = False
    n_bands: int = 1
    searched: bool = False
    spacing: Literal["log", "count"] = "log"
    scope: Literal["global", "tensor"] = "global"

    @property
    def learnable(self) -> bool:
        """Whether what is selected can be improved by gradients."""
        return self.searched and self.levels

    def strength(self, flat: Tensor) -> Tensor:
        """What elements compete by, float32 like a tensor's task vector: the magnitude, or
        n / (1 + number of larger ones in the tensor); 0 where the task vector is 0."""
        magnitude = flat.abs()
        if self.scope == "global":
            return magnitude
        rank = torch.empty_like(magnitude)
        order = magnitude.argsort(descending=True, stable=True)
        rank[order] = torch.arange(1, len(flat) + 1, dtype=rank.dtype, device=rank.device)
        return torch.where(magnitude > 0, len(flat) / rank, 0)

    def score(self, magnitude: Tensor, u: Tensor) -> Tensor:
        """Score per element, float32; 0 where the task vector is 0 (never kept)."""
        if self.random:
            return torch.where(magnitude > 0, 1 / u, 0)
        return magnitude / u if self.dithered else magnitude


RULES = {
    rule.name: rule
    for rule in (
        Rule("nps", dithered=True, levels=True, n_bands=6, searched=True),
        Rule("topk", n_bands=6, searched=True),
        Rule("dither", dithered=True, levels=True),
        Rule("dare", random=True),
        Rule("magnitude"),
    )
}
