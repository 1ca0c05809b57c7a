"""From an adapter's tensors to the records that are stored of it, module by module."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from formats.records import Factors
from nps_store.checkpoint import DTYPE_NAMES
from nps_store.errors import NotAModelDirectoryError, UnsupportedTaskError
from nps_store.records import to_bits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from nps_store.adapters.settings import AdapterSettings

PREFIX: Final = "base_model.model."
_PART = re.compile(r"(?P<module>.+)\.(?P<part>lora_A\.weight|lora_B\.weight|ia3_l)$")
_OTHER_PARTS: Final = re.compile(r"\.(lora_|ia3_)")


@dataclass(frozen=True)
class AdapterTensors:
    """Names of an adapter's tensors, sorted out.

    Attributes:
        modules: Module to part ("lora_A.weight", "lora_B.weight", "ia3_l") to name.
        whole: Tensors that were trained as a whole (`modules_to_save`), by their names in the
            model.
    """

    modules: Mapping[str, Mapping[str, str]]
    whole: Mapping[str, str]

    @classmethod
    def of(cls, names: Iterable[str], *, where: str) -> AdapterTensors:
        """Of an adapter's file.

        Raises:
            UnsupportedTaskError: One is part of something else (names it).
            NotAModelDirectoryError: One is not called as peft calls them.
        """
        modules: dict[str, dict[str, str]] = {}
        whole: dict[str, str] = {}
        for name in names:
            own = name.removeprefix(PREFIX)
            found = _PART.fullmatch(own)
            if own == name:
                raise NotAModelDirectoryError(
                    f"{where}: tensor {name!r} is not called as peft calls them: expected a name "
                    f"that begins with {PREFIX!r}"
                )
            if found is not None:
                modules.setdefault(found["module"], {})[found["part"]] = name
            elif _OTHER_PARTS.search(own):
                raise UnsupportedTaskError(
                    f"{where}: tensor {name!r} is no factor of a linear layer, which is all that "
                    "can be stored of an adapter; merge it into its base and store the whole"
                )
            else:
                whole[own] = name
        return cls(modules, whole)


def factors_of(
    module: str,
    parts: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    settings: AdapterSettings,
    *,
    where: str,
) -> dict[str, Factors]:
    """Records by the parameter of a module that they change ("weight", "bias").

    Args:
        module: Its name in the model.
        parts: Its tensors in the adapter.
        shapes: Its parameters in the base.
        settings: Of the adapter.
        where: The adapter's file.

    Raises:
        NotAModelDirectoryError: Tensors or settings contradict each other or the base.
        UnsupportedTaskError: The layer is no linear one.
    """
    made = _product if settings.kind == "lora" else _scaling
    shape = shapes.get("weight", ())
    if len(shape) != 2 or any(tensor.ndim != 2 for tensor in parts.values()):
        raise UnsupportedTaskError(
            f"{where}: module {module!r} is no linear layer, which is all that can be stored of an "
            "adapter; merge it into its base and store the whole"
        )
    found = made(module, parts, shapes, settings)
    if found is None:
        sizes = {part: list(tensor.shape) for part, tensor in parts.items()}
        raise NotAModelDirectoryError(
            f"{where}: module {module!r} has {sizes}, which {settings.kind} cannot make a weight "
            f"of shape {list(shape)} of; expected those of its adapter_config.json and base"
        )
    return found


def _product(
    module: str,
    parts: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    settings: AdapterSettings,
) -> dict[str, Factors] | None:
    if {*parts} != {"lora_A.weight", "lora_B.weight"}:
        return None
    left, right = parts["lora_B.weight"], parts["lora_A.weight"]
    rank, (rows, columns) = settings.rank_of(module), shapes["weight"]
    outer, inner = (columns, rows) if settings.transposed else (rows, columns)
    if left.shape != (outer, rank) or right.shape != (rank, inner) or left.dtype != right.dtype:
        return None
    both = torch.cat([left.reshape(-1), right.reshape(-1)])
    scale = float(np.float32(settings.scale_of(module)))
    form = "transposed" if settings.transposed else "product"
    return {"weight": _record(rows * columns, rows, form, both, rank=rank, scale=scale)}


def _scaling(
    _module: str,
    parts: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    settings: AdapterSettings,
) -> dict[str, Factors] | None:
    """Outputs, [n, 1], scale the bias too; inputs, [1, n], are those of feedforward modules."""
    if {*parts} != {"ia3_l"}:
        return None
    (factors,) = parts.values()
    rows, columns = shapes["weight"]
    outer, inner = (columns, rows) if settings.transposed else (rows, columns)
    flat = factors.reshape(-1)
    if factors.shape == (1, inner):
        form = "rows" if settings.transposed else "columns"
        return {"weight": _record(rows * columns, rows, form, flat)}
    if factors.shape != (outer, 1):
        return None
    form = "columns" if settings.transposed else "rows"
    records = {"weight": _record(rows * columns, rows, form, flat)}
    if "bias" in shapes:
        records["bias"] = _record(outer, outer, "rows", flat)
    return records


def _record(
    numel: int, rows: int, form: str, factors: Tensor, *, rank: int = 0, scale: float = 1.0
) -> Factors:
    dtype = DTYPE_NAMES[factors.dtype]
    return Factors(numel, rows, form, rank, to_bits(factors), scale, dtype)
