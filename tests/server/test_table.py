"""The table of resident tasks over the toy engine, on an event loop of the test's own."""

from __future__ import annotations

import asyncio
import gc
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from formats.errors import ChecksumMismatchError
from nps_store.errors import UnsupportedTaskError
from server.errors import (
    EngineFailedError,
    ModelNotFoundError,
    NotReadyError,
    ResidencyConflictError,
    TaskQuarantinedError,
)
from server.metrics import Metrics
from server.residency import loader
from server.residency.budget import Budget
from server.residency.resident import State
from server.residency.table import ResidencyTable
from tests.server.toy import ToyEngine, ToyTask

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def run(
    engine: ToyEngine,
    scenario: Callable[[ResidencyTable], Awaitable[None]],
    *,
    nbytes: int = 10_000,
    copies: bool = False,
    wait_s: float = 5.0,
) -> Metrics:
    metrics = Metrics(engine="toy")

    async def main() -> None:
        with ThreadPoolExecutor(2) as executor:
            table = ResidencyTable(
                engine,
                catalog=engine.open(),
                budget=Budget(nbytes, copies=copies, wait_s=wait_s),
                executor=executor,
                metrics=metrics,
            )
            try:
                await touch(table, None)
                await scenario(table)
            finally:
                await table.close()

    asyncio.run(main())
    return metrics


async def touch(table: ResidencyTable, task: str | None) -> str:
    async with table.lease(task) as resident:
        return resident.content_hash


def versions(table: ResidencyTable) -> list[str]:
    return sorted(resident.content_hash for resident in table if resident.task is not None)


def sample(metrics: Metrics, name: str) -> float:
    return metrics.registry.get_sample_value(name) or 0.0


def test_many_requests_make_one_load(toy):
    async def scenario(table):
        assert table.state("section") is State.ABSENT
        toy.load_gate.clear()
        waiting = [asyncio.create_task(touch(table, "section")) for _ in range(20)]
        await asyncio.sleep(0.02)
        assert table.state("section") is State.LOADING
        waiting[0].cancel()  # a client that goes ends no load
        toy.load_gate.set()
        await asyncio.gather(*waiting[1:])
        assert table.state("section") is State.READY

    metrics = run(toy, scenario)
    assert toy.prepared == [None, "section"]
    assert sample(metrics, "nps_weight_cache_misses_total") == 21


def test_the_least_recently_used_idle_task_leaves(toy):
    async def scenario(table):
        await touch(table, "section")
        await touch(table, "role")
        await touch(table, "section")
        await touch(table, "plain")  # 3 x 100 bytes in 250
        states = {name: str(table.state(name)) for name in ("section", "role", "plain")}
        assert states == {"section": "ready", "role": "absent", "plain": "ready"}
        assert table.used_nbytes == 200

    metrics = run(toy, scenario, nbytes=250)
    assert sample(metrics, "nps_weight_cache_evictions_total") == 1
    assert sample(metrics, "nps_weight_cache_bytes") == 200


def test_pinned_and_leased_tasks_stay_and_loads_wait_for_room(toy):
    async def scenario(table):
        await table.pin("section")
        async with table.lease("role"):
            waiting = asyncio.create_task(touch(table, "plain"))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            assert table.state("role") is State.READY
        await waiting
        assert table.state("role") is State.ABSENT
        assert table.state("section") is State.READY
        with pytest.raises(ResidencyConflictError, match="unpin it first"):
            table.evict("section")
        table.unpin("section")
        table.evict("section")
        assert table.state("section") is State.ABSENT

    run(toy, scenario, nbytes=200)


def test_a_load_does_not_wait_for_ever(toy):
    async def scenario(table):
        await touch(table, "role")  # now its need is known
        async with table.lease("section"):
            with pytest.raises(NotReadyError, match="no room to load task 'role'"):
                await touch(table, "role")
        await touch(table, "role")

    run(toy, scenario, nbytes=150, wait_s=0.05)


def test_pins_may_not_exceed_the_budget(toy):
    toy.put(ToyTask("role", "role@1", 2.0, ("x",), nbytes=200))

    async def scenario(table):
        await table.pin("section")
        with pytest.raises(ResidencyConflictError, match="pinned tasks to 300 bytes"):
            await table.pin("role")
        assert not table.is_pinned("role")

    run(toy, scenario, nbytes=250, wait_s=0.05)


def test_a_task_larger_than_the_budget_is_refused_by_name(toy):
    async def scenario(table):
        for _ in range(2):
            with pytest.raises(ResidencyConflictError, match="task 'section' needs 100 bytes"):
                await touch(table, "section")
        assert table.used_nbytes == 0

    run(toy, scenario, nbytes=50)


def test_copies_are_made_where_a_whole_one_fits_and_patches_elsewhere(toy):
    async def scenario(table):
        for name in ("section", "role", "plain"):
            await touch(table, name)
        forms = {r.task: (r.is_copy, r.nbytes) for r in table if r.task}
        assert forms == {"section": (True, 1000), "role": (True, 1000), "plain": (False, 100)}

    run(toy, scenario, nbytes=2500, copies=True)


def test_what_cannot_share_the_body_gets_a_copy_where_copies_are_wanted(toy):
    toy.needs_copy = "role"

    async def scenario(table):
        await touch(table, "section")
        await touch(table, "role")  # somebody has to leave for it
        assert table.state("section") is State.ABSENT
        assert {r.task: r.is_copy for r in table if r.task} == {"role": True}

    async def refused(table):
        with pytest.raises(UnsupportedTaskError, match="needs a copy"):
            await touch(table, "role")

    run(toy, scenario, nbytes=1000, copies=True)
    run(toy, refused, copies=False)


def test_a_replaced_task_drains_while_new_requests_get_the_new_version(toy):
    async def scenario(table):
        async with table.lease("section") as old:
            toy.put(ToyTask("section", "section@2", 9.0, ("x", "y")))
            table.sync(toy.catalog())
            assert old.state is State.DRAINING
            assert await touch(table, "section") == "section@2"
            assert old.prepared.content_hash == "section@1"
            assert versions(table) == ["section@1", "section@2"]
        assert old.state is State.ABSENT
        assert versions(table) == ["section@2"]

    run(toy, scenario)


def test_a_task_replaced_while_it_loads_is_loaded_again(toy):
    async def scenario(table):
        toy.load_gate.clear()
        waiting = asyncio.create_task(touch(table, "section"))
        await asyncio.sleep(0.02)
        toy.put(ToyTask("section", "section@2", 9.0, ("x",)))
        table.sync(toy.catalog())
        toy.load_gate.set()
        assert await waiting == "section@2"

    run(toy, scenario)


def test_a_removed_task_is_unknown_at_once(toy):
    async def scenario(table):
        async with table.lease("role"):
            toy.remove("role")
            table.sync(toy.catalog())
            with pytest.raises(ModelNotFoundError, match="'role' does not exist"):
                await touch(table, "role")
        assert versions(table) == []

    run(toy, scenario)


def test_a_recipe_of_several_heads_tells_how_to_ask_for_them(toy):
    for name in ("all@role", "all@section"):
        toy.put(ToyTask(name, f"{name}1", 9.0, ("x",)))

    async def scenario(table):
        table.sync(toy.catalog())
        with pytest.raises(ModelNotFoundError, match="ask for all@role or all@section"):
            table.resolve("all")
        assert table.resolve("all@role") == "all@role"

    run(toy, scenario)


def test_damage_is_quarantined_until_the_store_changes(toy):
    toy.prepare_errors["role"] = ChecksumMismatchError("section 3 is damaged")

    async def scenario(table):
        for _ in range(3):
            with pytest.raises(TaskQuarantinedError, match="section 3 is damaged"):
                await touch(table, "role")
        assert table.state("role") is State.FAILED
        assert await touch(table, "section") == "section@1"
        table.sync(toy.catalog())
        with pytest.raises(TaskQuarantinedError):
            await touch(table, "role")  # looked at again: still damaged
        toy.prepare_errors.clear()
        with pytest.raises(TaskQuarantinedError):
            await touch(table, "role")  # not looked at without a new generation
        table.sync(toy.catalog())
        assert await touch(table, "role") == "role@1"

    metrics = run(toy, scenario)
    assert toy.prepared.count("role") == 3
    assert sample(metrics, "nps_checksum_failures_total") == 2


def test_an_operator_can_end_a_quarantine(toy):
    toy.prepare_errors["role"] = ChecksumMismatchError("damaged")

    async def scenario(table):
        with pytest.raises(TaskQuarantinedError):
            await touch(table, "role")
        toy.prepare_errors.clear()
        await table.reload("role")
        assert table.state("role") is State.READY

    run(toy, scenario)


def test_what_the_engine_cannot_serve_is_refused_as_such(toy):
    error = toy.prepare_errors["role"] = UnsupportedTaskError("role unties a tied base")

    async def scenario(table):
        n_frames = []
        for _ in range(3):
            with pytest.raises(UnsupportedTaskError, match="unties"):
                await touch(table, "role")
            n_frames.append(len(list(traceback.walk_tb(error.__traceback__))))
        assert len(set(n_frames)) == 1  # the kept error does not grow with every request

    run(toy, scenario)


def test_a_kept_error_keeps_nothing_of_the_load_alive(toy, monkeypatch):
    monkeypatch.setattr(loader.logger, "disabled", True)  # pytest keeps what is logged

    class Held:
        pass

    gone = weakref.ref(held := Held())

    def prepare(task, *, copy=False):
        buffer = [held]
        try:
            return buffer[1]
        except IndexError as cause:
            raise ChecksumMismatchError("damaged") from cause

    toy_prepare = toy.prepare
    toy.prepare = lambda task, **more: (prepare if task == "role" else toy_prepare)(task, **more)

    async def scenario(table):
        nonlocal held
        with pytest.raises(TaskQuarantinedError):
            await touch(table, "role")
        held = None
        gc.collect()
        assert table.state("role") is State.FAILED
        assert gone() is None

    run(toy, scenario)


def test_a_passing_failure_is_tried_again(toy):
    toy.prepare_errors["role"] = OSError("the disk was away")

    async def scenario(table):
        with pytest.raises(EngineFailedError, match="the disk was away"):
            await touch(table, "role")
        toy.prepare_errors.clear()
        assert await touch(table, "role") == "role@1"

    run(toy, scenario)


def test_a_pinned_task_follows_its_replacement(toy):
    async def scenario(table):
        await table.pin("role")
        toy.put(ToyTask("role", "role@2", 5.0, ("x",)))
        table.sync(toy.catalog())
        while table.state("role") is not State.READY:
            await asyncio.sleep(0.005)
        assert versions(table) == ["role@2"]
        toy.remove("role")
        table.sync(toy.catalog())
        assert not table.is_pinned("role")

    run(toy, scenario)


def test_default_budget_is_the_bases_size_without_copies():
    assert Budget.of(None, base_nbytes=1 << 30, wait_s=1) == Budget(1 << 30, copies=False, wait_s=1)
    assert Budget.of(None, base_nbytes=10, wait_s=1).nbytes == 256 << 20
    assert Budget.of(5, base_nbytes=10, wait_s=1) == Budget(5, copies=True, wait_s=1)
