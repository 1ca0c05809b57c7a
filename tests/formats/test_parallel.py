"""Threads change nothing but the time: results, errors and their order stay those of ``map``."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from formats import Container, parallel
from formats.checksum import hexdigest
from formats.errors import ChecksumMismatchError
from formats.parallel import ordered_map
from tests.formats.stores import build

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True, params=[1, 3])
def threaded(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """By turns of one item and of three."""
    monkeypatch.setattr(parallel, "MIN_COST", 0)
    monkeypatch.setattr(parallel, "COST_A_TURN", request.param)
    monkeypatch.setattr(parallel, "n_cores", lambda: 4)


def later(item: int) -> tuple[int, str]:
    """Takes the longer the earlier it was asked for."""
    time.sleep(0.002 * (10 - item))
    return item, threading.current_thread().name


def test_results_keep_their_order_and_threads_do_the_work() -> None:
    found = list(ordered_map(later, range(10), cost=lambda _: 1))
    assert [item for item, _ in found] == list(range(10))
    assert len({name for _, name in found}) > 1


def test_little_work_needs_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MIN_COST", 11)
    here = threading.current_thread().name
    assert {name for _, name in ordered_map(later, range(10), cost=lambda _: 1)} == {here}


def test_an_error_comes_in_its_turn() -> None:
    def fail_from_four(item: int) -> int:
        if item >= 4:
            raise ValueError(item)
        time.sleep(0.01)
        return item

    results = ordered_map(fail_from_four, range(10), cost=lambda _: 1)
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"^4$"):
        next(results)
    assert not list(results)


@pytest.mark.parametrize("cost", [1, 3, 100])
def test_no_more_is_ahead_than_may_be(monkeypatch: pytest.MonkeyPatch, cost: int) -> None:
    monkeypatch.setattr(parallel, "MAX_COST_AHEAD", 6)
    begun = []
    results = ordered_map(begun.append, range(40), cost=lambda _: cost)
    for n_taken, _ in enumerate(results, 1):
        assert len(begun) < n_taken + max(6 // cost, 1) + 3
    assert sorted(begun) == list(range(40))


def test_whoever_stops_early_leaves_no_thread_behind() -> None:
    results = ordered_map(later, range(10), cost=lambda _: 1)
    assert next(results)[0] == 0
    results.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("nps-read")]


def test_a_section_is_verified_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from formats import sections

    verified = []

    def counted(stored: bytes) -> str:
        verified.append(len(stored))
        time.sleep(0.005)
        return hexdigest(stored)

    with Container.open(build(tmp_path / "a.nps", "one")) as store:
        reader = store.task_reader("one")
        monkeypatch.setattr(sections, "hexdigest", counted)
        records = list(ordered_map(reader.record, [*reader] * 8, cost=lambda _: 1))
    assert len(verified) == len(list(reader.directory.sections()))
    first, second = (
        [r.positions for r in part if hasattr(r, "positions")]
        for part in (records[: len(reader)], records[-len(reader) :])
    )
    assert first
    assert all(map(np.array_equal, first, second))


def test_damage_is_found_by_whichever_thread(tmp_path: Path) -> None:
    path = build(tmp_path / "a.nps", "one")
    with Container.open(path) as store:
        entry = store.root.tasks["one"]
        _, section = next(store.directory("one").sections())
    data = bytearray(path.read_bytes())
    data[entry.first_offset + section.offset] ^= 1
    path.write_bytes(data)
    with Container.open(path) as store:
        reader = store.task_reader("one")
        with pytest.raises(ChecksumMismatchError, match=r"layer\.weight"):
            list(ordered_map(reader.record, [*reader], cost=lambda _: 1))
