"""Turns: nobody waits longer than a quantum for each of the others."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from server.engines.vllm.time_slices import TimeSlices


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def whole(keys):
    """Turns of a whole quantum."""
    return dict.fromkeys(keys, 1.0)


def steps(n, at_work, *, quantum_s=1.0, step_s=0.25):
    clock = Clock()
    slices = TimeSlices(quantum_s, clock)
    for _ in range(n):
        yield slices.turn(at_work)
        clock.now += step_s


def test_a_task_alone_keeps_its_turn():
    assert list(steps(9, whole("a"))) == ["a"] * 9


def test_nobody_has_work():
    assert TimeSlices(1.0, Clock()).turn({}) is None


def test_turns_go_round():
    assert list(steps(12, whole("ab"))) == [*"aaaabbbbaaaa"]


def test_a_turn_may_be_a_part_of_a_quantum():
    assert list(steps(12, {"a": 1.0, "b": 0.5, "c": 0.1})) == [*"aaaabbcaaaab"]


def test_the_base_is_a_task_like_any():
    assert set(steps(12, whole([None, "a"]))) == {None, "a"}


def test_a_turn_that_cannot_be_used_is_over():
    slices = TimeSlices(1.0, Clock())
    assert slices.turn(whole("ab")) == "a"
    slices.end_turn()
    assert slices.turn(whole("ab")) == "b"
    assert slices.turn(whole("ab")) == "b"


def test_whoever_is_done_leaves_at_once():
    slices = TimeSlices(1.0, Clock())
    assert [slices.turn(whole("ab")), slices.turn(whole("b")), slices.turn(whole("ba"))] == [
        "a",
        "b",
        "b",
    ]


@settings(max_examples=60, deadline=None)
@given(
    work=st.lists(
        st.dictionaries(st.sampled_from("abcd"), st.sampled_from([0.25, 0.6, 1.0])),
        min_size=1,
        max_size=60,
    ),
    step_s=st.sampled_from([0.1, 0.3, 1.5]),
)
def test_the_wait_is_bounded(work, step_s):
    """By a quantum for each of the others and a step; only who has work has a turn."""
    clock, quantum_s = Clock(), 1.0
    slices = TimeSlices(quantum_s, clock)
    waiting_since = {}
    for keys in work:
        turn = slices.turn(keys)
        assert (turn is None) == (not keys)
        assert turn in keys or turn is None
        waiting_since = {k: waiting_since.get(k, clock.now) for k in keys if k != turn}
        for since in waiting_since.values():
            assert clock.now - since <= 3 * max(quantum_s, step_s) + step_s + 1e-9
        clock.now += step_s
