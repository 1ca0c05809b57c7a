"""All records at once are what one after another are, on sound bytes and on damaged ones."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from formats import Container, ContainerWriter, dither, parallel, streams
from formats.codecs import compiled
from formats.errors import FormatError
from formats.index import BaseTensor
from formats.records import Record, SparseLevels
from formats.sign_blocks import MAX_STARTS
from tests.formats.stores import dithered, plain

if TYPE_CHECKING:
    from pathlib import Path

    from formats.sign_blocks import SignBlocks
    from formats.task_reader import TaskReader

if find_spec("numba") is None:
    pytest.skip("needs the fast extra", allow_module_level=True)

SHAPES = [(40, 30), (5,), (), (256, 256), (2, 0), (300, 500), (65_537,), (1000, 3), (128, 1024)]
KINDS = ["signs", "signs", "rows", "magnitudes", "undithered", "nothing"]


@pytest.fixture(autouse=True)
def always_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MIN_ENTRIES", 0)


def record(kind: str, shape: tuple[int, ...], seed: int, rate: float) -> SparseLevels:
    rng = np.random.default_rng(seed % 1000)
    numel = int(np.prod(shape))
    positions = dithered(numel, seed, step=1 / rate) if numel else np.empty(0, np.int64)
    positions = positions[:0] if kind == "nothing" else positions
    magnitudes = [1, 2, 5] if kind == "magnitudes" else [1]
    levels = (rng.choice(magnitudes, positions.size) * rng.choice([-1, 1], positions.size)).astype(
        np.int8
    )
    n_scales = shape[0] if kind == "rows" and shape and shape[0] else 1
    scales = rng.random(n_scales).astype(np.float32)
    return SparseLevels(numel, positions, levels, scales, None if kind == "undithered" else seed)


def write(path: Path, kinds: list[str], rate: float = 0.02) -> Path:
    path.unlink(missing_ok=True)
    base = [BaseTensor(f"w{i}", "F32", shape, "0" * 32) for i, shape in enumerate(SHAPES)]
    with ContainerWriter.create(path) as writer:
        writer.set_base(storage="external", tensors=base)
        with writer.begin_task("task", prefix="m.", dither="d") as task:
            for index, (tensor, kind) in enumerate(zip(base, kinds, strict=True)):
                seed = dither.tensor_seed("d", tensor.name)
                task.add(f"m.{tensor.name}", dtype="F32", shape=tensor.shape, base=index,
                         record=record(kind, tensor.shape, seed, rate))  # fmt: skip
            task.finish()
        writer.commit()
    return path


def row(blocks: SignBlocks, number: int, seed: int) -> SparseLevels:
    """One row, as a record."""

    def array(place: int, n: int, dtype: str) -> np.ndarray:
        return blocks.data[place : place + n * np.dtype(dtype).itemsize].view(dtype)

    numel, n = int(blocks.numels[number]), int(blocks.n_kept[number])
    n_blocks = -(-numel // 65_536)
    starts = array(blocks.starts[number], n_blocks + 1, "<i8")
    assert starts[0] == 0
    first = np.repeat(np.arange(n_blocks) * 65_536, np.diff(starts))
    positions = first + array(blocks.offsets[number], n, "<u2")
    bits = np.unpackbits(array(blocks.signs[number], -(-n // 8), "u1"), bitorder="little")
    levels = 1 - 2 * bits[:n].astype(np.int8)
    scales = array(blocks.scales[number], int(blocks.n_scales[number]), "<f4")
    return SparseLevels(numel, positions, levels, scales, seed)


def one_by_one(reader: TaskReader) -> list[Record | None] | str:
    """Records of the rows, or how their reading ends."""
    try:
        return [
            reader.record(reader.directory.tensors[n])
            for n in reader.directory.tensors.signs.numbers
        ]
    except FormatError as error:
        return error.id


def assert_equal(reader: TaskReader, blocks: SignBlocks) -> None:
    records = one_by_one(reader)
    assert not isinstance(records, str)
    assert len(records) == len(blocks.numels)
    for number, known in enumerate(records):
        assert isinstance(known, SparseLevels)
        assert known.seed is not None
        assert plain(row(blocks, number, known.seed)) == plain(known)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.sampled_from(KINDS), min_size=len(SHAPES), max_size=len(SHAPES)),
    st.sampled_from([0.0005, 0.02, 0.9]),
    st.sampled_from([1 << 26, 1000]),
    st.sampled_from([1 << 17, 1]),
)
def test_equal_on_sound_bytes(
    tmp_path: Path, kinds: list[str], rate: float, section_nbytes: int, share: int
) -> None:
    """Whatever else the task holds, however many sections, shares and threads there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "SECTION_NBYTES", section_nbytes)
        patch.setattr(parallel, "MIN_COST_A_SHARE", share)
        patch.setattr(parallel, "n_cores", lambda: 3)
        with Container.open(write(tmp_path / "a.nps", kinds, rate)) as store:
            reader = store.task_reader("task")
            numbers = reader.directory.tensors.signs.numbers.tolist()
            assert {kinds[number] for number in numbers} <= {
                "signs",
                "rows",
                "magnitudes",
                "nothing",
            }
            blocks = reader.sign_blocks()
            assert (blocks is None) == (not numbers)
            if blocks is not None:
                assert_equal(reader, blocks)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["segments", "ranks", "signs", "scales"]),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_equal_on_damaged_bytes(
    tmp_path_factory: pytest.TempPathFactory, stream: str, changes: list[tuple[int, int]]
) -> None:
    """Checksums are not looked at here: what they let pass must be found nevertheless."""
    path = tmp_path_factory.getbasetemp() / "damaged.nps"
    if not path.exists():
        write(path, ["signs"] * 8 + ["rows"])
    with Container.open(path) as store:
        reader = store.task_reader("task")
        ((ref),) = reader.directory.streams[stream]
        content = bytearray(reader.section(stream, ref))
        for at, value in changes:
            content[at % len(content)] = value
        reader._sections[ref] = memoryview(bytes(content))
        blocks = reader.sign_blocks()
        if blocks is None:
            assert isinstance(one_by_one(reader), str)
        else:
            assert_equal(reader, blocks)


def test_a_wrong_checksum_is_left_to_who_can_say_where(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nps", ["signs"] * len(SHAPES))
    with Container.open(path) as store:
        entry = store.root.tasks["task"]
        (section,) = store.directory("task").streams["ranks"]
    data = bytearray(path.read_bytes())
    data[entry.first_offset + section.offset] ^= 1
    path.write_bytes(data)
    with Container.open(path) as store:
        reader = store.task_reader("task")
        assert reader.sign_blocks() is None
        assert one_by_one(reader) == "format.checksum_mismatch"


def test_few_bytes_make_no_large_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Container.open(write(tmp_path / "a.nps", ["signs"] * len(SHAPES))) as store:
        reader = store.task_reader("task")
        assert reader.sign_blocks() is not None
        monkeypatch.setattr("formats.sign_blocks.MAX_STARTS", 10)
        assert reader.sign_blocks() is None
        assert MAX_STARTS << 16 >= 1 << 40


def test_numpy_reads_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Container.open(write(tmp_path / "a.nps", ["signs"] * len(SHAPES))) as store:
        reader = store.task_reader("task")
        monkeypatch.setattr(compiled, "is_available", lambda: False)
        assert reader.sign_blocks() is None
        assert not isinstance(one_by_one(reader), str)
