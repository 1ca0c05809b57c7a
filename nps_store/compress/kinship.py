"""Is this a fine-tune of that base at all? Names and shapes may agree where the weights do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from nps_store.compress.fine_tune import FineTune

_CHUNK = 1 << 20
LEAST_CORRELATION = 0.3
"""Between weights of the fine-tune and the base. Another training from another start has about 0;
a fine-tune that moved its weights by half their own size still has .9."""
LARGE_CHANGE = 0.5
"""|tau| / |theta| from which on that correlation is asked for."""


@dataclass(frozen=True)
class Kinship:
    """How the weights of a fine-tune and its base relate.

    Attributes:
        is_equal: Whether no floating tensor that both have differs.
        change: |tau| / |theta| over those tensors.
        correlation: Of their matrices, each tensor centred; NaN where one of them is constant.
    """

    is_equal: bool
    change: float
    correlation: float

    @classmethod
    def of(cls, fine_tune: FineTune, *, device: str = "cpu") -> Kinship:
        """Reads every shared tensor once, and compares on a device.

        Raises:
            NonFiniteWeightError: A tensor holds NaN or Inf.
        """
        changed = norm = 0.0
        is_equal = True
        covariance = own_variance = base_variance = 0.0
        for name, base_name in fine_tune.pairs:
            base = fine_tune.base_tensor(base_name).to(device)
            own = fine_tune.checkpoint.tensor(name).to(device)
            own = own[: len(base)] if base.ndim else own
            sums = [0.0] * 5
            for x, y in _chunks(own, base):
                tau = x - y
                is_equal = is_equal and not tau.any()  # squares of tiny numbers may vanish
                changed += float(tau.dot(tau))
                norm += float(y.dot(y))
                parts = (x.sum(), y.sum(), x.dot(x), y.dot(y), x.dot(y))
                sums = [old + float(new) for old, new in zip(sums, parts, strict=True)]
            if base.ndim >= 2:
                sum_x, sum_y, sum_xx, sum_yy, sum_xy = sums
                numel = max(base.numel(), 1)
                covariance += sum_xy - sum_x * sum_y / numel
                own_variance += sum_xx - sum_x**2 / numel
                base_variance += sum_yy - sum_y**2 / numel
        scale = (max(own_variance, 0.0) * max(base_variance, 0.0)) ** 0.5
        change = (changed / norm) ** 0.5 if norm else float("inf") if changed else 0.0
        return cls(is_equal, change, covariance / scale if scale else float("nan"))

    @property
    def is_related(self) -> bool:
        """Whether it may be a fine-tune of the base: changed little, or from the same weights."""
        return self.change < LARGE_CHANGE or not self.correlation < LEAST_CORRELATION


def _chunks(own: Tensor, base: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Flat float32 runs of both, small enough for a processor's cache."""
    own, base = own.reshape(-1), base.reshape(-1)
    for start in range(0, len(base), _CHUNK):
        run = slice(start, start + _CHUNK)
        yield own[run].float(), base[run].float()
