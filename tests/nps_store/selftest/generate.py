"""Writes `nps_store/selftest/known.nps`, once: as golden stores, it is decoded, never made anew."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from formats import ContainerWriter, dither
from formats.checksum import hexdigest
from formats.index import BaseTensor
from formats.records import DenseBits, DenseLevels, SparseLevels, XorBits

KNOWN = Path(__file__).parents[3] / "nps_store" / "selftest" / "known.nps"
SHAPES = {"wide.weight": (300, 350), "square.weight": (40, 40), "bias": (40,)}


def main() -> int:
    """Returns the exit status."""
    if KNOWN.exists():
        sys.stderr.write(f"{KNOWN}: exists\n")
        return 1
    with ContainerWriter.create(KNOWN) as writer:
        set_base(writer)
        add_ranked(writer)
        add_mixed(writer)
        writer.commit()
    return 0


def bits_of(shape: tuple[int, ...]) -> np.ndarray:
    """uint32 of a periodic float32 ramp, which compresses to next to nothing."""
    ramp = (np.arange(np.prod(shape)) % 509 - 254) / 1024
    return ramp.astype("<f4").view("<u4")


def set_base(writer: ContainerWriter) -> None:
    tensors = [
        BaseTensor(name, "F32", shape, hexdigest(bits_of(shape).data))
        for name, shape in SHAPES.items()
    ]
    writer.set_base(storage="embedded", tensors=tensors, meta={"name": "known"})
    with writer.base_writer() as base:
        for index, tensor in enumerate(tensors):
            record = DenseBits(tensor.numel, bits_of(tensor.shape), "F32")
            base.add(tensor.name, dtype="F32", shape=tensor.shape, base=index, record=record)
        base.finish()


def add_ranked(writer: ContainerWriter) -> None:
    """Positions by the dither, as `nps compress` selects them."""
    with writer.begin_task("ranked", dither="known") as task:
        for index, (name, shape) in enumerate(SHAPES.items()):
            numel, seed = int(np.prod(shape)), dither.tensor_seed("known", name)
            magnitudes = 0.5 + np.arange(numel) % 97 / 97
            kept = np.flatnonzero(dither.uniform(seed, 0, numel) < magnitudes / 6).astype(np.int64)
            levels = np.where(kept % 3 == 0, -1, 1).astype(np.int8)
            scale = np.array([0.0078125], np.float32)
            record = SparseLevels(numel, kept, levels, scale, seed)
            task.add(name, dtype="F32", shape=shape, base=index, record=record)
        task.finish()


def add_mixed(writer: ContainerWriter) -> None:
    """Gaps, dense levels with a scale a row, and bits that differ."""
    with writer.begin_task("mixed") as task:
        kept = np.arange(11, 105_000, 97, dtype=np.int64)
        levels = (kept % 5 - 2).astype(np.int8)
        kept, levels = kept[levels != 0], levels[levels != 0]
        sparse = SparseLevels(105_000, kept, levels, np.array([0.015625], np.float32))
        dense = (np.arange(1600) % 7 - 3).astype(np.int8)
        scales = (np.arange(40) + 1).astype(np.float32) / 4096
        records = [
            sparse,
            DenseLevels(1600, dense, scales),
            XorBits(40, (np.arange(40) * 2654435761 % 2**32).astype("<u4"), "F32"),
        ]
        for index, ((name, shape), record) in enumerate(zip(SHAPES.items(), records, strict=True)):
            task.add(name, dtype="F32", shape=shape, base=index, record=record)
        task.finish()


if __name__ == "__main__":
    raise SystemExit(main())
