"""A fine-tune on its calibration data: the objective of the search, and measuring."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from nps_store.calibration import Examples, Part, Quality, Row, Runner, split_rows
from nps_store.calibration.lessons import Lessons
from nps_store.compress.live_fine_tune import LiveFineTune
from nps_store.errors import CalibrationError
from nps_store.modeling.shell import load_tokenizer
from nps_store.search import RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from nps_store.calibration.learner import LiveLearner
    from nps_store.compress.fine_tune import FineTune
    from nps_store.compress.options import Measure, Options
    from nps_store.search import Selection
    from nps_store.store import Store

SPLIT = (0.7, 0.15, 0.15)
"""Shares of the calibration rows for the search, the check of the target, and the measurement."""


class Calibration:
    """The live model of one fine-tune on the parts of its calibration rows.

    Implements the search's `Objective`.

    Attributes:
        measure: What the quality is measured in: a language model's loss, to which every token of
            its text contributes; else the divergence from the dense fine-tune's outputs. (The
            loss of a hundred labelled examples is uncertain by several percent of the gain, their
            divergence by one.)
        objective: What the search minimises.
        lacks_gain: Whether there are labels by which the base is no worse than the fine-tune.
        may_leak: Whether running text may lie on both sides of the check, since no row has a group.
        n_truncated: Texts that were longer than the model's limit.
    """

    def __init__(
        self,
        fine_tune: FineTune,
        rows: Sequence[Row],
        options: Options,
        *,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        """Load the base's body, run base and dense fine-tune once on all rows.

        Args:
            fine_tune: Whose model.
            rows: Its data; with very few of them, parts share what there is.
            options: How to compress.
            on_step: Called after each step of learning with how many there were at its rate.

        Raises:
            CalibrationError: Labels that the head lacks, or an objective by which the base is as
                good as the fine-tune.
            UnsupportedTaskError: The model can be stored, but not run here.
        """
        self._name = fine_tune.name
        self._options = options
        self._on_step = on_step
        self._live = LiveFineTune(fine_tune, device=options.device, dtype=options.torch_dtype)
        self._tokenizer = load_tokenizer(fine_tune.checkpoint.path)
        self._lessons: Lessons | None = None
        parts = split_rows(rows, SPLIT, seed=options.seed)
        examples = [self._examples(part or parts[0] or rows) for part in parts]
        self._texts = examples[0].ids
        self.n_truncated = sum(each.n_truncated for each in examples)
        framed = self._framed(examples)
        self._search, self._checked, self._measured = framed
        has_labels = all(part.base.loss is not None for part in framed)
        self.lacks_gain = has_labels and not all(part.gain("loss") > 0 for part in framed[1:])
        is_language = self._live.shell.kind == "generate"
        self.may_leak = is_language and all(row.group is None for row in rows)
        by_loss = is_language and not self.lacks_gain
        self.measure: Measure = "loss" if by_loss else "distill"
        self.objective: Measure = options.objective or self.measure
        self._check_objective()

    @property
    def module(self) -> nn.Module:
        """The live body."""
        return self._live.shell.body.module

    def loss(self, selection: Selection) -> float:
        """Share of the gain lost on the search rows, in the objective's own measure."""
        with self._live.kept(selection):
            return self._search.gain_lost(self.objective)

    def check(self, selection: Selection) -> float:
        """Share of the gain kept on the rows set aside to check the target, less its error."""
        with self._live.kept(selection):
            return self._checked.gain_surely_kept(self.measure)

    def quality_of(self, selection: Selection) -> Quality:
        """Quality on the same rows, with its interval."""
        with self._live.kept(selection):
            return self._checked.quality(self.measure, seed=self._options.seed)

    def measure_stored(self, store: Store) -> Quality:
        """Quality of the task as a store holds it, on rows that neither search nor check saw."""
        with self._live.stored(store):
            return self._measured.quality(self.measure, seed=self._options.seed)

    @contextmanager
    def learner(self, positions: Mapping[str, Tensor]) -> Iterator[LiveLearner]:
        """The model's gradient at positions of base tensors, on the search rows and variations of
        them."""
        if self._lessons is None:
            raise ValueError("there are no lessons for a method or a plan that does not learn")
        with self._live.learner(self._lessons, positions, on_step=self._on_step) as learner:
            yield learner

    def _examples(self, rows: Sequence[Row]) -> Examples:
        where = f"task {self._name!r}"
        return Examples.of(rows, self._live.shell, self._tokenizer, where=where)

    def _framed(self, examples: Sequence[Examples]) -> list[Part]:
        runners = [Runner(self._live.shell, self._tokenizer, each) for each in examples]
        with self._live.dense():
            for runner in runners:
                runner.refer_()
            dense = [runner() for runner in runners]
            if self._options.steps and RULES[self._options.method].learnable:
                seed = self._options.seed
                self._lessons = Lessons.varied(
                    self._live.shell, self._tokenizer, self._texts, seed=seed
                )
        base = [runner() for runner in runners]
        return [Part(*part) for part in zip(runners, dense, base, strict=True)]

    def _check_objective(self) -> None:
        objective, part = self.objective, self._search
        if getattr(part.base, objective) is None:
            raise CalibrationError(
                f"task {self._name!r}: objective {objective!r} needs a label on every "
                "calibration row; use distill"
            )
        if part.gain(objective) <= 0:
            dense, base = (float(each.of(objective).mean()) for each in (part.dense, part.base))
            raise CalibrationError(
                f"task {self._name!r}: on the calibration data, objective {objective!r} is "
                f"{base:.4g} for the base and {dense:.4g} for the fine-tune, so it cannot tell a "
                "good selection from a bad one; give other data or another --objective"
            )
