"""WiSE-FT (Wortsman et al., 2022, arXiv 2109.01903, section 3): on the line between the models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.transfer.method import Scaled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from benchmarks.transfer.problem import TransferProblem


class WiseFt(Scaled):
    """theta_pre + lambda * tau: all parameters change, whatever share is asked for."""

    name = "WiSE-FT"

    def candidates(self, problem: TransferProblem) -> Iterator[tuple[Mapping[str, float], Tensor]]:
        """The one there is."""
        yield {}, problem.delta
