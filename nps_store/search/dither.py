"""The numbers of `formats.dither` on the device that scores, so that no core of the host need make
thousands of millions of them, nor any be copied."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from formats.dither import BLOCK, keys

_SHIFTED = 0x1FF
"""The bits that an unsigned shift by 7 leaves; torch shifts int16 with its sign."""


def uniform(seed: int, start: int, n: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Numbers of the elements `start` to `start + n` of a flat tensor, any start.

    Returns:
        float32 [n], bit for bit those of `formats.dither.uniform`.
    """
    first, offset = divmod(start, BLOCK)
    blocks = np.arange(first, -(-(start + n) // BLOCK))
    constants = torch.from_numpy(keys(seed, blocks).view(np.int16)).to(device)
    x = torch.arange(BLOCK, dtype=torch.int32, device=device).short().repeat(len(blocks), 1)
    for term, factor in zip(*constants[..., None], strict=True):
        x ^= term
        x ^= (x >> 7) & _SHIFTED
        x *= factor
    x ^= (x >> 7) & _SHIFTED
    ranks = x.view(-1)[offset : offset + n].int() & 0xFFFF
    return (ranks.float() + 0.5).mul_(1 / BLOCK)
