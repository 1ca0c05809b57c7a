"""What the doctor finds wrong."""

from __future__ import annotations

import pytest

from nps_store.diagnosis import Severity, look_at_packages, machine


@pytest.mark.parametrize(
    ("requirement", "severity"),
    [
        ("numpy>=1.0", Severity.fine),
        ("numpy>=99", Severity.problem),
        ("no-such-package>=1", Severity.problem),
        ('no-such-package>=1; extra == "server"', Severity.fine),
        ('numpy>=99; extra == "server"', Severity.warning),
    ],
)
def test_packages(requirement, severity):
    own, found = look_at_packages([requirement])
    assert own.what == "nps-store"
    assert found.severity is severity
    assert bool(found.advice) == (severity is not Severity.fine)


def test_development_tools_are_nobodys_concern():
    assert len(list(look_at_packages(['ruff==0; extra == "dev"']))) == 1


def test_a_full_disk_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "LITTLE_DISK", 1 << 60)
    (disk,) = (each for each in machine.look_at_machine(tmp_path) if each.what == "disk here")
    assert disk.severity is Severity.warning
