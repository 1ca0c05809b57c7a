"""A fine-tune's model on its calibration data: the objective of the search, and measuring."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from nps_store.calibration import Examples, Losses, Quality, Row, Runner, gain_kept, split_rows
from nps_store.calibration.augment import augment
from nps_store.calibration.lessons import Lessons
from nps_store.calibration.quality import gain_lost, gain_surely_kept
from nps_store.compress.learner import LiveLearner, Place
from nps_store.errors import CalibrationError
from nps_store.modeling import Body, Shell
from nps_store.modeling.live import bind
from nps_store.modeling.shell import Pooling, load_tokenizer
from nps_store.sources import GrownBase
from nps_store.switch import AddAt, Replace, apply_, revert_

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torch import Tensor, nn

    from nps_store.calibration.losses import Float64
    from nps_store.compress.fine_tune import FineTune
    from nps_store.compress.options import Measure, Options
    from nps_store.search import Selection
    from nps_store.store import Change, Store

SPLIT = (0.7, 0.15, 0.15)
"""Shares of the calibration rows for the search, the check of the target, and the measurement."""
N_LESSON_TEXTS = 4096
"""Texts to learn the selection from: the search's own and variations of them."""


@dataclass(frozen=True)
class Part:
    """One part of the data with the losses that frame the quality."""

    runner: Runner
    dense: Losses
    base: Losses

    def gain(self, measure: Measure) -> float:
        """What the fine-tune gains over the base."""
        return float(self.base.of(measure).mean() - self.dense.of(measure).mean())


class Calibration:
    """The live model of one fine-tune on its calibration rows.

    Implements the search's `Objective`: candidates are applied to the live body and reverted by the
    same functions that serving uses.

    Attributes:
        measure: What the quality is measured in: a language model's loss, to which every token of
            its text contributes; else the divergence from the dense fine-tune's outputs. (The
            loss of a hundred labelled examples is uncertain by several percent of the gain, their
            divergence by one.)
        lacks_gain: Whether there are labels by which the base is no worse than the fine-tune.
        n_truncated: Texts that were longer than the model's limit.
    """

    def __init__(self, fine_tune: FineTune, rows: list[Row], options: Options) -> None:
        """Load the base's body, run base and dense fine-tune once on all rows.

        Raises:
            CalibrationError: Too few rows, labels that the head lacks, or an objective by which the
                base is as good as the fine-tune.
            UnsupportedTaskError: The model can be stored, but not run here.
        """
        if len(rows) < 2:
            raise CalibrationError(
                f"task {fine_tune.name!r}: {len(rows)} calibration examples; expected at least 2, "
                "one to search on and one to check with"
            )
        self._fine_tune = fine_tune
        self._options = options
        self._shell = self._build()
        self._tokenizer = tokenizer = load_tokenizer(fine_tune.checkpoint.path)
        self._lessons: Lessons | None = None
        parts = split_rows(rows, SPLIT, seed=options.seed)
        self.n_truncated = 0
        runners: list[Runner] = []
        for part in parts:
            # With very few rows a part may be empty; the search's rows then serve for it too.
            examples = Examples.of(
                part or parts[0] or rows, self._shell, tokenizer, where=f"task {fine_tune.name!r}"
            )
            self.n_truncated += examples.n_truncated
            if not runners:
                self._ids = examples.ids
            runners.append(Runner(self._shell, tokenizer, examples))
        dense = self._with(fine_tune.dense_changes(), _own_values, runners, refer=True)
        base = [runner() for runner in runners]
        self._search, self._checked, self._measured = (
            Part(*part) for part in zip(runners, dense, base, strict=True)
        )
        has_labels = all(losses.loss is not None for losses in base)
        self.lacks_gain = has_labels and not all(
            part.gain("loss") > 0 for part in (self._checked, self._measured)
        )
        by_loss = self._shell.kind == "generate" and not self.lacks_gain
        self.measure: Measure = "loss" if by_loss else "distill"
        if any(getattr(losses, options.objective) is None for losses in base):
            raise CalibrationError(
                f"task {fine_tune.name!r}: objective {options.objective!r} needs a label on every "
                "calibration row; use distill"
            )
        self._search_losses = self._losses(self._search)
        if self._search.gain(options.objective) <= 0:
            dense_loss, base_loss = (float(losses.mean()) for losses in self._search_losses)
            raise CalibrationError(
                f"task {fine_tune.name!r}: on the calibration data, objective "
                f"{options.objective!r} is {base_loss:.4g} for the base and {dense_loss:.4g} for "
                "the fine-tune, so it cannot tell a good selection from a bad one; give other "
                "data or another --objective"
            )

    @property
    def module(self) -> nn.Module:
        """The live body."""
        return self._shell.body.module

    def loss(self, selection: Selection) -> float:
        """Share of the gain lost on the search rows, in the objective's own measure."""
        (losses,) = self._try(selection, [self._search.runner])
        return gain_lost(losses.of(self._options.objective), *self._search_losses)

    def check(self, selection: Selection) -> float:
        """Share of the gain kept on the rows set aside to check the target, less its error."""
        (losses,) = self._try(selection, [self._checked.runner])
        three = (losses, self._checked.dense, self._checked.base)
        return gain_surely_kept(*(each.of(self.measure) for each in three))

    def quality_of(self, selection: Selection) -> Quality:
        """Quality on the same rows, with its interval."""
        (losses,) = self._try(selection, [self._checked.runner])
        return self._quality(losses, self._checked)

    def measure_stored(self, store: Store) -> Quality:
        """Quality of the task as a store holds it, on rows that neither search nor check saw."""
        name = self._fine_tune.name
        directory = store.task(name).directory
        changes = chain(store.changes(name), store.unchanged(name, self._shell.head))
        resolve = partial(store.resolve, directory=directory)
        (losses,) = self._with(changes, resolve, [self._measured.runner])
        return self._quality(losses, self._measured)

    @contextmanager
    def learner(self, positions: Mapping[str, Tensor]) -> Iterator[LiveLearner]:
        """The model's gradient at positions of base tensors, on the search rows and variations of
        them."""
        device = self._shell.body.device
        places = [Place(self._live(name), at.to(device)) for name, at in positions.items()]
        if self._lessons is None:
            changes = self._fine_tune.dense_changes()
            with self._in_place(changes, _own_values):
                self._lessons = self._teach()
        learner = LiveLearner(self._lessons, places)
        with learner.watching(self._shell.body.module):
            yield learner

    def _teach(self) -> Lessons:
        """Lessons under the weights in place."""
        ids, seed = self._ids, self._options.seed
        if self._shell.kind != "generate":
            n_more = max(N_LESSON_TEXTS - len(ids), 0)
            special = self._tokenizer.all_special_ids
            longest = max(map(len, ids))
            more = augment(ids, count=n_more, special=special, longest=longest, seed=seed)
            ids = [*ids, *more]
        return Lessons(self._shell, self._tokenizer, ids, seed=seed)

    def _build(self) -> Shell:
        fine_tune, config = self._fine_tune, self._fine_tune.checkpoint.config
        rows = fine_tune.rows()
        source = GrownBase(fine_tune.base, rows, config) if rows else fine_tune.base
        dtype = self._options.torch_dtype
        body = Body(source, device=self._options.device, dtype=dtype)
        files = fine_tune.checkpoint.files()
        read = lambda name: files[name].read_bytes() if name in files else None  # noqa: E731
        shell = Shell(config, body, pooling=Pooling.from_files(read))
        self._task_names = {base_name: name for name, base_name in fine_tune.pairs}
        base_names = {name: base_name for base_name, name in self._task_names.items()}
        own = {name: fine_tune.tensor(name) for name in fine_tune.alignment.new}
        from_base = {
            name: fine_tune.base_tensor(base_names[name])
            for name in shell.head
            if name in base_names
        }
        shell.load_head_({**own, **from_base})
        # What the base's body lacks (a pooler) is no part of the task vector: like the head, it is
        # the task's own in all that is compared.
        for name, tensor in own.items():
            live = shell.body_tensor(name)
            if live is not None:
                live.copy_(tensor)
        return shell

    def _live(self, base_name: str) -> Tensor | None:
        """The live tensor; None for a tied tensor's second name, under which nothing is added."""
        name = self._task_names[base_name]
        if name in self._shell.tied:
            return None
        live = self._shell.body_tensor(name)
        return self._shell.head[name] if live is None else live

    def _quality(self, losses: Losses, part: Part) -> Quality:
        return gain_kept(
            losses,
            dense=part.dense,
            base=part.base,
            measure=self.measure,
            seed=self._options.seed,
        )

    def _losses(self, part: Part) -> tuple[Float64, Float64]:
        measure = self._options.objective
        return part.dense.of(measure), part.base.of(measure)

    def _try(self, selection: Selection, runners: list[Runner]) -> list[Losses]:
        device = self._shell.body.device
        changes = [
            (live, AddAt(positions.to(device), selection.values_in(span).to(device)))
            for base_name, span, positions in selection.tensors()
            if (live := self._live(base_name)) is not None
        ]
        log = apply_(changes)
        try:
            return [runner() for runner in runners]
        finally:
            revert_(log)

    def _with(
        self,
        changes: Iterable[Change],
        resolve: Callable[[Change], Tensor],
        runners: list[Runner],
        *,
        refer: bool = False,
    ) -> list[Losses]:
        """Losses with a task's own tensors in place, its head included; with `refer`, those are
        the dense fine-tune's."""
        with self._in_place(changes, resolve):
            for runner in runners if refer else ():
                runner.refer_()
            return [runner() for runner in runners]

    @contextmanager
    def _in_place(
        self, changes: Iterable[Change], resolve: Callable[[Change], Tensor]
    ) -> Iterator[None]:
        head = {name: tensor.clone() for name, tensor in self._shell.head.items()}
        pairs = bind(self._shell, changes, resolve)
        log = apply_((tensor, patch.to(tensor.device)) for tensor, patch in pairs)
        try:
            yield
        finally:
            revert_(log)
            self._shell.load_head_(head)


def _own_values(change: Change) -> Tensor:
    if not isinstance(change.patch, Replace):
        raise TypeError(f"tensor {change.name!r} of a dense fine-tune must be whole")
    return change.patch.values
