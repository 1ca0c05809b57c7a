"""The changes of a task all at once are those that are read one after another."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from formats.codecs import compiled
from formats.errors import ChecksumMismatchError, FormatError
from nps_store.compress import Options, TaskSource, add, compress
from nps_store.store import Store
from nps_store.switch import ResidentTask, Targets, apply_, resident, revert_
from nps_store.switch.run import RunDelta
from tests.nps_store.models import edit, grow, same

if find_spec("numba") is None:
    pytest.skip("needs the fast extra", allow_module_level=True)

TASKS = ("sparse", "levels", "exact", "head", "grown")


@pytest.fixture(autouse=True)
def always_compiled(monkeypatch):
    monkeypatch.setattr(compiled, "MIN_ENTRIES", 0)
    monkeypatch.setattr(resident, "MIN_ENTRIES", 0)


@pytest.fixture(scope="module")
def path(zoo, tmp_path_factory):
    root = tmp_path_factory.mktemp("changes")

    def noisy(tensors):
        generator = torch.Generator().manual_seed(0)
        for tensor in tensors.values():
            tensor += 0.01 * torch.randn(tensor.shape, generator=generator)

    body = TaskSource("sparse", edit(zoo.base, root / "body", noisy))
    compress(zoo.base, [body], root / "s.nps", options=Options(keep=0.05))
    add(root / "s.nps", [TaskSource("levels", body.directory)], options=Options(keep=0.6))
    add(root / "s.nps", [TaskSource("exact", body.directory)], options=Options(method="exact"))
    add(root / "s.nps", [TaskSource("head", zoo.dense("two")),
                         TaskSource("grown", grow(zoo.dense("two"), root / "grown", 2))],
        options=Options(keep=0.05))  # fmt: skip
    return root / "s.nps"


@pytest.mark.parametrize("task", TASKS)
def test_equal(path, task):
    with Store.open(path) as store:
        at_once, streamed = store.changes_at_once(task), [*store.changes(task)]
        assert [(c.name, c.base) for c in at_once] == [(c.name, c.base) for c in streamed]
        assert any(isinstance(c.patch, RunDelta) for c in at_once) == (
            task not in {"levels", "exact"}
        )
        directory = store.task(task).directory
        for one, other in zip(at_once, streamed, strict=True):
            assert torch.equal(store.resolve(one, directory), store.resolve(other, directory))
            if isinstance(one.patch, RunDelta):
                assert torch.equal(one.patch.index, other.patch.index)
                assert one.patch.nbytes == other.patch.nbytes
                assert one.patch.n_entries == other.patch.n_entries


@pytest.mark.parametrize("left_out", [0, 1, 3])
def test_put_in_place_they_are_the_task(path, left_out):
    """Whether the run is packed as it lies or, since a tensor is not wanted, in parts."""
    with Store.open(path) as store:
        live = {t.name: store.base.tensor(t.name).clone() for t in store.base_tensors}
        before = {name: tensor.clone() for name, tensor in live.items()}
        expected = {name: tensor.clone() for name, tensor in live.items()}
        at_once = store.changes_at_once("sparse")[left_out:]
        apply_([(expected[c.base], c.patch) for c in [*store.changes("sparse")][left_out:]])
        task = ResidentTask.of(Targets(live.values()), [(live[c.base], c.patch) for c in at_once])
        (packed,) = task.packed.values()
        runs = {c.patch.run for c in at_once if isinstance(c.patch, RunDelta)}
        assert any(packed.data is run.data for run in runs) == (
            left_out == 0 and all(isinstance(c.patch, RunDelta) for c in at_once)
        )
        log = apply_(task)
        assert same(live, expected)
        revert_(log)
        assert same(live, before)


def test_damage_is_told_alike(path, tmp_path):
    with Store.open(path) as store:
        directory = store.task("sparse").directory
        first = store._container.root.tasks["sparse"].first_offset
        sections = dict(directory.sections())
    for stream, section in sections.items():
        data = bytearray(path.read_bytes())
        data[first + section.offset] ^= 1
        damaged = tmp_path / f"{stream}.nps"
        damaged.write_bytes(data)
        with Store.open(damaged) as store:
            messages = []
            for read in (store.changes_at_once, lambda name, store=store: [*store.changes(name)]):
                with pytest.raises(ChecksumMismatchError) as caught:
                    read("sparse")
                messages.append(str(caught.value))
            assert messages[0] == messages[1]


def test_unsound_positions_are_told_alike(path, monkeypatch):
    with Store.open(path) as store:
        container, messages = store._container, []
        reader = container.task_reader("sparse")
        (ref,) = reader.directory.streams["ranks"]
        content = np.frombuffer(reader.section("ranks", ref), np.uint8).copy()
        content[len(content) // 2 :] = 0
        reader._sections[ref] = memoryview(content.tobytes())
        monkeypatch.setattr(container, "task_reader", lambda _name: reader)
        for read in (store.changes_at_once, lambda name: [*store.changes(name)]):
            with pytest.raises(FormatError) as caught:
                read("sparse")
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
