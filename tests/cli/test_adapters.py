"""An adapter from the command line: every verb treats it as the task that it is."""

from __future__ import annotations

import pytest

from tests.cli.conftest import snapshot
from tests.nps_store.adapters.written import lora, write


@pytest.fixture
def adapter(tmp_path):
    return write(tmp_path / "lora", *lora())


def test_every_verb_knows_it(nps, store, zoo, adapter, tmp_path):
    added = nps("add", store, f"--task=lora={adapter}", "--json")
    assert added.code == 0, added.err
    listed = {task["name"]: task for task in nps("ls", store, "--json").document["tasks"]}
    assert listed["lora"]["method"] == "lora"
    shown = nps("inspect", store, "lora", "--json").document
    assert any(kind.startswith("factors/") for kind in str(shown).split("'"))
    assert nps("verify", store, "--level=base", f"--base={zoo.base}", "--json").document["ok"]
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(
        f'{{"text": "{text}", "label": "LABEL_{n % 3}"}}\n'
        for n, text in enumerate(["a tool", "the game", "a small image", "server"])
    ))  # fmt: skip
    result = nps("eval", store, "lora", f"--data={data}", f"--dense={adapter}", "--json")
    assert result.code == 0, result.err
    told = result.document
    assert (told["agreement"], told["stored"]) == (1.0, told["dense"])
    assert nps("export", store, "lora", f"--out={tmp_path / 'out'}").code == 0
    again = nps("eval", store, "lora", f"--data={data}", f"--dense={tmp_path / 'out'}", "--json")
    assert again.document["agreement"] == 1.0
    merged = nps("merge", store, "--name=m", "--task=two", "--task=lora", "--json").document
    assert merged["tasks"] == ["m@two", "m@lora"]
    assert nps("rm", store, "lora").code == 66
    assert nps("rm", store, "lora", "m").code == 0


def test_what_cannot_be_stored_leaves_the_store_alone(nps, store, tmp_path):
    adapter = write(tmp_path / "dora", *lora(use_dora=True))
    before = snapshot(tmp_path)
    result = nps("add", store, f"--task=x={adapter}")
    assert result.code == 38
    assert "use_dora" in result.sentence
    assert snapshot(tmp_path) == before
