"""Where vLLM puts each element of a checkpoint, found by asking the model's own loading code.

The model loads tensors that hold positions instead of weights. Its parameters' loaders get
stand-ins, and what they leave in there says where every element went: through fused projections,
replicated heads, vocabulary padding and tensor-parallel shards, with no architecture known here.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vllm.model_executor.model_loader.weight_utils import default_weight_loader

from server.engines.vllm.layout import Layout, Piece
from server.errors import UnsafeLayoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torch import Tensor, nn

UNTOUCHED = -1
FIRST = 2
"""Loaders fill padding with zeros; no position may look like what follows that, or `UNTOUCHED`."""
_NBYTES_AN_ELEMENT = 80
"""Positions of a tensor and of a parameter, and what comes of comparing them."""


def record_layout(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> Layout:
    """Drive `model.load_weights` once; no weight is touched.

    Needs some ten times 8 bytes an element of the largest parameter: on its GPU, if that has so
    much to spare, else on the host.

    Args:
        model: A loaded vLLM model.
        shapes: Of the checkpoint's tensors, by name.

    Raises:
        UnsafeLayoutError: The model cannot load its checkpoint a second time, or a parameter does
            not lie in memory in one piece.
    """
    parameters = dict(model.named_parameters())
    recording = _Recording(parameters, dict(shapes), _roomy_device(parameters.values()))
    with _loaders_replaced(recording), _quiet(), torch.no_grad():
        try:
            model.load_weights(recording.tensors())
        except UnsafeLayoutError:
            raise
        except Exception as error:
            raise UnsafeLayoutError(
                f"{type(model).__name__} cannot load its checkpoint a second time, from which the "
                f"layout of its weights would be found ({type(error).__name__}: {error})",
                hint="the vllm engine needs unquantised weights in vLLM's own layout",
            ) from error
    return recording.layout()


@dataclass
class _Recording:
    """What the loaders did with positions.

    Attributes:
        parameters: By the model's names.
        shapes: Of the checkpoint's tensors.
        device: Where positions are kept meanwhile.
        pieces: By checkpoint tensor, as they were found.
    """

    parameters: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    device: torch.device
    pieces: dict[str, list[Piece]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Number the elements of all tensors; between two there is a gap, so that no run of
        numbers is of both."""
        self._names = list(self.shapes)
        numels = [int(np.prod(shape, dtype=np.int64)) for shape in self.shapes.values()]
        ends = FIRST + np.cumsum(np.array(numels, dtype=np.int64) + 1)
        self._firsts = ends - 1 - numels if numels else ends

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The checkpoint, each element being its own number."""
        for name, first in zip(self._names, self._firsts.tolist(), strict=True):
            shape = self.shapes[name]
            numel = int(np.prod(shape, dtype=np.int64))
            numbers = torch.arange(first, first + numel, device=self.device)
            yield name, numbers.reshape(shape)

    def note(self, parameter: str, found: Tensor) -> None:
        """Read from a stand-in what one call of a loader wrote.

        Args:
            parameter: Its name.
            found: int64, of the parameter's shape.
        """
        flat = found.reshape(-1)
        known = flat >= FIRST
        is_first, is_last = known.clone(), known.clone()
        follows = flat[1:] == flat[:-1] + 1
        is_first[1:] &= ~follows
        is_last[:-1] &= ~follows
        firsts = is_first.nonzero()[:, 0]
        number, local = flat[firsts].cpu().numpy(), firsts.cpu().numpy()
        length = is_last.nonzero()[:, 0].cpu().numpy() + 1 - local
        owner = np.searchsorted(self._firsts, number, side="right") - 1
        for tensor in np.unique(owner).tolist():
            of = owner == tensor
            piece = Piece.of(parameter, number[of] - self._firsts[tensor], local[of], length[of])
            self.pieces.setdefault(self._names[tensor], []).append(piece)

    def layout(self) -> Layout:
        """All that was found."""
        pieces = {name: tuple(self.pieces.get(name, ())) for name in self._names}
        return Layout({name: p.detach() for name, p in self.parameters.items()}, pieces)


@contextmanager
def _loaders_replaced(recording: _Recording) -> Iterator[None]:
    """Every parameter's loader notes what the original one does to a stand-in."""
    had = {name: getattr(p, "weight_loader", None) for name, p in recording.parameters.items()}
    try:
        for name, parameter in recording.parameters.items():
            if not parameter.is_contiguous():
                raise UnsafeLayoutError(
                    f"parameter {name!r} does not lie in memory in one piece, so that a task "
                    "cannot be written into it"
                )
            loader = _noting(recording, name, had[name] or default_weight_loader)
            parameter.weight_loader = loader  # type: ignore[attr-defined]
        yield
    finally:
        for name, parameter in recording.parameters.items():
            if had[name] is None:
                vars(parameter).pop("weight_loader", None)
            else:
                parameter.weight_loader = had[name]  # type: ignore[attr-defined]


def _noting(recording: _Recording, name: str, loader: Callable[..., Any]) -> Callable[..., Any]:
    def load(parameter: Tensor, loaded: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        stand_in = _stand_in(parameter, loader, recording.device)
        try:
            result = loader(stand_in, loaded, *args, **kwargs)
        except Exception as error:
            raise UnsafeLayoutError(
                f"parameter {name!r} does not take the weights of its checkpoint any more: it was "
                f"packed, quantised or derived after loading ({type(error).__name__}: {error})",
                hint="the vllm engine needs unquantised weights in vLLM's own layout",
            ) from error
        recording.note(name, stand_in.data)
        return result

    return load


def _roomy_device(parameters: Iterable[Tensor]) -> torch.device:
    """Where the parameters lie, if what recording takes for a moment fits beside them."""
    largest = max(parameters, key=torch.Tensor.numel)
    if largest.device.type == "cuda":
        torch.cuda.empty_cache()
        if torch.cuda.mem_get_info(largest.device)[0] > _NBYTES_AN_ELEMENT * largest.numel():
            return largest.device
    return torch.device("cpu")


def _stand_in(parameter: Tensor, loader: Callable[..., Any], device: torch.device) -> Tensor:
    """A parameter of the same class, shape and attributes that holds positions."""
    data = torch.full(parameter.shape, UNTOUCHED, dtype=torch.int64, device=device)
    made = torch.Tensor._make_subclass(type(parameter), data, False)  # noqa: SLF001 (as torch's own Parameter does)
    vars(made).update(vars(parameter))
    made.weight_loader = loader  # type: ignore[attr-defined]  # some loaders call it themselves
    return made


@contextmanager
def _quiet() -> Iterator[None]:
    """vLLM warns of every tensor that is not in its parameter's dtype."""
    logger = logging.getLogger("vllm.model_executor.models.utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
