"""What a task has around the shared body: its model class, head, labels, tokenizer, pooling."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Literal

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from nps_store.errors import ModelLoadError, UnsupportedTaskError
from nps_store.modeling.body import Body, is_causal_lm
from nps_store.modeling.configuration import parse_config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

Kind = Literal["classify", "embed", "generate"]
MAX_LENGTH = 512
BODY_SETTINGS = (
    "model_type",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "rms_norm_eps",
    "layer_norm_eps",
    "rope_parameters",
    "sliding_window",
)
"""Settings that change what a body computes, but none of its shapes."""


class Shell:
    """A task's model around a body that is shared by reference.

    The body's weights are whatever is applied at the moment; only the head belongs to the shell.

    Attributes:
        kind: "classify" (logits), "embed" (pooled vectors) or "generate" (logits of next tokens).
        labels: Label of each class; empty but for classifiers.
        head: Head parameter names to live tensors, to be filled by `load_head_`.
        tied: Names under which a checkpoint may hold a tensor of the body a second time, or alone.
    """

    def __init__(self, config: dict[str, Any], body: Body, *, pooling: Pooling | None) -> None:
        """Build the model class that the configuration names, around `body`.

        Args:
            config: The task's `config.json`, as `Ties` has it.
            body: What the model is built around.
            pooling: Of a bare body.

        Raises:
            UnsupportedTaskError: The class is none that can be run, or its configuration wants
                another body.
            ModelLoadError: The installed transformers has no such class.
        """
        architecture = self.architecture = str((config.get("architectures") or [""])[0])
        self.config = parse_config(config)
        self.body = body
        self.labels: list[str] = []
        self.head: dict[str, Tensor] = {}
        self.tied: dict[str, Tensor] = {}
        self.prefix = ""
        self.pooling = pooling or Pooling()
        self._check_body()
        if architecture.endswith("ForSequenceClassification"):
            self.kind: Kind = "classify"
            self.labels = labels_of(self.config)
            self._model = self._around(architecture)
        elif is_causal_lm(config):
            self.kind = "generate"
            self._model = self._language_model(architecture)
        elif architecture.endswith("Model"):
            self.kind = "embed"
            self._model = body.backbone
        else:
            raise UnsupportedTaskError(
                f"architecture {architecture!r} cannot be run here; expected a "
                "...ForSequenceClassification, a ...ForCausalLM or a bare ...Model"
            )

    def body_tensor(self, name: str) -> Tensor | None:
        """The live body tensor that the task's checkpoint calls `name`."""
        if name in self.tied:
            return self.tied[name]
        inner = self.body.prefix + name.removeprefix(f"{self.prefix}.")
        if inner not in self.body.parameters and self._model is self.body.module:
            inner = name  # the output layer, which the body itself has
        return self.body.parameters.get(inner)

    def load_head_(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill the head.

        Raises:
            ModelLoadError: A head tensor is missing or has another shape.
        """
        for name, parameter in self.head.items():
            given = tensors.get(name)
            if given is None or given.shape != parameter.shape:
                got = "none" if given is None else list(given.shape)
                raise ModelLoadError(
                    f"head tensor {name!r}: expected shape {list(parameter.shape)}, got {got}"
                )
            parameter.copy_(given)

    @torch.inference_mode()
    def logits(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits of a classifier [n, n_labels], or of a language model [n, length, vocabulary]."""
        return self._logits(batch)

    @torch.inference_mode()
    def run(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Probabilities [n, n_labels] of a classifier, or vectors [n, dim], as float32.

        Raises:
            UnsupportedTaskError: It is a language model, whose answer is text.
        """
        if self.kind == "generate":
            raise UnsupportedTaskError(
                f"a {self.architecture} gives text; expected a classifier or a bare body"
            )
        if self.kind == "embed":
            hidden = self._model(**batch).last_hidden_state.float()
            return self.pooling(hidden, batch["attention_mask"])
        logits = self.logits(batch).float()
        multi_label = self.config.problem_type == "multi_label_classification"
        if multi_label or logits.shape[-1] == 1:
            return logits.sigmoid()
        return logits.softmax(-1)

    def trace(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (vectors of a bare body) and the body's last hidden states [n, length, dim], both
        differentiable where gradients are enabled."""
        seen: list[Tensor] = []
        hook = self.body.backbone.register_forward_hook(lambda _m, _i, out: seen.append(out[0]))
        try:
            if self.kind == "embed":
                hidden = self._model(**batch).last_hidden_state.float()
                return self.pooling(hidden, batch["attention_mask"]), seen[-1]
            return self._logits(batch), seen[-1]
        finally:
            hook.remove()

    def _logits(self, batch: Mapping[str, Tensor]) -> Tensor:
        if self.kind == "generate":
            # Padding stands behind the text, where causal attention never looks: no mask needed.
            logits: Tensor = self._model(input_ids=batch["input_ids"], use_cache=False).logits
        else:
            logits = self._model(**batch).logits
        return logits

    def _check_body(self) -> None:
        """The body was built from the base's configuration; the task's must want the same."""
        for setting in BODY_SETTINGS:
            wanted = getattr(self.config, setting, None)
            given = getattr(self.body.config, setting, None)
            if wanted != given:
                raise UnsupportedTaskError(
                    f"config.json has {setting} {wanted!r}; the base's body is built with "
                    f"{given!r}, and both cannot share one"
                )

    def _language_model(self, architecture: str) -> nn.Module:
        """The body itself where it is one, else one around it with an output layer of its own."""
        if not self.body.prefix:
            return self._around(architecture)
        is_tied = bool(self.config.tie_word_embeddings)
        if is_tied != bool(self.body.config.tie_word_embeddings):
            number = {True: "one tensor", False: "two tensors"}
            raise UnsupportedTaskError(
                f"embedding and output layer are {number[is_tied]}, those of the base are "
                f"{number[not is_tied]} (tie_word_embeddings): one body cannot be both; "
                "without running it, it can be stored (--method exact) and exported"
            )
        self.prefix = self.body.prefix.removesuffix(".")
        self.tied = {name: self.body.parameters[of] for name, of in self.body.tied.items()}
        return self.body.module

    def _around(self, architecture: str) -> nn.Module:
        model_class = getattr(transformers, architecture, None)
        if model_class is None:
            raise ModelLoadError(f"the installed transformers has no class {architecture!r}")
        with torch.device("meta"):
            model = model_class(self.config)
        self.prefix = str(model.base_model_prefix)
        setattr(model, self.prefix, self.body.backbone)
        model.tie_weights()
        outside = {
            name: tensor
            for name, tensor in model.state_dict().items()
            if not name.startswith(f"{self.prefix}.")
        }
        self.tied = {name: tensor for name, tensor in outside.items() if not tensor.is_meta}
        for name in outside.keys() - self.tied.keys():
            path, _, leaf = name.rpartition(".")
            owner = model.get_submodule(path)
            live = torch.zeros(outside[name].shape, dtype=self.body.dtype, device=self.body.device)
            if leaf in owner._parameters:  # noqa: SLF001 (torch has no public setter)
                setattr(owner, leaf, nn.Parameter(live, requires_grad=False))
            else:
                owner.register_buffer(leaf, live)
            self.head[name] = live
        made: nn.Module = model.eval()
        return made


def labels_of(config: PretrainedConfig) -> list[str]:
    """Label of each class of a classifier, as its configuration names them."""
    names = {int(index): str(label) for index, label in (config.id2label or {}).items()}
    return [names.get(index, f"LABEL_{index}") for index in range(config.num_labels or 0)]


class Pooling:
    """How token vectors become one vector; sentence-transformers' `modules.json` says it."""

    def __init__(self, mode: str = "mean", *, normalize: bool = False) -> None:
        if mode not in {"mean", "cls", "max"}:
            raise UnsupportedTaskError(f"pooling {mode!r} is unknown; expected mean, cls or max")
        self.mode = mode
        self.normalize = normalize

    @classmethod
    def of_directory(cls, files: Mapping[str, Path]) -> Pooling:
        """Of a model directory, whose files `Checkpoint.files` names."""
        return cls.from_files(lambda name: files[name].read_bytes() if name in files else None)

    @classmethod
    def from_files(cls, read: Callable[[str], bytes | None]) -> Pooling:
        """From `modules.json` and the pooling module's `config.json`; mean where there is none."""
        modules = _json(read("modules.json")) or []
        mode, normalize = "mean", False
        for module in modules if isinstance(modules, list) else []:
            kind = str(module.get("type", "")).rpartition(".")[2]
            if kind == "Pooling":
                config = _json(read(f"{module.get('path')}/config.json")) or {}
                mode = _pooling_mode(config) or mode
            elif kind not in {"Transformer", "Normalize"}:
                raise UnsupportedTaskError(
                    f"modules.json has a module {kind!r}; "
                    "expected Transformer, Pooling and Normalize"
                )
            normalize |= kind == "Normalize"
        return cls(mode, normalize=normalize)

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """[n, length, dim] and [n, length] to [n, dim]."""
        if self.mode == "cls":
            vectors = hidden[:, 0]
        elif self.mode == "max":
            vectors = hidden.masked_fill(mask[..., None] == 0, -torch.inf).max(dim=1).values
        else:
            weight = mask[..., None].to(hidden.dtype)
            vectors = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors


def _pooling_mode(config: Mapping[str, Any]) -> str | None:
    """What a pooling module's `config.json` asks for: by name, or by flags as it used to be."""
    if "pooling_mode" in config:
        asked = config["pooling_mode"]
        return asked if isinstance(asked, str) else "+".join(map(str, asked))
    names = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}
    prefix = "pooling_mode_"
    on = [key.removeprefix(prefix) for key in config if key.startswith(prefix) and config[key]]
    return "+".join(names.get(flag, flag) for flag in on) or None


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory.

    Raises:
        ModelLoadError: Its files do not make one.
    """
    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelLoadError(f"{directory}: its files make no tokenizer ({error})") from error


def encode(
    shell: Shell,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    most: int | None = None,
) -> tuple[list[list[int]], int]:
    """Token ids of each text, cut to the model's limit (or to `most`), and how many were cut."""
    limit = min(
        int(getattr(shell.config, "max_position_embeddings", MAX_LENGTH)),
        int(tokenizer.model_max_length),
        most or sys.maxsize,
    )
    ids = tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
    n_full = [len(tokens) == limit for tokens in ids]
    long = [text for text, full in zip(texts, n_full, strict=True) if full]
    n_cut = sum(len(tokens) > limit for tokens in tokenizer(long)["input_ids"]) if long else 0
    return [list(tokens) for tokens in ids], n_cut


def pad(
    ids: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> dict[str, Tensor]:
    """A batch of token ids, padded to the longest, with its attention mask."""
    length = max(map(len, ids))
    filler = tokenizer.pad_token_id or 0
    rows = torch.full((len(ids), length), filler, dtype=torch.int64)
    mask = torch.zeros((len(ids), length), dtype=torch.int64)
    for row, tokens in enumerate(ids):
        rows[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
        mask[row, : len(tokens)] = 1
    return {"input_ids": rows.to(device), "attention_mask": mask.to(device)}


def _json(content: bytes | None) -> Any:  # noqa: ANN401 (JSON is anything)
    return None if content is None else json.loads(content)
