"""Which names of a checkpoint are one tensor: an embedding that is the output layer too.

transformers ties by class and configuration, but leaves apart what a checkpoint holds under both
names with different values. Whether a model is tied is therefore told from its tensors as well.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import transformers

from nps_store.errors import ModelLoadError
from nps_store.modeling.configuration import parse_config

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from torch import Tensor

    from nps_store.sources import BaseSource


@dataclass(frozen=True)
class Ties:
    """What is tied in one checkpoint.

    Attributes:
        config: Its configuration as `from_pretrained` comes to take it: `tie_word_embeddings` is
            off where the tensors differ.
        second: Further name of a tensor in the checkpoint to its first name there; their bits are
            equal.
        groups: First name in the checkpoint to all names that its tensor has in checkpoints of the
            same class, the one it has in the model first.
    """

    config: dict[str, Any]
    second: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, source: BaseSource) -> Ties:
        """Of a model directory or a base; reads tensors only where one has two names."""
        return cls.among(source.config, source.names, source.tensor)

    @classmethod
    def among(
        cls, config: dict[str, Any], names: Collection[str], tensor: Callable[[str], Tensor]
    ) -> Ties:
        """Of the tensors `names`.

        Args:
            config: The parsed `config.json`.
            names: All names of the checkpoint.
            tensor: Reads one of them.
        """
        second: dict[str, str] = {}
        groups: dict[str, tuple[str, ...]] = {}
        is_tied = True
        for group in _groups(config, names):
            held = [name for name in group if name in names]
            for name in held[1:]:
                if _are_equal(tensor(held[0]), tensor(name)):
                    second[name] = held[0]
                else:
                    is_tied = False
            if second.keys() >= set(held[1:]):
                groups[held[0]] = group
        return cls(config if is_tied else {**config, "tie_word_embeddings": False}, second, groups)


def _groups(config: dict[str, Any], names: Collection[str]) -> Iterator[tuple[str, ...]]:
    """Names of each tensor that the configured class ties, as this checkpoint would call them;
    nothing where transformers does not know the class."""
    architecture = str((config.get("architectures") or [""])[0])
    model_class = getattr(transformers, architecture, None)
    tied = getattr(model_class, "_tied_weights_keys", None)  # before version 5: no mapping
    if model_class is None or not isinstance(tied, dict) or not _is_tied(config):
        return
    prefix = f"{model_class.base_model_prefix}."
    cut = "" if any(name.startswith(prefix) for name in names) else prefix
    groups = defaultdict(list)
    for name, first in tied.items():
        groups[first.removeprefix(cut)].append(name.removeprefix(cut))
    for first, others in groups.items():
        if any(name in names for name in (first, *others)):
            yield (first, *others)


def _is_tied(config: dict[str, Any]) -> bool:
    try:
        return bool(getattr(parse_config(config), "tie_word_embeddings", False))
    except ModelLoadError:
        return False


def _are_equal(one: Tensor, other: Tensor) -> bool:
    """Bit by bit: what differs in the sign of a zero is not the same tensor."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(_bits(one), _bits(other))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
