from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
from pydantic import ValidationError

from server.logs import JsonFormatter
from server.settings import Settings


def test_every_setting_is_documented():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_settings_come_from_the_environment_and_arguments_go_first(monkeypatch):
    monkeypatch.setenv("NPS_QUANTUM_S", "0.2")
    monkeypatch.setenv("NPS_ADMIN_KEY", "secret")
    settings = Settings(max_inputs=3)
    assert (settings.quantum_s, settings.max_inputs) == (0.2, 3)
    assert "secret" not in repr(settings)
    assert Settings(quantum_s=0.1).quantum_s == 0.1


@pytest.mark.parametrize("name", sorted(set(Settings.model_fields) - {"api_key", "admin_key"}))
def test_numbers_must_be_positive(name):
    with pytest.raises(ValidationError, match=name):
        Settings(**{name: 0})


@pytest.mark.parametrize("name", ["api_key", "admin_key"])
def test_an_empty_key_is_no_key_but_a_mistake(name):
    with pytest.raises(ValidationError, match=name):
        Settings(**{name: ""})


def test_a_log_line_is_one_json_object():
    record = logging.makeLogRecord(
        {"name": "server.request", "levelname": "INFO", "msg": "two\nlines %d", "args": (3,)}
    )
    record.task = "role"
    line = JsonFormatter().format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["message"], parsed["task"], parsed["level"]) == ("two\nlines 3", "role", "info")


def test_listing_the_verb_imports_nothing_heavy():
    code = "import sys, server.cli; print([m for m in ('torch', 'fastapi') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
