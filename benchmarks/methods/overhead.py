"""What every method pays alike: the task's head in 8 bits, files that differ from the base's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.methods.archive import Part, pack
from benchmarks.methods.levels import array_part
from formats.codecs import zstd
from formats.records import DenseLevels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from nps_store.checkpoint import Checkpoint


def stored_head(head: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """The head as its reader sees it, and its bytes: matrices int8 with a scale a row."""
    seen: dict[str, Tensor] = {}
    parts: dict[str, Part] = {}
    for name, tensor in head.items():
        if tensor.ndim < 2:
            seen[name] = tensor
            parts[name] = array_part(tensor.float())
            continue
        rows = tensor.float().reshape(len(tensor), -1)
        scales = (rows.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        levels = (rows / scales[:, None]).round().to(torch.int8)
        seen[name] = (levels * scales[:, None]).reshape(tensor.shape).to(tensor.dtype)
        flat = array_part(levels.reshape(-1))
        parts[f"{name} levels"] = DenseLevels(flat.size, flat, np.ones(1, np.float32))
        parts[f"{name} scales"] = array_part(scales)
    return seen, len(pack(parts)) if parts else 0


def files_nbytes(fine_tune: Checkpoint, base: Checkpoint) -> int:
    """Bytes of the attached files, each compressed against the base's file of the same name."""
    known, total = base.files(), 0
    for name, path in fine_tune.files().items():
        content = path.read_bytes()
        like = known[name].read_bytes() if name in known else None
        if content and content != like:
            frames = [content, zstd.compress(content)]
            if like:
                frames.append(zstd.compress(content, dictionary=like))
            total += min(map(len, frames))
    return total
