from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from formats import Container, ContainerWriter
from formats.checksum import hexdigest
from formats.errors import (
    BadMagicError,
    ChecksumMismatchError,
    InvalidStateError,
    MissingFileError,
    TaskNotFoundError,
    TruncatedError,
)
from formats.index import FileRef
from formats.records import DenseBits, SparseLevels
from tests.formats.stores import (
    TOKENIZER,
    add_task,
    base_bits,
    base_file,
    base_tensors,
    build,
    expected_tensors,
    snapshot,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("storage", ["external", "embedded"])
def test_everything_written_is_read_back(tmp_path: Path, storage: str) -> None:
    path = build(tmp_path / "a.nps", "one", "two", storage=storage)
    content = snapshot(path)
    assert list(content["tasks"]) == ["one", "two"]
    for seed, name in enumerate(["one", "two"]):
        tensors, absent, meta, files = content["tasks"][name]
        assert tensors == expected_tensors(seed)
        assert (absent, meta) == ((3,), {"quality": 0.99})
        assert files == {"tokenizer.json": TOKENIZER + str(seed).encode()}
    assert content["base"].tensors == tuple(base_tensors())
    with Container.open(path) as store:
        assert (store.generation, store.nbytes) == (2, path.stat().st_size)
        assert store.newest_generation() == 2
        assert repr(store).startswith("<Container ")


def test_embedded_base_comes_back_bit_for_bit(tmp_path: Path) -> None:
    with Container.open(build(tmp_path / "a.nps", storage="embedded")) as store:
        reader = store.base_reader()
        for entry, (name, bits) in zip(reader, base_bits().items(), strict=True):
            record = reader.record(entry)
            assert entry.name == name
            assert isinstance(record, DenseBits)
            assert np.array_equal(record.bits, bits)


def test_names_dtypes_and_shapes_of_the_base_are_not_stored(tmp_path: Path) -> None:
    with ContainerWriter.create(tmp_path / "a.nps") as writer:
        writer.set_base(storage="external", tensors=base_tensors())
        bits = base_bits()["layer.bias"]
        for name, prefix in (("same", "model."), ("renamed", "")):
            with writer.begin_task(name, prefix=prefix) as task:
                task.add(
                    "model.layer.bias",
                    dtype="BF16",
                    shape=(40,),
                    base=2,
                    record=DenseBits(40, bits, "BF16"),
                )
                task.finish(absent=[] if name == "same" else [0])
        writer.commit()
    with Container.open(tmp_path / "a.nps") as store:
        same, renamed = store.directory("same"), store.directory("renamed")
        assert same.tensors == renamed.tensors
        document = same.to_json(store.base.tensors)
        assert isinstance(document, dict)
        assert "layer.bias" not in str(document["tensors"])
        assert same.prefix == "model."


def test_arrays_are_read_only_and_outlive_the_container(tmp_path: Path) -> None:
    with Container.open(build(tmp_path / "a.nps", "one", storage="embedded")) as store:
        reader = store.base_reader()
        base_record = reader.record(next(iter(reader)))
        task = store.task_reader("one")
        levels = task.record(next(iter(task)))
    assert isinstance(base_record, DenseBits)
    assert isinstance(levels, SparseLevels)
    (tmp_path / "a.nps").unlink()
    assert np.array_equal(base_record.bits, base_bits()["embed"])
    for array in (base_record.bits, levels.positions, levels.levels, levels.scales):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_opening_does_not_read_task_directories(tmp_path: Path) -> None:
    path = build(tmp_path / "a.nps", "one", "two")
    data = bytearray(path.read_bytes())
    with Container.open(path) as store:
        for entry in store.root.tasks.values():
            data[entry.directory.offset : entry.directory.end] = bytes(entry.directory.nbytes)
    path.write_bytes(data)
    with Container.open(path) as store:
        assert sorted(store.root.tasks) == ["one", "two"]
        with pytest.raises(ChecksumMismatchError):
            store.directory("one")


def test_closed_container_refuses(tmp_path: Path) -> None:
    store = Container.open(build(tmp_path / "a.nps", "one"))
    store.close()
    store.close()
    with pytest.raises(InvalidStateError, match="closed"):
        store.directory("one")


def test_unknown_task_is_refused_by_name(tmp_path: Path) -> None:
    with (
        Container.open(build(tmp_path / "a.nps", "one")) as store,
        pytest.raises(TaskNotFoundError, match="one of: one, got 'two'") as caught,
    ):
        store.task_reader("two")
    assert isinstance(caught.value, KeyError)


def test_external_base_has_no_reader(tmp_path: Path) -> None:
    with (
        Container.open(build(tmp_path / "a.nps")) as store,
        pytest.raises(InvalidStateError, match="not embedded"),
    ):
        store.base_reader()


def test_entry_of_another_task_is_refused(tmp_path: Path) -> None:
    with Container.open(build(tmp_path / "a.nps", "one", storage="embedded")) as store:
        scale = store.base_reader().directory.tensors[3]
        with pytest.raises(InvalidStateError, match="another task"):
            store.task_reader("one").record(scale)


@pytest.mark.parametrize("content", [b"", b"\x89NPS", b"not a store at all" * 999])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.nps").write_bytes(content)
    with pytest.raises(BadMagicError, match=r"a\.nps: not an NPS store"):
        Container.open(tmp_path / "a.nps")


def test_file_that_ends_within_the_superblock_is_refused(tmp_path: Path) -> None:
    path = build(tmp_path / "a.nps")
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(TruncatedError):
        Container.open(path)


def test_missing_path_is_the_usual_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Container.open(tmp_path / "none.nps")


class TestFiles:
    def test_free_when_equal_to_the_external_base_or_stored(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps", "one")
        with ContainerWriter.open(path) as writer:
            before = path.stat().st_size
            assert writer.add_file(TOKENIZER).nbytes == len(TOKENIZER)
            writer.add_file(TOKENIZER + b"0")
            assert writer.commit() == 1
        assert path.stat().st_size == before

    def test_difference_to_the_base_is_small_and_needs_it(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 256, 20_000, dtype=np.uint8).tobytes()
        tuned = noise[:9_000] + b"changed" + noise[9_000:]
        path = tmp_path / "a.nps"
        with ContainerWriter.create(path) as writer:
            ref = FileRef(hexdigest(noise), len(noise))
            writer.set_base(storage="external", tensors=base_tensors(), files={"t": ref})
            tuned_ref = writer.add_file(tuned, dictionary=noise)
            writer.commit()
        with Container.open(path) as store:
            assert store.root.files[tuned_ref.hash].section.nbytes < 100
            assert store.root.files[tuned_ref.hash].nbytes == len(tuned)
            assert store.file(tuned_ref, base_file=lambda _: noise) == tuned
            assert store.file(ref, base_file=lambda _: noise) == noise
            with pytest.raises(MissingFileError, match="pass the base"):
                store.file(tuned_ref)
            with pytest.raises(ChecksumMismatchError, match="another content"):
                store.file(tuned_ref, base_file=lambda _: noise[1:])

    def test_useless_dictionary_is_not_kept(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 256, 999, dtype=np.uint8).tobytes()
        path = build(tmp_path / "a.nps")
        with ContainerWriter.open(path) as writer:
            ref = writer.add_file(noise, dictionary=TOKENIZER)
            writer.commit()
        with Container.open(path) as store:
            assert store.root.files[ref.hash].dictionary is None
            assert store.file(ref) == noise

    def test_dictionary_chain_is_never_written(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps", "one")
        with ContainerWriter.open(path) as writer:
            ref = writer.add_file(TOKENIZER + b"00", dictionary=TOKENIZER + b"0")
            writer.commit()
        with Container.open(path) as store:
            assert store.root.files[ref.hash].dictionary is None

    def test_unknown_dictionary_is_refused(self, tmp_path: Path) -> None:
        with (
            ContainerWriter.open(build(tmp_path / "a.nps")) as writer,
            pytest.raises(MissingFileError, match="compress against"),
        ):
            writer.add_file(b"x" * 99, dictionary=b"never seen")

    def test_empty_file(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps")
        with ContainerWriter.open(path) as writer:
            ref = writer.add_file(b"")
            writer.commit()
        with Container.open(path) as store:
            assert store.file(ref) == b""

    def test_unknown_file_is_refused(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps", "one")
        ref = FileRef("0" * 32, 3)
        with Container.open(path) as store, pytest.raises(MissingFileError):
            store.file(ref, base_file=base_file)
        with ContainerWriter.open(path) as writer:
            task = writer.begin_task("two")
            with pytest.raises(MissingFileError, match="add_file first"):
                task.finish(files={"x": ref})

    def test_files_may_be_added_while_a_task_is_written(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps")
        with ContainerWriter.open(path) as writer:
            task = writer.begin_task("one")
            ref = writer.add_file(b"label map")
            task.finish(files={"labels": ref})
            add_task(writer, "two")
            writer.commit()
        with Container.open(path) as store:
            assert store.file(store.directory("one").files["labels"]) == b"label map"


def test_a_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        Container.open(tmp_path)
    assert caught.value.filename == str(tmp_path)


def test_a_directory_is_parsed_once_in_a_row(tmp_path: Path) -> None:
    with Container.open(build(tmp_path / "a.nps", "one", "two")) as store:
        one = store.directory("one")
        assert store.task_reader("one").directory is one
        assert store.directory("two").name == "two"
        assert store.directory("one") == one
