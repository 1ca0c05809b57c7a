"""`nps doctor` and `nps selftest`: what they print, and the code they end with."""

from __future__ import annotations

import pytest
import torch

from nps_store.diagnosis import Severity
from nps_store.diagnosis.finding import Finding
from nps_store.selftest import decoding


def test_doctor(nps):
    document = nps("doctor", "--json").document
    found = {finding["what"]: finding["value"] for finding in document["findings"]}
    assert found["torch"] == torch.__version__
    assert "memory" in nps("doctor").out


@pytest.mark.parametrize(
    ("severity", "code"), [(Severity.fine, 0), (Severity.warning, 4), (Severity.problem, 3)]
)
def test_exit_code_is_the_worst_severity(nps, monkeypatch, severity, code):
    made = [Finding("a", "fine"), Finding("b", "so", None, severity, "do that")]
    monkeypatch.setattr("nps_store.diagnosis.look_at_machine", lambda: made)
    monkeypatch.setattr("nps_store.diagnosis.look_at_packages", list)
    result = nps("doctor", "--json")
    assert result.code == code
    assert result.document["severity"] == severity.name
    assert result.document["findings"][1]["advice"] == "do that"


def test_a_wrong_answer_is_told(nps, monkeypatch):
    monkeypatch.setitem(decoding.WEIGHTS, "mixed", "0" * 32)
    result = nps("selftest", "--json")
    wrong = [check for check in result.document["checks"] if check["passed"] is False]
    assert result.code == 3
    assert result.document["ok"] is False
    assert [check["check"] for check in wrong] == ["weights of its tasks"]
    assert "task 'mixed'" in wrong[0]["seen"]
