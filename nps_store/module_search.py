"""The search on any torch module with any objective: for models that are no Hugging Face
checkpoints, and for users who measure quality in their own way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nps_store.calibration.quality import gain_lost
from nps_store.errors import BadOptionError, NonFiniteObjectiveError, ShapeMismatchError
from nps_store.search import RULES, Plan, RateSearch
from nps_store.switch import AddAt, Patch, Replace, UndoLog, apply_, revert_

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

    from nps_store.search import Selection

    Measured = Callable[[nn.Module], float]


@dataclass(frozen=True)
class ModuleDelta:
    """What is kept of a module's fine-tune.

    Attributes:
        patches: Change of each tensor that has one, by its name in `state_dict`.
        keep: Kept share of the task vector's elements.
        gain_kept: Share of the fine-tune's gain over the base that is kept, by the check.
        n_evaluations: Calls of the objective that the search took.
    """

    patches: Mapping[str, Patch]
    keep: float
    gain_kept: float
    n_evaluations: int

    def apply_(self, module: nn.Module) -> UndoLog:
        """Put the changes into the base module in place.

        Returns:
            The log with which `nps_store.switch.revert_` takes them out again, bit for bit.
        """
        state = module.state_dict()
        return apply_((state[name], patch) for name, patch in self.patches.items())


def search_module(
    module: nn.Module,
    fine_tuned: Mapping[str, Tensor],
    objective: Measured,
    *,
    check: Measured | None = None,
    target: float = 0.99,
    keep: float | None = None,
    method: str = "nps",
    evaluations: int = 60,
    seed: int = 0,
) -> ModuleDelta:
    """Find what to keep of a module's full fine-tune, and with what weight (paper, equation 4).

    The parameters are searched; buffers (running means, counters) are taken as they are.

    Candidates are put into `module` in place, measured by the caller's function and taken out
    again; afterwards the module is bit-identical to before.

    Args:
        module: With the base's weights in place.
        fine_tuned: The fine-tune's `state_dict`.
        objective: Called with the module; returns a loss, lower is better. It must give equal
            values for equal weights, so the module should be in eval mode.
        check: The same on data that the search does not see; `objective` itself where there is
            none, which flatters what was found.
        target: Share of the gain (L_base - L) / (L_base - L_dense) to keep; the smallest kept
            share that the check finds to do so is taken, or, where none does, all of the
            fine-tune.
        keep: Share of the elements to keep instead.
        method: How elements are selected.
        evaluations: Calls of the objective a rate, at most.
        seed: Of dither and search.

    Raises:
        ShapeMismatchError: The fine-tune has other tensors than the module (names the first).
        NonFiniteObjectiveError: The objective returned NaN or Inf.
        BadOptionError: An argument lies out of range, or a tensor cannot be changed in place.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> x, base = torch.randn(64, 40), torch.nn.Linear(40, 40)
    >>> tuned = {name: w + 0.1 * torch.randn_like(w) for name, w in base.state_dict().items()}
    >>> wanted = torch.nn.functional.linear(x, tuned["weight"], tuned["bias"])
    >>> def loss(module: torch.nn.Module) -> float:
    ...     with torch.no_grad():
    ...         return float((module(x) - wanted).square().mean())
    >>> delta = search_module(base, tuned, loss, target=0.6)
    >>> before, log, after = loss(base), delta.apply_(base), loss(base)
    >>> after / before < 0.4 and delta.keep < 1
    True
    """
    if method not in RULES:
        raise BadOptionError(f"method is {method!r}; expected one of {', '.join(RULES)}")
    for name, value in (("target", target), ("keep", keep)):
        if value is not None and not 0 < value <= 1:
            raise BadOptionError(f"{name} is {value}; expected a number in (0, 1]")
    trial = _Trial(module, fine_tuned, objective, check or objective)
    search = RateSearch(
        trial.vectors,
        RULES[method],
        trial,
        plan=Plan(evaluations=evaluations, seed=seed),
        seed=str(seed),
    )
    found = search.at_quality(target) if keep is None else search.at_keep(keep)
    if keep is None and found.check < target:
        return ModuleDelta(trial.dense, 1.0, 1.0, search.n_evaluations)
    n_elements = max(found.selection.pool.numel, 1)
    return ModuleDelta(
        patches=dict(trial.patches(found.selection)),
        keep=found.selection.n_kept / n_elements,
        gain_kept=found.check,
        n_evaluations=search.n_evaluations,
    )


class _Trial:
    """The search's `Objective` on a live module.

    Attributes:
        dense: The whole fine-tune as changes.
    """

    def __init__(
        self,
        module: nn.Module,
        fine_tuned: Mapping[str, Tensor],
        objective: Measured,
        check: Measured,
    ) -> None:
        self._module = module
        self._objective, self._check = objective, check
        self._live = _live_tensors(module, fine_tuned)
        self._fine_tuned = fine_tuned
        self._searched = {
            name
            for name, parameter in module.named_parameters(remove_duplicate=False)
            if parameter.is_floating_point()
        }
        # What is no weight (running means and variances, counters) is taken as it is.
        self._whole = {
            name: Replace(fine_tuned[name].to(live.device))
            for name, live in self._live.items()
            if name not in self._searched and not torch.equal(live.cpu(), fine_tuned[name].cpu())
        }
        self.dense = {n: Replace(fine_tuned[n].to(live.device)) for n, live in self._live.items()}
        self._frame = {
            measured: (self._measure(measured, self.dense), self._measure(measured, {}))
            for measured in (objective, check)
        }

    def vectors(self) -> Iterator[tuple[str, Tensor]]:
        """The task vector, one tensor at a time."""
        for name, live in self._live.items():
            if name in self._searched:
                own = self._fine_tuned[name].detach().to(live.device)
                yield name, own.to(torch.float32, copy=True).sub_(live).reshape(-1)

    def loss(self, selection: Selection) -> float:
        """Share of the gain lost, by the objective."""
        return self._lost(self._objective, selection)

    def check(self, selection: Selection) -> float:
        """Share of the gain kept, by the check."""
        return 1 - self._lost(self._check, selection)

    def patches(self, selection: Selection) -> Iterator[tuple[str, Patch]]:
        """What a selection changes."""
        for name, span, positions in selection.tensors():
            device = self._live[name].device
            yield name, AddAt(positions.to(device), selection.values_in(span).to(device))
        yield from self._whole.items()

    def _lost(self, measured: Measured, selection: Selection) -> float:
        loss = self._measure(measured, dict(self.patches(selection)))
        dense, base = self._frame[measured]
        return gain_lost(np.array([loss]), np.array([dense]), np.array([base]))

    def _measure(self, measured: Measured, patches: Mapping[str, Patch]) -> float:
        log = apply_((self._live[name], patch) for name, patch in patches.items())
        try:
            loss = float(measured(self._module))
        finally:
            revert_(log)
        if not math.isfinite(loss):
            raise NonFiniteObjectiveError(f"the objective returned {loss}; expected a finite loss")
        return loss


def _live_tensors(module: nn.Module, fine_tuned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The module's tensors by name, each once, checked against the fine-tune's."""
    state = module.state_dict()
    for name in sorted(state.keys() ^ fine_tuned.keys()):
        side = "the fine-tune" if name in state else "the module"
        raise ShapeMismatchError(f"{side} has no tensor {name!r}; expected the same names in both")
    live: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in state.items():
        if fine_tuned[name].shape != tensor.shape:
            raise ShapeMismatchError(
                f"tensor {name!r} of the fine-tune has shape {list(fine_tuned[name].shape)}; "
                f"expected {list(tensor.shape)} as in the module"
            )
        if not tensor.is_contiguous():
            raise BadOptionError(
                f"tensor {name!r} of the module is not contiguous and cannot be changed in place; "
                "make it so with .contiguous()"
            )
        if not tensor.numel() or tensor.data_ptr() not in seen:
            live[name] = tensor
        seen.add(tensor.data_ptr())
    return live
