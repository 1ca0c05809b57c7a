"""Every single bit and every length of a small store: an error, a repair or the same content."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from formats import Container, ContainerWriter, dither
from formats import roots as roots_module
from formats.checksum import hexdigest
from formats.errors import (
    BadMagicError,
    ChecksumMismatchError,
    FormatError,
    TruncatedError,
    UnsupportedVersionError,
)
from formats.index import BaseTensor, FileRef
from formats.layout import DATA_OFFSET
from formats.records import DenseBits, DenseLevels, SparseLevels, XorBits
from formats.sources import BytesSource
from tests.formats.stores import contents

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_NBYTES = 32 << 10
CONFIG = b'{"labels": ["a", "b"]}' * 4
ONES = np.ones(1, np.float32)


def _records(seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.choice(96, 9, replace=False)).astype(np.int64)
    signs = rng.choice(np.array([-1, 1], np.int8), 9)
    tensor_seed = dither.tensor_seed(f"{seed}", "v")
    ranked = np.sort(np.argsort(dither.uniform(tensor_seed, 0, 96))[:9])
    return [
        ("w", (12, 8), 0, SparseLevels(96, kept, signs, ONES)),
        ("v", (12, 8), 2, SparseLevels(96, ranked, signs, ONES, tensor_seed)),
        ("b", (8,), 1, XorBits(8, rng.integers(0, 65536, 8).astype("<u2"), "F16")),
        ("head", (2, 8), None, DenseLevels(16, rng.integers(-3, 4, 16).astype(np.int8), ONES)),
    ]


def small_store(path: Path) -> bytes:
    """Base embedded, two tasks with a file each, a recipe; three generations."""
    rng = np.random.default_rng(1)
    shapes = {"w": (12, 8), "b": (8,), "v": (12, 8)}
    bits = {
        name: rng.integers(0, 65536, int(np.prod(shape))).astype("<u2")
        for name, shape in shapes.items()
    }
    tensors = [BaseTensor(n, "F16", shapes[n], hexdigest(bits[n].data)) for n in shapes]
    ref = FileRef(hexdigest(CONFIG), len(CONFIG))
    with ContainerWriter.create(path) as writer:
        writer.set_base(storage="embedded", tensors=tensors, files={"config.json": ref})
        writer.add_file(CONFIG)
        with writer.base_writer() as base:
            for i, tensor in enumerate(tensors):
                record = DenseBits(tensor.numel, bits[tensor.name], "F16")
                base.add(tensor.name, dtype="F16", shape=tensor.shape, base=i, record=record)
            base.finish()
        for seed, name in enumerate(("one", "two")):
            with writer.begin_task(name, dither=f"{seed}") as task:
                encodings = [
                    task.add(n, dtype="F16", shape=shape, base=origin, record=record).encoding
                    for n, shape, origin, record in _records(seed)
                ]
                assert {"sparse_levels/rice", "sparse_levels/ranked"} < set(encodings)
                tuned = writer.add_file(CONFIG + name.encode(), dictionary=CONFIG)
                task.finish(files={"config.json": tuned}, meta={"quality": 0.99})
            writer.commit()
        writer.set_recipe("both", {"fusion": [["one", 0.5], ["two", 0.5]]})
        writer.commit()
    return path.read_bytes()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setattr(roots_module, "RETRY_PAUSE_S", 0)
    data = small_store(tmp_path / "a.nps")
    assert len(data) <= MAX_NBYTES
    return data


def read(data: bytes) -> dict[str, Any]:
    with Container.open_source(BytesSource(data), name="memory") as opened:
        return contents(opened)


def outcome(data: bytes, intact: dict[str, Any]) -> str:
    """The id of a specific error, or that the content is the same; anything else raises."""
    try:
        content = read(data)
    except FormatError as error:
        if type(error) is FormatError or not str(error).startswith("memory: "):
            raise
        return error.id
    assert content == intact
    return "same content"


def _padding_of_the_head() -> set[int]:
    used = (range(40), range(4096, 4096 + 64), range(8192, 8192 + 64))
    return set(range(DATA_OFFSET)).difference(*used)


def flip_all(data: bytes, offsets: Iterable[int], intact: dict[str, Any]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    damaged = bytearray(data)
    for at in offsets:
        for bit in range(8):
            damaged[at] ^= 1 << bit
            outcomes[outcome(bytes(damaged), intact)] += 1
            damaged[at] ^= 1 << bit
    print(f"{outcomes.total()} single-bit flips: {dict(outcomes)}")  # noqa: T201
    return outcomes


def test_every_bit_of_structures_and_data(store: bytes) -> None:
    intact = read(store)
    assert (list(intact["tasks"]), len(intact["bits"])) == (["one", "two"], 3)
    assert intact["recipes"]
    offsets = set(range(len(store))) - _padding_of_the_head()
    outcomes = flip_all(store, offsets, intact)
    assert outcomes.total() == 8 * len(offsets)
    assert set(outcomes) == {
        "same content",
        BadMagicError.id,
        UnsupportedVersionError.id,
        ChecksumMismatchError.id,
    }
    assert outcomes[BadMagicError.id] == 64
    assert outcomes[UnsupportedVersionError.id] == 16
    assert outcomes[ChecksumMismatchError.id] > 8 * 2000


@pytest.mark.slow
def test_every_bit_of_the_padding_between_root_slots(store: bytes) -> None:
    offsets = _padding_of_the_head()
    assert flip_all(store, offsets, read(store)) == {"same content": 8 * len(offsets)}


def test_every_truncation(store: bytes) -> None:
    intact = read(store)
    outcomes = Counter(outcome(store[:length], intact) for length in range(len(store)))
    print(f"{outcomes.total()} truncations: {dict(outcomes)}")  # noqa: T201
    assert outcomes == {
        BadMagicError.id: 8,
        TruncatedError.id: len(store) - 8,
    }


def test_every_truncation_of_what_is_not_committed(store: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.nps"
    intact = read(store)
    with ContainerWriter.open(path) as writer:
        task = writer.begin_task("three")
        task.add("w", dtype="F16", shape=(12, 8), base=0, record=_records(7)[0][3])
        task.finish()
        writer.remove_task("one")
        writer.commit()
    committed = path.read_bytes()
    assert len(committed) > len(store) > DATA_OFFSET
    for length in range(len(store), len(committed) + 1):
        assert read(store + committed[len(store) : length]) == intact
    print(f"{len(committed) + 1 - len(store)} truncations behind the commit")  # noqa: T201
