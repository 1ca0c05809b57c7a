"""What belongs to a task besides weights is the base's, or the task is refused."""

from __future__ import annotations

import json

import pytest

from nps_store.compress import Options, TaskSource, compress
from nps_store.errors import UnsupportedTaskError
from nps_store.store import Store
from server.engines.vllm.fit import check_fit
from tests.nps_store.language import make_language
from tests.nps_store.models import edit


def changed(directory, file, **values):
    path = directory / file
    held = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(held | values))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("fit")
    language = make_language(root / "models", "llama")
    edits = {
        "same": lambda d: changed(d, "config.json", transformers_version="0", _name_or_path="x"),
        "context": lambda d: changed(d, "config.json", max_position_embeddings=48),
        "stop": lambda d: changed(d, "generation_config.json", eos_token_id=[0, 7]),
        "template": lambda d: (d / "chat_template.jinja").write_text("{{ messages }}"),
        "tokenizer": lambda d: (d / "tokenizer.json").write_text("{}"),
    }
    sources = []
    for name, make in edits.items():
        directory = edit(language.dense, root / name, lambda tensors: None)
        make(directory)
        sources.append(TaskSource(name, directory))
    compress(language.base, sources, root / "s.nps", options=Options("exact"))
    with Store.open(root / "s.nps") as store:
        yield store


def test_a_task_that_differs_in_nothing_that_counts(store):
    check_fit(store, "same")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("context", "'max_position_embeddings' in config.json"),
        ("stop", "'eos_token_id' in generation_config.json"),
        ("template", "another chat_template.jinja"),
        ("tokenizer", "another tokenizer.json"),
    ],
)
def test_what_differs_is_named(store, name, said):
    with pytest.raises(UnsupportedTaskError, match=f"{name!r} has another .*{said}|{said}"):
        check_fit(store, name)
