"""Model Tailor (Zhu et al., 2024, arXiv 2402.12048, section 4): a patch of changes that are large
and that layers' outputs depend on, and a correction of these for what is left out.

Sensitivity and correction are optimal brain surgeon's: with H the Gram matrix of a layer's inputs,
leaving out tau_j costs tau_j^2 / [H^-1]_jj, and what is kept takes over what is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.methods.obs import DAMPING, hessians
from benchmarks.methods.trim import top
from benchmarks.transfer.method import Scaled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from benchmarks.transfer.problem import TransferProblem

ITERATIONS = 60
"""Of conjugate gradients."""


class ModelTailor(Scaled):
    """Each linear layer changes as many elements as magnitude gives it (salience); which ones is a
    matter of sensitivity. Other tensors go by magnitude. The correction is taken where it helps."""

    name = "Model Tailor"

    def candidates(self, problem: TransferProblem) -> Iterator[tuple[Mapping[str, bool], Tensor]]:
        """Without and with the correction."""
        spans = [span for span in problem.layout.spans if span.kind == "linear"]
        grams = hessians(problem.task, spans)
        patch = top(problem.delta, problem.keep)
        corrected = patch.clone()
        for span in spans:
            tau = problem.delta[span.place].view(span.shape)
            gram = damped(grams[span.name])
            n_keep = int((patch[span.place] != 0).sum())
            mask = sensitive(tau, gram, n_keep)
            patch[span.place] = (tau * mask).reshape(-1)
            corrected[span.place] = corrected_rows(tau, mask, gram).reshape(-1)
        yield {"corrected": False}, patch
        yield {"corrected": True}, corrected


def damped(gram: Tensor) -> Tensor:
    """A Gram matrix [in, in] of mean diagonal 1, with a hundredth of the identity."""
    mean = gram.diagonal().mean().clamp(min=1e-30)
    return gram / mean + DAMPING * torch.eye(len(gram), device=gram.device)


def sensitive(tau: Tensor, gram: Tensor, n_keep: int) -> Tensor:
    """bool [out, in], true at the `n_keep` elements that cost most to leave out."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram.double()))
    cost = (tau.square() / inverse.diagonal().float()).reshape(-1)
    mask = torch.zeros_like(cost, dtype=torch.bool)
    mask[cost.topk(n_keep).indices] = True
    return mask.view(tau.shape)


def corrected_rows(tau: Tensor, mask: Tensor, gram: Tensor) -> Tensor:
    """The matrix of a mask [out, in] whose outputs are nearest to those of tau [out, in].

    Every row solves H_SS x = (H tau)_S on its own kept elements S; all rows at once, by conjugate
    gradients from the plain patch.
    """
    solution = tau * mask
    residual = ((tau - solution) @ gram) * mask
    direction, norm = residual.clone(), residual.square().sum(1, keepdim=True)
    for _ in range(ITERATIONS):
        image = (direction @ gram) * mask
        step = norm / (direction * image).sum(1, keepdim=True).clamp(min=1e-30)
        solution = solution + step * direction
        residual = residual - step * image
        new = residual.square().sum(1, keepdim=True)
        direction = residual + new / norm.clamp(min=1e-30) * direction
        norm = new
    return solution
