"""What an `adapter_config.json` says, as far as it bears on what the adapter makes of the base."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from nps_store.errors import NotAModelDirectoryError, UnsupportedTaskError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SETTINGS_NAME: Final = "adapter_config.json"
KEEPS_BASE: Final = (None, True, False, "gaussian", "eva", "orthogonal")
"""Initialisations of LoRA that leave the base's weights as they are."""
UNSUPPORTED: Final = (
    "use_dora",
    "lora_bias",
    "use_qalora",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
"""Settings that make more of the base than a sum of products, or something else."""


@dataclass(frozen=True)
class AdapterSettings:
    """Of one adapter.

    Attributes:
        kind: "lora" or "ia3".
        rank: Of products, unless a pattern says otherwise.
        alpha: Likewise.
        ranks: Rank by pattern of module names.
        alphas: Alpha by pattern of module names.
        stabilised: Whether products are scaled by alpha / sqrt(rank), not alpha / rank (rsLoRA).
        transposed: Whether weights are [in, out] (`fan_in_fan_out`).
        task_type: As peft calls it, or None.
        model_class: Class of the model that it was trained around, where it is noted.
    """

    kind: Literal["lora", "ia3"]
    rank: int = 0
    alpha: float = 0.0
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    stabilised: bool = False
    transposed: bool = False
    task_type: str | None = None
    model_class: str | None = None

    @classmethod
    def read(cls, directory: Path) -> AdapterSettings:
        """Of an adapter's directory.

        Raises:
            NotAModelDirectoryError: It cannot be read.
            UnsupportedTaskError: The adapter is of another type, or has a feature beyond it.
        """
        path = directory / SETTINGS_NAME
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            _check(path, settings)
            known = settings.get("auto_mapping") or {}
            return cls(
                kind="lora" if settings["peft_type"] == "LORA" else "ia3",
                rank=int(settings.get("r", 0)),
                alpha=float(settings.get("lora_alpha", 0)),
                ranks={key: int(rank) for key, rank in _mapping(settings, "rank_pattern")},
                alphas={key: float(alpha) for key, alpha in _mapping(settings, "alpha_pattern")},
                stabilised=bool(settings.get("use_rslora")),
                transposed=bool(settings.get("fan_in_fan_out")),
                task_type=settings.get("task_type"),
                model_class=known.get("base_model_class"),
            )
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            if isinstance(error, UnsupportedTaskError):
                raise
            raise NotAModelDirectoryError(f"{path}: cannot be used ({error!r})") from error

    def rank_of(self, module: str) -> int:
        """Rank of the product of a module."""
        return self.ranks.get(_pattern(self.ranks, module), self.rank)

    def scale_of(self, module: str) -> float:
        """Factor on the product of a module."""
        rank = self.rank_of(module)
        alpha = self.alphas.get(_pattern(self.alphas, module), self.alpha)
        return alpha / math.sqrt(rank) if self.stabilised else alpha / rank


def _check(path: Path, settings: Mapping[str, Any]) -> None:
    kind = settings["peft_type"]
    if kind not in {"LORA", "IA3"}:
        raise _unsupported(path, f"peft_type {kind!r}", "LORA or IA3")
    for name in UNSUPPORTED:
        if settings.get(name):
            raise _unsupported(path, f"{name} {settings[name]!r}", "an adapter without it")
    if settings.get("bias", "none") != "none":
        raise _unsupported(path, f"bias {settings['bias']!r}", "'none'")
    initial = settings.get("init_lora_weights")
    if not any(initial is each or initial == each for each in KEEPS_BASE):
        raise _unsupported(
            path, f"init_lora_weights {initial!r}", "one that leaves the base's weights as they are"
        )


def _unsupported(path: Path, what: str, expected: str) -> UnsupportedTaskError:
    return UnsupportedTaskError(
        f"{path}: {what} cannot be stored as an adapter: expected {expected}; merge it into its "
        "base (merge_and_unload) and store the whole fine-tune"
    )


def _mapping(settings: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    return list((settings.get(name) or {}).items())


def _pattern(patterns: Mapping[str, object], module: str) -> str:
    """The first pattern that a module's name ends with, as peft looks for it."""
    for pattern in patterns:
        if re.match(rf"(.*\.)?({pattern})$", module):
            return pattern
    return module
