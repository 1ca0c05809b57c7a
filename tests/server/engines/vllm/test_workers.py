"""Several workers' answers, read as one."""

from __future__ import annotations

import pytest

from nps_store.errors import UnsupportedTaskError
from server.engines.vllm.contents import TaskContent
from server.engines.vllm.workers import states_of
from server.errors import TaskQuarantinedError

TASK = TaskContent("a", "hash")


def reply(state, *, nbytes=0, is_pinned=False, error=None):
    row = {"task": list(TASK), "state": state, "nbytes": nbytes, "is_pinned": is_pinned,
           "error": error}  # fmt: skip
    return {"withdrawn": [], "tasks": [row]}


@pytest.mark.parametrize(
    ("states", "together"),
    [("ready ready", "ready"), ("ready absent", "absent"), ("loading absent", "loading"),
     ("failed loading", "failed")],
)  # fmt: skip
def test_a_task_is_as_far_as_its_last_worker(states, together):
    replies = [reply(each, error=("x", "y") if each == "failed" else None)
               for each in states.split()]  # fmt: skip
    assert states_of(replies)[TASK].state == together


def test_bytes_add_up_and_a_pin_is_everywhere():
    state = states_of([reply("ready", nbytes=3, is_pinned=True), reply("ready", nbytes=4)])[TASK]
    assert (state.nbytes, state.is_pinned) == (7, False)


def test_errors_come_back_as_what_they_were_for_clients():
    unfit = reply("failed", error=(UnsupportedTaskError.id, "task 'a' is too big"))
    assert isinstance(states_of([unfit])[TASK].error, UnsupportedTaskError)
    damaged = states_of([reply("failed", error=("format.damaged", "stored bytes"))])[TASK].error
    assert isinstance(damaged, TaskQuarantinedError)
    assert str(damaged) == "task 'a' cannot be served: stored bytes"
