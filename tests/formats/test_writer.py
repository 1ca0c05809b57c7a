from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from formats import Container, ContainerWriter
from formats.errors import (
    DuplicateNameError,
    InvalidRecordError,
    InvalidStateError,
    MalformedIndexError,
    MissingFileError,
    NpsError,
    SizeMismatchError,
    StoreExistsError,
    StoreLockedError,
    TaskNotFoundError,
    UnknownEncodingError,
)
from formats.index import BaseTensor, FileRef
from formats.newfile import PART_SUFFIX
from formats.records import DenseBits, XorBits
from tests.formats.stores import (
    TOKENIZER,
    add_task,
    base_bits,
    base_tensors,
    build,
    expected_tensors,
    names,
    set_base,
    snapshot,
)

if TYPE_CHECKING:
    from pathlib import Path

BITS = base_bits()["layer.bias"]
BIAS: dict[str, Any] = {
    "dtype": "BF16",
    "shape": (40,),
    "base": 2,
    "record": DenseBits(40, BITS, "BF16"),
}


class TestCreate:
    def test_store_appears_with_its_first_commit(self, tmp_path: Path) -> None:
        path = tmp_path / "a.nps"
        with ContainerWriter.create(path) as writer:
            set_base(writer)
            assert not path.exists()
            assert writer.commit() == 1
            assert path.exists()
            add_task(writer, "one")
            assert writer.commit() == 2
        assert names(tmp_path) == ["a.nps"]

    def test_no_litter_without_a_commit(self, tmp_path: Path) -> None:
        with ContainerWriter.create(tmp_path / "a.nps") as writer:
            set_base(writer)
        with pytest.raises(ZeroDivisionError), ContainerWriter.create(tmp_path / "a.nps"):
            raise ZeroDivisionError
        assert names(tmp_path) == []

    def test_existing_file_is_kept_unless_overwritten(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps", "one")
        before = path.read_bytes()
        with pytest.raises(StoreExistsError) as caught:
            ContainerWriter.create(path)
        assert isinstance(caught.value, FileExistsError)
        with ContainerWriter.create(path, overwrite=True) as writer:
            set_base(writer)
        assert path.read_bytes() == before
        assert names(tmp_path) == ["a.nps"]

    def test_overwriting_keeps_the_mode_and_the_old_readers(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps", "one")
        path.chmod(0o640)
        with Container.open(path) as old:
            with ContainerWriter.create(path, overwrite=True) as writer:
                set_base(writer)
                writer.commit()
            assert old.directory("one").name == "one"
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert snapshot(path)["tasks"] == {}

    def test_leftover_of_a_killed_writer_is_taken_over(self, tmp_path: Path) -> None:
        (tmp_path / f"a.nps{PART_SUFFIX}").write_bytes(b"x" * 99_999)
        path = build(tmp_path / "a.nps", "one")
        assert snapshot(path)["tasks"]["one"][0] == expected_tensors(0)
        assert names(tmp_path) == ["a.nps"]

    def test_symbolic_link_stays_one(self, tmp_path: Path) -> None:
        build(tmp_path / "a.nps")
        link = tmp_path / "link.nps"
        link.symlink_to("a.nps")
        with ContainerWriter.create(link, overwrite=True) as writer:
            set_base(writer)
            add_task(writer, "one")
            writer.commit()
        assert link.is_symlink()
        assert list(snapshot(tmp_path / "a.nps")["tasks"]) == ["one"]


class TestCommit:
    def test_leaving_without_commit_leaves_the_last_generation(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps", "one")
        before = path.read_bytes()
        with ContainerWriter.open(path) as writer:
            add_task(writer, "two")
            writer.remove_task("one")
        assert path.read_bytes() == before

    def test_replacing_a_task_is_one_commit(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps", "one")
        with Container.open(path) as store:
            before = store.root.tasks["one"].content_hash
        with ContainerWriter.open(path) as writer:
            with pytest.raises(DuplicateNameError, match="remove it first"):
                writer.begin_task("one")
            writer.remove_task("one")
            add_task(writer, "one", seed=5)
            assert writer.commit() == 2
        with Container.open(path) as store:
            assert store.root.tasks["one"].content_hash != before
        assert snapshot(path)["tasks"]["one"][0] == expected_tensors(5)

    def test_nothing_to_commit_is_no_generation(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps", "one")
        with ContainerWriter.open(path) as writer:
            assert writer.commit() == writer.generation == 1

    def test_base_record_is_not_rewritten(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps", "one", "two", "three")
        with Container.open(path) as store:
            assert store.root.base.offset < store.root.tasks["two"].first_offset

    def test_committed_bytes_never_change(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps", "one")
        before = path.read_bytes()
        with ContainerWriter.open(path) as writer:
            add_task(writer, "two", 1)
            writer.remove_task("one")
            writer.commit()
        assert path.read_bytes()[12_288 : len(before)] == before[12_288:]

    def test_uncommitted_bytes_are_overwritten(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps", "one")
        with path.open("ab") as file:
            file.write(b"half a task" * 9_999)
        assert list(snapshot(path)["tasks"]) == ["one"]
        with ContainerWriter.open(path) as writer:
            writer.remove_task("one")
            writer.commit()
        with Container.open(path) as store:
            assert store.nbytes == path.stat().st_size < 99_999

    def test_an_incomplete_store_can_not_be_committed(self, tmp_path: Path) -> None:
        with ContainerWriter.create(tmp_path / "a.nps") as writer:
            with pytest.raises(InvalidStateError, match="no base"):
                writer.commit()
            with pytest.raises(InvalidStateError, match="no base"):
                writer.begin_task("one")
            writer.set_base(storage="embedded", tensors=base_tensors())
            with pytest.raises(InvalidStateError, match="tensors of the embedded base"):
                writer.commit()
        assert names(tmp_path) == []

    def test_embedded_base_needs_its_files(self, tmp_path: Path) -> None:
        with ContainerWriter.create(tmp_path / "a.nps") as writer:
            set_base(writer, "embedded")
            files = {"lost": FileRef("0" * 32, 1)}
            writer.set_base(storage="embedded", tensors=base_tensors(), files=files)
            with pytest.raises(MissingFileError, match="lost"):
                writer.commit()

    def test_failed_append_loses_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = build(tmp_path / "a.nps", "one")
        before = path.read_bytes()
        write = os.pwrite

        def full(fd: int, data: bytes, offset: int) -> int:
            if offset > len(before) + 700:
                raise OSError(28, "No space left on device")
            return write(fd, data, offset)

        with ContainerWriter.open(path) as writer:
            monkeypatch.setattr(os, "pwrite", full)
            with pytest.raises(OSError, match="No space"):
                add_task(writer, "two", 1)
            monkeypatch.undo()
            writer.commit()
        assert list(snapshot(path)["tasks"]) == ["one"]


class TestTask:
    def test_one_at_a_time(self, tmp_path: Path) -> None:
        with ContainerWriter.open(build(tmp_path / "a.nps")) as writer:
            task = writer.begin_task("one")
            for action in (
                lambda: writer.begin_task("two"),
                writer.commit,
                writer.base_writer,
                lambda: writer.set_base(storage="external", tensors=[]),
            ):
                with pytest.raises(InvalidStateError, match="being written"):
                    action()
            task.finish()
            with pytest.raises(InvalidStateError, match="finished"):
                task.finish()
            with pytest.raises(InvalidStateError, match="finished"):
                task.add("layer.bias", **BIAS)
            writer.commit()

    def test_aborted_task_leaves_no_trace(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps")
        with ContainerWriter.open(path) as writer:
            with writer.begin_task("one") as task:
                task.add("layer.bias", **BIAS)
            add_task(writer, "one", 3)
            writer.commit()
        assert snapshot(path)["tasks"]["one"][0] == expected_tensors(3)

    @pytest.mark.parametrize(
        ("name", "change", "error"),
        [
            ("", {}, MalformedIndexError),
            ("a\0b", {}, MalformedIndexError),
            ("x" * 5000, {}, MalformedIndexError),
            ("\ud800", {}, MalformedIndexError),
            ("layer.bias", {"base": 5}, InvalidRecordError),
            ("layer.bias", {"base": -1}, InvalidRecordError),
            ("layer.bias", {"dtype": "F128"}, UnknownEncodingError),
            ("layer.bias", {"shape": (41,)}, SizeMismatchError),
            ("layer.bias", {"shape": (39,)}, SizeMismatchError),
            ("layer.bias", {"shape": (40, 1)}, SizeMismatchError),
            ("layer.bias", {"base": None, "record": None}, SizeMismatchError),
            ("layer.bias", {"base": None, "record": XorBits(40, BITS, "BF16")}, NpsError),
            ("layer.bias", {"dtype": "F16", "record": XorBits(40, BITS, "F16")}, NpsError),
            ("layer.bias", {"record": XorBits(40, BITS, "F16")}, UnknownEncodingError),
            ("layer.bias", {"record": DenseBits(39, BITS[1:], "BF16")}, InvalidRecordError),
            ("layer.bias", {"extra": DenseBits(40, BITS, "BF16")}, InvalidRecordError),
        ],
    )
    def test_wrong_tensors_are_refused_before_anything_is_written(
        self, tmp_path: Path, name: str, change: dict[str, Any], error: type[NpsError]
    ) -> None:
        path = build(tmp_path / "a.nps")
        with ContainerWriter.open(path) as writer:
            task = writer.begin_task("one")
            with pytest.raises(error, match=r"a\.nps"):
                task.add(name, **BIAS | change)
            task.add("layer.bias", **BIAS)
            task.finish()
            writer.commit()
        with Container.open(path) as store:
            assert len(store.task_reader("one")) == 1

    def test_a_grown_tensor_may_leave_the_common_part_unchanged(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps")
        with ContainerWriter.open(path) as writer:
            task = writer.begin_task("one")
            more = DenseBits(8, BITS[:8], "BF16")
            with pytest.raises(SizeMismatchError, match="appended"):
                task.add("embed", dtype="BF16", shape=(7, 8), base=0, record=None)
            task.add("embed", dtype="BF16", shape=(7, 8), base=0, record=None, extra=more)
            task.finish()
            writer.commit()
        with Container.open(path) as store:
            reader = store.task_reader("one")
            (entry,) = reader
            assert reader.record(entry) is None
            assert entry.encoding == "dense_bits"
            extra = reader.extra(entry)  # noqa: S610
            assert isinstance(extra, DenseBits)
            assert np.array_equal(extra.bits, BITS[:8])

    def test_duplicate_names_are_refused(self, tmp_path: Path) -> None:
        with ContainerWriter.open(build(tmp_path / "a.nps")) as writer:
            task = writer.begin_task("one")
            task.add("layer.bias", **BIAS)
            with pytest.raises(DuplicateNameError, match="already added"):
                task.add("layer.bias", **BIAS)
            task.add("scale", **BIAS | {"base": None})
            with pytest.raises(DuplicateNameError, match="'scale'"):
                task.finish()
            task.finish(absent=[3])
            writer.commit()

    @pytest.mark.parametrize("absent", [[5], [-1], [0, 0], [2]])
    def test_wrong_absent_tensors_are_refused(self, tmp_path: Path, absent: list[int]) -> None:
        with ContainerWriter.open(build(tmp_path / "a.nps")) as writer:
            task = writer.begin_task("one")
            task.add("layer.bias", **BIAS)
            with pytest.raises(MalformedIndexError, match="absent"):
                task.finish(absent=absent)

    def test_meta_must_be_json(self, tmp_path: Path) -> None:
        with ContainerWriter.open(build(tmp_path / "a.nps")) as writer:
            task = writer.begin_task("one")
            for meta in ({"x": float("nan")}, {"x": object()}, {"x": "\ud800"}):
                with pytest.raises(InvalidRecordError, match="JSON"):
                    task.finish(meta=meta)  # type: ignore[arg-type]
            task.finish(meta={"x": None})

    def test_unknown_names_are_refused(self, tmp_path: Path) -> None:
        with ContainerWriter.open(build(tmp_path / "a.nps")) as writer:
            with pytest.raises(TaskNotFoundError):
                writer.remove_task("one")
            with pytest.raises(UnknownEncodingError, match="F7"):
                writer.begin_task("one", dtype="F7").finish()


class TestBase:
    def test_can_not_be_exchanged_under_tasks(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps", "one")
        with ContainerWriter.open(path) as writer:
            with pytest.raises(InvalidStateError, match="depend"):
                writer.set_base(storage="external", tensors=base_tensors("F16"))
            with pytest.raises(InvalidStateError, match="depend"):
                writer.set_base(storage="external", tensors=base_tensors())
            assert writer.base is not None
            files = writer.base.files
            writer.set_base(
                storage="external", tensors=base_tensors(), files=files, path_hint="elsewhere"
            )
            assert writer.commit() == 2
        assert snapshot(path)["base"].path_hint == "elsewhere"
        assert snapshot(path)["tasks"]["one"][0] == expected_tensors(0)

    def test_can_be_embedded_later(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps", "one")
        with ContainerWriter.open(path) as writer:
            set_base(writer, "embedded")
            writer.commit()
        with Container.open(path) as store:
            assert store.file(store.base.files["tokenizer.json"]) == TOKENIZER
            assert store.file(store.directory("one").files["tokenizer.json"])
        assert snapshot(path)["tasks"]["one"][0] == expected_tensors(0)

    def test_must_be_sound(self, tmp_path: Path) -> None:
        with ContainerWriter.create(tmp_path / "a.nps") as writer:
            twice = [*base_tensors(), base_tensors()[0]]
            with pytest.raises(DuplicateNameError):
                writer.set_base(storage="external", tensors=twice)
            with pytest.raises(MalformedIndexError, match="storage"):
                writer.set_base(storage="borrowed", tensors=[])
            with pytest.raises(MalformedIndexError, match="hash"):
                writer.set_base(storage="external", tensors=[BaseTensor("a", "F16", (1,), "0")])

    def test_embedded_tensors_must_be_those_of_the_record(self, tmp_path: Path) -> None:
        with ContainerWriter.create(tmp_path / "a.nps") as writer:
            writer.set_base(storage="external", tensors=base_tensors())
            with pytest.raises(InvalidStateError, match="external"):
                writer.base_writer()
            writer.set_base(storage="embedded", tensors=base_tensors())
            with writer.base_writer() as base:
                for change, problem in (
                    ({"base": None}, "DenseBits"),
                    ({"record": XorBits(40, BITS, "BF16")}, "DenseBits"),
                    ({"base": 1}, "not the tensor"),
                    ({"record": DenseBits(40, BITS + np.uint16(1), "BF16")}, "hash"),
                ):
                    with pytest.raises(InvalidRecordError, match=problem):
                        base.add("layer.bias", **BIAS | change)
                base.add("layer.bias", **BIAS)
                with pytest.raises(InvalidRecordError, match="every tensor"):
                    base.finish()


HOLDER = """
import sys, time
from formats import ContainerWriter
from tests.formats.stores import add_task, set_base
path, how = sys.argv[1:]
writer = getattr(ContainerWriter, how)(path)
if how == "create":
    set_base(writer)
add_task(writer, "doomed")
print("ready", flush=True)
time.sleep(60)
"""


class TestLock:
    def test_second_writer_is_refused_and_readers_are_not(self, tmp_path: Path) -> None:
        path = build(tmp_path / "a.nps", "one")
        with ContainerWriter.open(path):
            with pytest.raises(StoreLockedError, match="another writer") as caught:
                ContainerWriter.open(path, timeout_s=0.05)
            assert isinstance(caught.value, TimeoutError)
            with pytest.raises(StoreLockedError):
                ContainerWriter.create(path, overwrite=True)
            assert list(snapshot(path)["tasks"]) == ["one"]
        with ContainerWriter.open(path, timeout_s=0):
            pass

    def test_second_creator_is_refused(self, tmp_path: Path) -> None:
        with (
            ContainerWriter.create(tmp_path / "a.nps"),
            pytest.raises(StoreLockedError),
        ):
            ContainerWriter.create(tmp_path / "a.nps")

    @pytest.mark.parametrize("how", ["open", "create"])
    def test_killed_holder_blocks_nobody(self, tmp_path: Path, how: str) -> None:
        path = tmp_path / "a.nps"
        if how == "open":
            build(path, "one")
        command = [sys.executable, "-c", HOLDER, str(path), how]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            with pytest.raises(StoreLockedError):
                getattr(ContainerWriter, how)(path, timeout_s=0)
            holder.send_signal(signal.SIGKILL)
        if how == "create":
            build(path, "one")
        with ContainerWriter.open(path, timeout_s=0) as writer:
            assert writer.tasks == ("one",)
            add_task(writer, "two", 1)
            writer.commit()
        assert snapshot(path)["tasks"]["two"][0] == expected_tensors(1)
        assert names(tmp_path) == ["a.nps"]

    def test_closed_writer_refuses(self, tmp_path: Path) -> None:
        writer = ContainerWriter.open(build(tmp_path / "a.nps"))
        writer.close()
        writer.close()
        with pytest.raises(InvalidStateError, match="closed"):
            writer.commit()
