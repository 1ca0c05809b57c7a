"""One damaged task: a clear sentence for it, and every other task as before."""

from __future__ import annotations

import json

import pytest

from formats.container import Container
from formats.errors import ChecksumMismatchError
from nps_store.cli import run
from tests.cli.conftest import snapshot


def places(store):
    """A committed range of every kind: of the file, of task two, of what it shares with three."""
    with Container.open(store) as container:
        root, pointer = container.root, container.selection.pointer
        entry, directory = root.tasks["two"], container.directory("two")
        found = {
            "superblock": (8, 4),
            "root index": (pointer.offset, 100),
            "base record": (root.base.offset, root.base.nbytes),
            "directory": (entry.directory.offset, entry.directory.nbytes),
        }
        for stream, ref in directory.sections():
            found[stream] = (entry.first_offset + ref.offset, ref.nbytes)
        own = {ref.hash for ref in directory.files.values()}
        own -= {ref.hash for ref in container.directory("three").files.values()}
        section = root.files[min(own & root.files.keys())].section
        found["file"] = (section.offset, section.nbytes)
    return found


OF_ALL = ("superblock", "root index", "base record")
OF_ONE = ("directory", "segments", "ranks", "signs", "levels", "scales", "bits", "bitmap", "file")


def damage(store, place):
    offset, nbytes = places(store)[place]
    content = bytearray(store.read_bytes())
    content[offset + nbytes // 2] ^= 0x10
    store.write_bytes(content)


def test_every_kind_of_range_is_known(store):
    assert set(places(store)) == {*OF_ALL, *OF_ONE}


@pytest.mark.parametrize("place", OF_ALL)
def test_a_damaged_store_is_refused_as_a_whole(nps, zoo, store, place):
    damage(store, place)
    for arguments in (
        ["ls", store],
        ["eval", store, "two", f"--data={zoo.data('two')}"],
        ["export", store, "three", f"--out={store.parent / 'out'}"],
    ):
        result = nps(*arguments)
        assert (result.code, result.out) == (ChecksumMismatchError.exit_code, "")
        assert f"{store}: " in result.sentence
    assert nps("verify", store).code == 3


@pytest.mark.parametrize("place", OF_ONE)
def test_a_damaged_task_is_refused_and_the_others_go_on(nps, zoo, store, place):
    damage(store, place)
    before = snapshot(store.parent)
    for arguments in (
        ["eval", store, "two", f"--data={zoo.data('two')}"],
        ["export", store, "two", f"--out={store.parent / 'out'}"],
        ["compact", store],
    ):
        result = nps(*arguments)
        assert (result.code, result.out) == (ChecksumMismatchError.exit_code, "")
        assert f"nps: {store}: " in result.sentence
        assert "damaged" in result.sentence
        assert snapshot(store.parent) == before
    found = nps("verify", store, "--json")
    assert (found.code, len(found.document["problems"])) == (3, 1)

    assert nps("eval", store, "three", f"--data={zoo.data('three')}").code == 0
    assert nps("export", store, "three", f"--out={store.parent / 'out'}").code == 0
    assert run(["rm", str(store), "two"]) == 0
    assert nps("verify", store).code == 0 or place == "file"
    assert nps("compact", store).code == 0
    assert nps("verify", store).code == 0


def test_a_damaged_directory_hides_no_other_task(nps, store):
    damage(store, "directory")
    listed = nps("ls", store)
    assert listed.code == ChecksumMismatchError.exit_code
    assert "directory of task 'two'" in listed.sentence
    assert [line.split()[:2] for line in listed.out.splitlines()[1:]] == [
        ["three", "nps"],
        ["two", "damaged"],
    ]
    told = nps("ls", store, "--json")
    assert told.document["damaged"] == ["two"]
    assert [task["name"] for task in told.document["tasks"]] == ["three"]
    assert json.loads(told.err)["error"]["id"] == ChecksumMismatchError.id


def test_a_finding_is_one_line(nps, store):
    damage(store, "levels")
    assert len(nps("verify", store).out.splitlines()) == 1
