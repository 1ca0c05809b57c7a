"""How large the zoo's language models are, and how they are trained."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.lm_training import Recipe, Size


@dataclass(frozen=True)
class Shift:
    """A strength of fine-tuning.

    Attributes:
        name: Of the strength.
        least: |tau| / |theta| at least,
        most: and at most.
        recipe: How; its learning rate is the first one tried.
    """

    name: str
    least: float
    most: float
    recipe: Recipe


@dataclass(frozen=True)
class Setting:
    """Everything that decides what the zoo is.

    Attributes:
        size: Of the decoder.
        base: Recipe of the base.
        shifts: Strengths of fine-tuning.
        n_rows: Calibration texts of a task, and test texts.
        trials: Learning rates tried, at most.
        n_characters: Of each register to read; 0 is all.
    """

    size: Size
    base: Recipe
    shifts: tuple[Shift, ...]
    n_rows: int = 512
    trials: int = 5
    n_characters: int = 0


FULL = Setting(
    size=Size(),
    base=Recipe(steps=1600, batch_size=128, learning_rate=1e-3, weight_decay=0.1),
    shifts=(
        Shift("light", 0.01, 0.02, Recipe(steps=150, batch_size=64, learning_rate=5e-5)),
        Shift("heavy", 0.10, 0.12, Recipe(steps=500, batch_size=64, learning_rate=4e-4)),
    ),
)
TINY = Setting(
    size=Size(vocab=384, context=64, hidden=64, layers=2, heads=4, kv_heads=2, mlp=128),
    base=Recipe(steps=60, batch_size=16, learning_rate=3e-3, weight_decay=0.1),
    shifts=(
        Shift("light", 0.01, 0.03, Recipe(steps=20, batch_size=8, learning_rate=1e-4)),
        Shift("heavy", 0.08, 0.14, Recipe(steps=40, batch_size=8, learning_rate=1e-3)),
    ),
    n_rows=24,
    n_characters=120_000,
)
