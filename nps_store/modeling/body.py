"""The one resident copy of the base's body, addressable by the names of the base's tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import xxhash
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM

from nps_store.alignment import StateTable, align
from nps_store.checkpoint import DTYPES, raw_bytes
from nps_store.errors import BadOptionError, ModelLoadError
from nps_store.modeling.configuration import parse_config
from nps_store.modeling.ties import Ties
from nps_store.sources import GrownBase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nps_store.sources import BaseSource

CAUSAL_LM = ("ForCausalLM", "LMHeadModel")
"""How the class of a causal language model is called at its end."""


class Body:
    """A Hugging Face model filled from a base: headless, but for the output layer of a language
    model, which is a part of the base like any other.

    Attributes:
        module: The model, in eval mode.
        backbone: The headless model: the module itself, or what it has below its output layer.
        prefix: What the names of the backbone's tensors begin with in `parameters`.
        parameters: Body state name ("encoder.layer.0...") to its live tensor, each tensor once.
        tied: Second name of a tensor ("lm_head.weight" of an embedding used twice) to its first.
    """

    def __init__(
        self,
        base: BaseSource,
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        """Build the body and copy the base's weights into it.

        Args:
            base: Where the weights come from.
            device: Where the body lies.
            dtype: Another dtype than the base's own.
            config: Configuration to build from, as `Ties` has it, where it is not the base's.

        Raises:
            ModelLoadError: The base's tensors do not fill the body.
            BadOptionError: Torch cannot use the device here.
        """
        self.device = usable_device(device)
        ties = Ties.of(base)
        config = config or ties.config
        self.config = parse_config(config)
        family = AutoModelForCausalLM if is_causal_lm(config) else AutoModel
        self.dtype = dtype or _float_dtype(base)
        with self.device:  # built where it will lie: the host may not hold a large one
            module = family.from_config(self.config, dtype=self.dtype)  # type: ignore[no-untyped-call]
        self.module: nn.Module = module.eval().requires_grad_(False)
        self.backbone: nn.Module = module.base_model
        self.prefix = "" if self.backbone is module else f"{module.base_model_prefix}."
        self.parameters, self.tied = _told_apart(self.module.state_dict())
        self._fill(base, ties)

    @classmethod
    def grown(
        cls,
        base: BaseSource,
        rows: Mapping[str, Tensor],
        config: dict[str, Any],
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Body:
        """A body whose vocabulary has a task's further rows; the base's own where it has none.

        Args:
            base: Where the other weights come from.
            rows: Appended rows by the base's tensor name; may be empty.
            config: The task's configuration, as `Ties` has it.
            device: Where the body lies.
            dtype: Another dtype than the base's own.
        """
        if not rows:
            return cls(base, device=device, dtype=dtype)
        return cls(GrownBase(base, rows, config), device=device, dtype=dtype, config=config)

    def _fill(self, base: BaseSource, ties: Ties) -> None:
        table = StateTable(self.parameters)
        alignment = align(table, base, tied=ties.groups)
        if self.prefix and alignment.absent:
            raise ModelLoadError(
                f"tensor {alignment.absent[0]!r} is missing from the base, a language model; "
                "its config.json makes it"
            )
        # What the base lacks (a pooler that only some heads use) is zero until a task brings it.
        for name in alignment.absent:
            self.parameters[name].zero_()
        for base_name, name in alignment.shared:
            self.parameters[name].copy_(base.tensor(base_name))
        if alignment.grown:
            name = alignment.grown[0][0]
            raise ModelLoadError(
                f"tensor {name!r} of the base has shape {list(base.shape(name))}; "
                f"its config.json makes {list(table.shape(alignment.grown[0][1]))}"
            )

    def hash(self) -> str:
        """xxh3-128 over all live weights: equal hashes mean bit-identical bodies."""
        digest = xxhash.xxh3_128()
        for name in sorted(self.parameters):
            digest.update(raw_bytes(self.parameters[name].cpu()))
        return digest.hexdigest()


def is_causal_lm(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a causal language model with its output layer."""
    return str((config.get("architectures") or [""])[0]).endswith(CAUSAL_LM)


def _told_apart(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by their first name, and the first name of each further name of tied ones."""
    first: dict[int, str] = {}
    for name, tensor in state.items():
        if tensor.numel():
            first.setdefault(tensor.data_ptr(), name)
    own = {n: t for n, t in state.items() if not t.numel() or first[t.data_ptr()] == n}
    return own, {n: first[t.data_ptr()] for n, t in state.items() if n not in own}


def usable_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        BadOptionError: Torch has none such, or cannot use it here.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadOptionError(f"--device is {name!r}, which torch cannot use: {reason}") from error


def _float_dtype(base: BaseSource) -> torch.dtype:
    for name in base.names:
        dtype = DTYPES[base.dtype(name)]
        if dtype.is_floating_point:
            return dtype
    return torch.float32
