"""What somebody holds stays readable, whatever becomes of the store."""

from __future__ import annotations

import shutil

import pytest
import torch

from formats.writer import ContainerWriter
from nps_store.compress import Options, TaskSource, add, compress
from nps_store.errors import TaskNotFoundError
from server.engines.vllm.contents import Contents, TaskContent
from tests.nps_store.models import edit


def scaled(factor):
    def change(tensors):
        for tensor in tensors.values():
            if tensor.is_floating_point():
                tensor *= factor

    return change


@pytest.fixture(scope="module")
def versions(zoo, tmp_path_factory):
    """Two contents of one name."""
    root = tmp_path_factory.mktemp("versions")
    return [edit(zoo.base, root / str(factor), scaled(factor)) for factor in (1.5, 2.0)]


@pytest.fixture
def path(zoo, versions, tmp_path):
    made = tmp_path / "tasks.nps"
    compress(zoo.base, [TaskSource("a", versions[0])], made, options=Options("exact"))
    return made


def content_of(contents, name):
    return TaskContent(name, contents.newest.content_hash(name))


def weights(contents, task):
    return contents.of(task).materialize(task.name)


def is_scaled(contents, task, factor):
    base = contents.newest.base
    return all(torch.equal(t, base.tensor(n) * factor) for n, t in weights(contents, task).items()
               if t.is_floating_point())  # fmt: skip


def test_a_replaced_content_is_read_until_it_is_released(path, versions):
    contents = Contents(path, None)
    old = content_of(contents, "a")
    contents.hold(old)
    add(path, [TaskSource("a", versions[1])], options=Options("exact"), replace=True)
    contents.newest.refresh()
    new = content_of(contents, "a")
    contents.hold(new)
    assert is_scaled(contents, old, 1.5)
    assert is_scaled(contents, new, 2.0)
    assert contents.release(old) is True
    with pytest.raises(TaskNotFoundError, match="not being served"):
        contents.of(old)


def test_a_removed_content_outlives_even_the_file(path, versions, tmp_path):
    contents = Contents(path, None)
    held = content_of(contents, "a")
    contents.hold(held)
    with ContainerWriter.open(path) as writer:
        writer.remove_task("a")
        writer.commit()
    shutil.copy(path, tmp_path / "other")
    (tmp_path / "other").replace(path)
    assert is_scaled(contents, held, 1.5)


def test_as_many_releases_as_holds(path):
    contents = Contents(path, None)
    held = content_of(contents, "a")
    contents.hold(held)
    contents.hold(held)
    assert contents.release(held) is False
    assert held in contents
    assert contents.release(held) is True
    assert held not in contents


def test_what_is_newer_than_the_last_look_is_found(path, versions):
    contents, other = Contents(path, None), Contents(path, None)
    add(path, [TaskSource("b", versions[1])], options=Options("exact"))
    other.newest.refresh()
    contents.hold(content_of(other, "b"))
    assert is_scaled(contents, content_of(other, "b"), 2.0)


def test_a_content_that_the_store_does_not_have(path):
    contents = Contents(path, None)
    with pytest.raises(TaskNotFoundError, match="with the content that was asked for"):
        contents.hold(TaskContent("a", "0" * 32))
