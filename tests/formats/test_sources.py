"""A store behind an object that reads ranges: the same content, in few requests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from formats import Container, ContainerWriter, compact
from formats.errors import FormatError, TruncatedError
from formats.records import DenseBits
from formats.sources import BytesSource
from tests.formats.stores import base_tensors, build, contents, snapshot

SHIPPED = Path(__file__).parents[2] / "examples" / "debian-8tasks.nps"


class CountingSource(BytesSource):
    """Remembers which ranges were asked for."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.ranges: list[tuple[int, int]] = []

    def read_range(self, offset: int, length: int) -> bytes:
        self.ranges.append((offset, length))
        return super().read_range(offset, length)


def first_tensor(source: CountingSource, task: str) -> None:
    with Container.open_source(source) as store:
        reader = store.task_reader(task)
        assert reader.record(next(iter(reader))) is not None


@pytest.mark.parametrize("storage", ["external", "embedded"])
@pytest.mark.parametrize("compacted", [False, True])
def test_three_reads_to_the_first_tensor(tmp_path: Path, storage: str, compacted: bool) -> None:
    path = build(tmp_path / "a.nps", "one", "two", "three", storage=storage)
    if compacted:
        compact(path)
    source = CountingSource(path.read_bytes())
    first_tensor(source, "one")
    assert len(source.ranges) <= 3


def test_three_reads_to_the_first_tensor_of_the_shipped_store() -> None:
    source = CountingSource(SHIPPED.read_bytes())
    first_tensor(source, "role")
    print(f"{len(source.ranges)} reads: {source.ranges}")  # noqa: T201
    assert len(source.ranges) == 3
    assert sum(length for _, length in source.ranges) < 500_000


@pytest.mark.parametrize("storage", ["external", "embedded"])
def test_same_content_as_the_file(tmp_path: Path, storage: str) -> None:
    path = build(tmp_path / "a.nps", "one", "two", storage=storage)
    with Container.open_source(BytesSource(path.read_bytes()), name="far") as store:
        assert contents(store) == snapshot(path)
        assert store.newest_generation() == store.generation == 2
        assert repr(store).startswith("<Container 'far'")


def test_a_read_only_file(tmp_path: Path) -> None:
    path = build(tmp_path / "a.nps", "one")
    path.chmod(0o400)
    assert list(snapshot(path)["tasks"]) == ["one"]


def test_errors_name_the_source(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="far: not an NPS store"):
        Container.open_source(BytesSource(b"nothing"), name="far")


def test_a_source_that_gives_less_than_it_has_is_an_error(tmp_path: Path) -> None:
    class Short(BytesSource):
        def read_range(self, offset: int, length: int) -> bytes:
            return super().read_range(offset, length if not offset else length - 1)

    data = SHIPPED.read_bytes()
    with pytest.raises(TruncatedError, match="far: source ends within a section"):
        Container.open_source(Short(data), name="far").task_reader("role")


def test_recovers_a_damaged_slot(tmp_path: Path) -> None:
    path = build(tmp_path / "a.nps", "one", "two")
    data = bytearray(path.read_bytes())
    data[4096 : 4096 + 64] = bytes(64)
    with Container.open_source(BytesSource(bytes(data))) as store:
        assert store.selection.damaged_slots == (0,)
        assert sorted(store.root.tasks) == ["one", "two"]


def test_three_reads_after_many_commits_of_large_tasks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.nps"
    with ContainerWriter.create(path) as writer:
        writer.set_base(storage="external", tensors=base_tensors())
        for name in ("one", "two", "three"):
            bits = rng.integers(0, 256, 400_000, dtype=np.uint8)
            with writer.begin_task(name) as task:
                record = DenseBits(bits.size, bits, "U8")
                task.add("t", dtype="U8", shape=bits.shape, base=None, record=record)
                task.finish()
            writer.commit()
    for name in ("one", "two", "three"):
        source = CountingSource(path.read_bytes())
        first_tensor(source, name)
        assert len(source.ranges) == 3
