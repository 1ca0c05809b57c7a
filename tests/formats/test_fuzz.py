"""Replays the fuzzing corpus: seeds read soundly, what was found once is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from formats.codecs import compiled
from tests.formats.fuzz.target import execute, without_checksums

CORPUS = sorted((Path(__file__).parent / "fuzz" / "corpus").iterdir())


def test_the_corpus_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MIN_ENTRIES", compiled.MIN_ENTRIES)  # the target changes it
    outcomes: Counter[str] = Counter()
    with without_checksums():
        for path in CORPUS:
            outcome = execute(path.read_bytes())
            outcomes[outcome] += 1
            if path.name.startswith("seed-"):
                assert outcome == "sound", path.name
    print(f"{outcomes.total()} inputs: {dict(outcomes)}")  # noqa: T201
    assert outcomes["sound"] >= 4


def test_small_changes_of_the_corpus() -> None:
    with without_checksums(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "MIN_ENTRIES", compiled.MIN_ENTRIES)
        for path in CORPUS:
            data = bytearray(path.read_bytes())
            for at in range(0, len(data), 1 + len(data) // 40):
                data[at] ^= 1 << at % 8
                execute(bytes(data))
                data[at] ^= 1 << at % 8
