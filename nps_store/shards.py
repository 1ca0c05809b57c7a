"""Safetensors files written tensor by tensor, so that no more than one has to be in memory.

The library's own writer takes all tensors of a file at once.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nps_store.checkpoint import DTYPE_NAMES, DTYPES, INDEX_NAME, WEIGHTS_NAME, raw_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from torch import Tensor

_ALIGNMENT = 8


@dataclass(frozen=True)
class TensorSpec:
    """What a tensor will be.

    Attributes:
        name: Its name in the file.
        dtype: As safetensors names it.
        shape: Its shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


def write_shards(
    directory: Path,
    specs: Sequence[TensorSpec],
    tensors: Iterable[tuple[str, Tensor]],
    *,
    max_shard_nbytes: int,
) -> int:
    """Write a checkpoint as `from_pretrained` expects it.

    Args:
        directory: Where to; it exists.
        specs: What the tensors will be, in their order.
        tensors: Their names and values.
        max_shard_nbytes: Tensors beyond this go into further files.

    Returns:
        Bytes of all tensors.

    Raises:
        ValueError: A tensor is not what was said of it.
    """
    shards = list(_grouped(specs, max_shard_nbytes))
    total = sum(spec.nbytes for spec in specs)
    names = [WEIGHTS_NAME]
    if len(shards) > 1:
        n = len(shards)
        names = [f"model-{number + 1:05d}-of-{n:05d}.safetensors" for number in range(n)]
    remaining = iter(tensors)
    for name, shard in zip(names, shards, strict=True):
        with (directory / name).open("wb") as file:
            places = _write_header(file, shard)
            for spec, (tensor_name, tensor) in zip(shard, remaining, strict=False):
                found = TensorSpec(tensor_name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape))
                if found != spec:
                    raise ValueError(f"expected {spec}, got {found}")
                file.seek(places[spec.name])
                file.write(raw_bytes(tensor))
    if len(shards) > 1:
        weight_map = {
            spec.name: name for name, shard in zip(names, shards, strict=True) for spec in shard
        }
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / INDEX_NAME).write_text(json.dumps(index, indent=1) + "\n")
    return total


def _grouped(specs: Sequence[TensorSpec], limit: int) -> Iterator[list[TensorSpec]]:
    """Tensors of each file: as many as fit, at least one."""
    shard: list[TensorSpec] = []
    for spec in specs:
        if shard and sum(each.nbytes for each in shard) + spec.nbytes > limit:
            yield shard
            shard = []
        shard.append(spec)
    yield shard


def _write_header(file: BinaryIO, specs: Sequence[TensorSpec]) -> dict[str, int]:
    """The header of a file, and where in it each tensor goes: wider dtypes first, so that all are
    aligned."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offsets, end = {}, 0
    for spec in sorted(specs, key=lambda spec: (-DTYPES[spec.dtype].itemsize, spec.name)):
        offsets[spec.name], end = end, end + spec.nbytes
        header[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [offsets[spec.name], end],
        }
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    file.write(len(encoded).to_bytes(8, "little") + encoded)
    start = file.tell()
    file.truncate(start + end)
    return {name: start + offset for name, offset in offsets.items()}
