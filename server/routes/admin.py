"""`/admin`: see, pin, evict and reload resident tasks, and look at the store at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from server.protocol.admin import Refreshed, TaskState, TaskStates
from server.residency.resident import Resident, State

if TYPE_CHECKING:
    from server.service import Service


def admin_routes(service: Service) -> APIRouter:
    """The routes of operators; whoever includes them puts a key before them."""
    router = APIRouter(prefix="/admin", tags=["admin"])

    @router.get("/tasks")
    async def list_tasks() -> TaskStates:
        """List every version of every task with its state."""
        return _states(service)

    @router.post("/tasks/{task:path}/pin")
    async def pin(task: str) -> TaskState:
        """Load a task and keep it in memory."""
        name = service.table.resolve(task)
        await service.table.pin(name)
        return _state(service, name)

    @router.post("/tasks/{task:path}/unpin")
    async def unpin(task: str) -> TaskState:
        """Let the memory budget evict a task again."""
        name = service.table.resolve(task)
        service.table.unpin(name)
        return _state(service, name)

    @router.post("/tasks/{task:path}/evict")
    async def evict(task: str) -> TaskState:
        """Drop a task from memory, or lift its quarantine; requests in flight finish first."""
        name = service.table.resolve(task)
        service.table.evict(name)
        return _state(service, name)

    @router.post("/tasks/{task:path}/reload")
    async def reload(task: str) -> TaskState:
        """Read a task from the store again."""
        name = service.table.resolve(task)
        await service.table.reload(name)
        return _state(service, name)

    @router.post("/refresh")
    async def refresh() -> Refreshed:
        """Look for a newer generation of the store now."""
        changed = await service.refresh()
        return Refreshed(changed=changed, generation=service.table.catalog.generation)

    return router


def _states(service: Service) -> TaskStates:
    table = service.table
    present = [_of_resident(service, resident) for resident in table]
    current = {row.task for row in present if row.state != State.DRAINING}
    absent = [
        TaskState(task=name, state=State.ABSENT, content_hash=info.content_hash)
        for name, info in table.catalog.tasks.items()
        if name not in current
    ]
    rows = sorted(present + absent, key=lambda row: (row.task != table.catalog.base, row.task))
    return TaskStates(
        generation=table.catalog.generation,
        memory_budget=table.budget.nbytes,
        memory_used=table.used_nbytes,
        data=rows,
    )


def _state(service: Service, task: str | None) -> TaskState:
    table = service.table
    for resident in table:
        if resident.task == task and resident.state is not State.DRAINING:
            return _of_resident(service, resident)
    info = table.catalog.tasks.get(task) if task is not None else None
    return TaskState(
        task=table.catalog.model_name(task),
        state=State.ABSENT,
        content_hash=info.content_hash if info else None,
    )


def _of_resident(service: Service, resident: Resident) -> TaskState:
    table = service.table
    loaded = resident.state in (State.READY, State.DRAINING)
    return TaskState(
        task=table.catalog.model_name(resident.task),
        state=resident.state,
        content_hash=resident.content_hash or None,
        nbytes=resident.nbytes,
        form=("copy" if resident.is_copy else "patch") if loaded else None,
        pinned=table.is_pinned(resident.task) and resident.state is not State.DRAINING,
        in_flight=resident.n_leases,
        reason=None if resident.error is None else str(resident.error),
    )
