"""Any sequence of changes leaves what a dictionary would hold."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from formats import Container, ContainerWriter, compact, verify
from tests.formats.stores import add_task, build, contents, expected_tensors

NAMES = st.sampled_from(["one", "two", "three", "ü/../x"])
SEEDS = st.integers(0, 5)


class StoreMachine(RuleBasedStateMachine):
    """A store beside dictionaries of its tasks and recipes, and readers of old generations."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.path = build(Path(self._folder.name) / "a.nps", storage="embedded")
        self.tasks: dict[str, int] = {}
        self.recipes: dict[str, int] = {}
        self.generation = 1
        self.readers: list[tuple[Container, dict[str, Any]]] = []

    def teardown(self) -> None:
        for reader, before in self.readers:
            assert contents(reader) == before
            reader.close()
        self._folder.cleanup()

    @rule(name=NAMES, seed=SEEDS)
    def add_or_replace(self, name: str, seed: int) -> None:
        with ContainerWriter.open(self.path) as writer:
            if name in self.tasks:
                writer.remove_task(name)
            add_task(writer, name, seed)
            writer.commit()
        self.tasks[name] = seed
        self.generation += 1

    @rule(names=st.lists(NAMES, unique=True, max_size=3), seed=SEEDS)
    def add_several_at_once(self, names: list[str], seed: int) -> None:
        new = [name for name in names if name not in self.tasks]
        with ContainerWriter.open(self.path) as writer:
            for name in new:
                add_task(writer, name, seed)
            writer.commit()
        self.tasks |= dict.fromkeys(new, seed)
        self.generation += bool(new)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.tasks)))
        with ContainerWriter.open(self.path) as writer:
            writer.remove_task(name)
            writer.commit()
        del self.tasks[name]
        self.generation += 1

    @rule(name=NAMES, seed=SEEDS)
    def give_up(self, name: str, seed: int) -> None:
        with ContainerWriter.open(self.path) as writer:
            if name not in self.tasks:
                add_task(writer, name, seed)
            writer.set_recipe("never", 1)

    @rule(name=NAMES, value=SEEDS)
    def set_recipe(self, name: str, value: int) -> None:
        with ContainerWriter.open(self.path) as writer:
            writer.set_recipe(name, value)
            writer.commit()
        self.recipes[name] = value
        self.generation += 1

    @rule()
    def compact(self) -> None:
        compact(self.path)
        self.generation += 1
        assert compact(self.path) == 0
        self.generation += 1

    @rule()
    def keep_a_reader(self) -> None:
        reader = Container.open(self.path)
        self.readers.append((reader, contents(reader)))

    @invariant()
    def holds_what_the_dictionaries_hold(self) -> None:
        with Container.open(self.path) as store:
            found = contents(store)
            assert store.generation == self.generation
        assert found["recipes"] == self.recipes
        assert {name: task[0] for name, task in found["tasks"].items()} == {
            name: expected_tensors(seed) for name, seed in self.tasks.items()
        }
        for reader, _ in self.readers:
            assert reader.newest_generation() == self.generation

    @invariant()
    def is_sound(self) -> None:
        assert verify(self.path, "decode") == []


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
