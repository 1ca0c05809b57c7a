from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from formats import Container, ContainerWriter, compact, verify
from tests.formats.stores import add_task, build, expected_tensors, snapshot

if TYPE_CHECKING:
    from pathlib import Path


def _churn(path: Path, rounds: int, done: threading.Event) -> None:
    try:
        for seed in range(rounds):
            with ContainerWriter.open(path) as writer:
                if seed:
                    writer.remove_task(f"task {seed - 1}")
                add_task(writer, f"task {seed}", seed)
                writer.commit()
            if seed % 5 == 4:
                compact(path)
    finally:
        done.set()


def test_readers_see_whole_generations_during_changes_and_compaction(tmp_path: Path) -> None:
    path = build(tmp_path / "a.nps")
    rounds, done = 40, threading.Event()
    writer = threading.Thread(target=_churn, args=(path, rounds, done))
    with Container.open(path) as first:
        writer.start()
        newest, seen = 0, 0
        while not done.is_set():
            content = snapshot(path)["tasks"]
            assert len(content) <= 1
            for name, (tensors, *_) in content.items():
                seed = int(name.split()[1])
                assert tensors == expected_tensors(seed)
                seen = max(seen, seed)
            generation = first.newest_generation()
            assert generation >= newest
            newest = generation
        writer.join()
        assert first.root.tasks == {}
        assert first.newest_generation() == 1 + rounds + rounds // 5
    assert list(snapshot(path)["tasks"]) == [f"task {rounds - 1}"]
    assert verify(path, "decode") == []
