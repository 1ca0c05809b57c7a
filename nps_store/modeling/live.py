"""The resident base and the tasks that are put into it, one at a time."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from formats.codecs import compiled
from formats.errors import located
from nps_store.checkpoint import DTYPES
from nps_store.errors import UnsupportedTaskError
from nps_store.modeling.body import Body
from nps_store.modeling.shell import Kind, Pooling, Shell, encode, load_tokenizer, pad
from nps_store.modeling.ties import Ties
from nps_store.switch import Patch, ResidentTask, Targets, apply_, warm_up
from nps_store.switch.in_place import InPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from nps_store.contents import Change
    from nps_store.store import Store
    from nps_store.task import Task


_WORTH_COMPILING = 1 << 22
"""Elements of a body: at .5 % kept of fewer, a switch by torch takes a millisecond."""


@dataclass(frozen=True, eq=False)
class PreparedTask:
    """A task decoded and ready to be switched to.

    Attributes:
        name: The task, or None for the base.
        content_hash: Of the stored task; empty for the base.
        shell: Its model class, head and labels.
        tokenizer: Its tokenizer.
        changes: To live tensors of the body; empty for the base and for copies.
        own_body: Whether the shell runs on a body of its own, so that no switch is needed.
        nbytes: Resident bytes.
    """

    name: str | None
    content_hash: str
    shell: Shell
    tokenizer: PreTrainedTokenizerBase
    changes: ResidentTask = field(repr=False)
    own_body: bool
    nbytes: int

    @property
    def kind(self) -> Kind:
        """ "classify", "embed" or "generate"."""
        return self.shell.kind

    @property
    def labels(self) -> list[str]:
        """Label of each class; empty but for classifiers."""
        return self.shell.labels

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut to the model's limit."""
        return encode(self.shell, self.tokenizer, texts)[0]


class LiveBase:
    """One body on one device; tasks are applied to it and reverted.

    `prepare` touches no live weight and may run on another thread. `switch_` and `run` wait for
    each other: a run never sees half a switch, but is refused where another switched before it.
    """

    def __init__(self, store: Store, body: Body) -> None:
        self.store = store
        self.body = body
        self._pristine = body.hash()
        self._targets = Targets(body.parameters.values())
        self._in_place: InPlace[PreparedTask] = InPlace(body.device)
        self._tokenizers: WeakValueDictionary[frozenset[object], PreTrainedTokenizerBase] = (
            WeakValueDictionary()
        )

    @classmethod
    def load(
        cls, store: Store, *, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> LiveBase:
        """Load the store's base onto a device, in its stored dtype or another.

        Raises:
            ModelLoadError: The base's files do not make a model.
        """
        return cls(store, Body(store.base, device=device, dtype=dtype))

    def warm_up(self) -> None:
        """Load what a first switch would wait for, which takes seconds on a new machine; nothing
        for bodies so small that it would never be used."""
        if sum(tensor.numel() for tensor in self.body.parameters.values()) >= _WORTH_COMPILING:
            compiled.warm_up()
            warm_up(self._targets)

    @property
    def current(self) -> str | None:
        """The task whose weights are in place; None for the base."""
        current = self._in_place.current
        return None if current is None else current.name

    def prepare(self, name: str | None, *, copy: bool = False) -> PreparedTask:
        """Read, verify and decode a task; no live weight is touched.

        Args:
            name: The task, or None for the base itself.
            copy: Put the task into a body of its own instead.

        Raises:
            TaskNotFoundError: There is no such task.
            FormatError: The stored task is damaged.
            UnsupportedTaskError: It cannot run on this body (says why).
        """
        if name is None:
            return self._prepare_base()
        task = self.store.task(name)
        if DTYPES[task.dtype] != self.body.dtype:
            raise UnsupportedTaskError(
                f"task {name!r} was compressed for {task.dtype}, the engine runs "
                f"{str(self.body.dtype).removeprefix('torch.')}; compress it with --dtype"
            )
        changes = self.store.changes_at_once(name)
        ties = self._ties(task, changes)
        changes = [change for change in changes if change.name not in ties.second]
        grown = {change.base: change.rows for change in changes if change.rows is not None}
        if grown and not copy:
            raise UnsupportedTaskError(
                f"task {name!r} has a grown vocabulary, which does not fit the shared body; "
                "it needs a copy of its own (a larger --memory-budget)"
            )
        body = self._own_body(ties.config, changes) if copy else self.body
        with located(where=f"task {name!r}"):
            shell = Shell(ties.config, body, pooling=Pooling.from_files(task.files.read))
            bound = bind(
                shell,
                [*changes, *self.store.unchanged(name, shell.head)],
                lambda change: self.store.resolve(change, task.directory),
            )
            resident = ResidentTask.of(self._targets, () if copy else bound)
            if copy:
                apply_((tensor, patch.to(body.device)) for tensor, patch in bound)
                held = sum(tensor.nbytes for tensor in body.parameters.values())
            else:
                held = resident.nbytes
        head = sum(tensor.nbytes for tensor in shell.head.values())
        return PreparedTask(
            name=name,
            content_hash=task.content_hash,
            shell=shell,
            tokenizer=self._tokenizer(task),
            changes=resident,
            own_body=copy,
            nbytes=held + head,
        )

    def switch_(self, prepared: PreparedTask) -> float:
        """Put a task's weights in place: revert the current one, apply this one; all or nothing.

        Nothing happens when it is in place already or has its own body.

        Returns:
            Seconds it took, until the device was done.
        """
        if prepared.own_body or self._in_place.has(prepared):
            return 0.0
        if prepared.name is None:
            return self._in_place.to_(None, None)
        return self._in_place.to_(prepared, prepared.changes)

    def run(self, prepared: PreparedTask, ids: Sequence[Sequence[int]]) -> Tensor:
        """Probabilities [n, n_labels] or vectors [n, dim], float32, on the CPU.

        Raises:
            RuntimeError: Another task's weights are in place.
            WeightsUnsettledError: No task's are: a failed switch could not be reverted.
            UnsupportedTaskError: The task is a language model, whose answer is text.
        """
        batch = pad(ids, prepared.tokenizer, self.body.device)
        if prepared.own_body:
            return prepared.shell.run(batch).float().cpu()
        with self._in_place.hold() as current:
            if current is not (None if prepared.name is None else prepared):
                in_place = None if current is None else current.name
                raise RuntimeError(f"task {prepared.name!r} is not in place, {in_place!r} is")
            return prepared.shell.run(batch).float().cpu()

    def verify(self) -> bool:
        """Revert to the base and compare its hash with the one at load."""
        self._in_place.to_(None, None)
        return self.body.hash() == self._pristine

    def _prepare_base(self) -> PreparedTask:
        files = self.store.base.files()
        config, pooling = Ties.of(self.store.base).config, Pooling.of_directory(files)
        shell = Shell(config, self.body, pooling=pooling)
        tokenizer = load_tokenizer(files["config.json"].parent)
        nothing = ResidentTask.of(self._targets, ())
        return PreparedTask(None, "", shell, tokenizer, nothing, own_body=False, nbytes=0)

    def _own_body(self, config: dict[str, Any], changes: Sequence[Change]) -> Body:
        rows = {c.base: c.rows for c in changes if c.base is not None and c.rows is not None}
        device, dtype = str(self.body.device), self.body.dtype
        return Body.grown(self.store.base, rows, config, device=device, dtype=dtype)

    def _ties(self, task: Task, changes: Sequence[Change]) -> Ties:
        """What is tied in the stored task."""
        held = {each.name: each for each in (*self.store.unchanged(task.name), *changes)}
        return Ties.among(
            task.config, held, lambda name: self.store.resolve(held[name], task.directory)
        )

    def _tokenizer(self, task: Task) -> PreTrainedTokenizerBase:
        """Tasks share a tokenizer while all that it is made from is equal."""
        named = {name: ref.hash for name, ref in task.files.refs.items() if name != "config.json"}
        classes = (task.config.get("model_type"), task.config.get("tokenizer_class"))
        key = frozenset([*named.items(), classes])
        tokenizer = self._tokenizers.get(key)
        if tokenizer is None:
            with tempfile.TemporaryDirectory(prefix="nps-tokenizer-") as directory:
                task.files.write_to(Path(directory))
                tokenizer = self._tokenizers[key] = load_tokenizer(Path(directory))
        return tokenizer


def bind(
    shell: Shell, changes: Iterable[Change], resolve: Callable[[Change], Tensor]
) -> Iterator[tuple[Tensor, Patch]]:
    """Pair a task's changes with live tensors of the body, one at a time; then load its head.

    Args:
        shell: The task's model.
        changes: Its changes, by the task's tensor names.
        resolve: The task's values of a changed tensor.

    Raises:
        UnsupportedTaskError: A tensor belongs neither to the body nor to the head.
    """
    head = {}
    for change in changes:
        live = shell.body_tensor(change.name)
        if change.name in shell.head:
            head[change.name] = resolve(change)
        elif live is None:
            raise UnsupportedTaskError(
                f"tensor {change.name!r} belongs neither to the body nor to the head of a "
                f"{shell.architecture}"
            )
        elif change.patch is not None:
            common = live if change.rows is None else live[: len(live) - len(change.rows)]
            yield common, change.patch
    shell.load_head_(head)
