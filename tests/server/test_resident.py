from __future__ import annotations

import itertools

import pytest

from server.residency.resident import Resident, State
from tests.server.toy import ToyTask

ALLOWED = {
    ("absent", "loading"),
    ("loading", "ready"),
    ("loading", "failed"),
    ("loading", "absent"),
    ("ready", "draining"),
    ("ready", "failed"),
    ("draining", "absent"),
    ("failed", "absent"),
}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(State, State)))
def test_only_the_documented_transitions_exist(before, after):
    resident = Resident("a", "hash", state=before)
    if (before, after) in ALLOWED:
        resident.move(after)
        assert resident.state is after
    else:
        with pytest.raises(RuntimeError, match=f"from {before} to {after}"):
            resident.move(after)


def ready(*, n_leases: int) -> Resident:
    resident = Resident("a", "hash", state=State.LOADING, n_leases=n_leases)
    resident.become_ready(ToyTask("a", "hash", 1.0, nbytes=7))
    return resident


def test_memory_goes_with_the_last_lease():
    resident = ready(n_leases=1)
    resident.retire()
    assert resident.prepared.nbytes == resident.nbytes == 7
    resident.n_leases = 0
    resident.drop_if_idle()
    assert (resident.state, resident.nbytes) == (State.ABSENT, 0)
    with pytest.raises(RuntimeError, match="not loaded"):
        _ = resident.prepared


def test_a_failed_version_keeps_its_reason_and_no_memory():
    resident = ready(n_leases=0)
    resident.fail(ValueError("bad bytes"))
    assert (resident.state, resident.nbytes) == (State.FAILED, 0)
    assert str(resident.error) == "bad bytes"
