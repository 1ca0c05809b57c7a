"""The commands of `docs/language-models.md` work as they are copied."""

from __future__ import annotations

import json
import re

import pytest
from transformers import AutoModelForCausalLM

from tests.docs.shell import commands, needs_curl, run
from tests.nps_store.language import save, texts
from tests.server.engines.vllm.models import TASKS
from tests.server.engines.vllm.running import environment

pytest.importorskip("vllm", reason="needs vLLM")
NAMES = {"summary": "second", "reply": "fifth"}
"""What the page calls the fine-tunes of the tests."""


@pytest.fixture
def folder(zoo_of, tmp_path):
    """The zoo in bf16, which is what vLLM takes for it by itself."""
    zoo = zoo_of("llama")
    places = {zoo.base: tmp_path / "base"}
    for name, known in NAMES.items():
        places[zoo.root / "tuned" / known] = tmp_path / "finetunes" / name
        lines = [{"text": text} for text in texts(96, shift=TASKS[known], seed=50)]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for source, target in places.items():
        save(AutoModelForCausalLM.from_pretrained(source).bfloat16(), target)
    return tmp_path


@needs_curl
@pytest.mark.slow
def test_language_models(folder, tmp_path_factory):
    variables = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    variables["OMP_NUM_THREADS"] = environment()["OMP_NUM_THREADS"]
    home = tmp_path_factory.mktemp("home")
    out = run(commands("docs/language-models.md"), folder, home, **variables)
    (answer,) = re.findall(r'\{"id":"cmpl.*', out)
    assert '"model":"summary"' in answer
    result = json.loads((folder / "bench-serve.json").read_text())
    for mix in result["runs"]:
        assert mix["n_errors"] == 0
        assert mix["tokens_per_s"] > 0
        assert mix["first_token_milliseconds"]["n"] == mix["n_requests"]
