"""What is noted of a task in its store: by whom, from what, how, and how well it went."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nps_store.compress.calibrate import Calibration
    from nps_store.compress.decision import Stored
    from nps_store.compress.fine_tune import FineTune
    from nps_store.compress.options import Options
    from nps_store.compress.rate import Choice
    from nps_store.search import Found


def record(
    stored: Stored, source_hash: str, fine_tune: FineTune, options: Options
) -> dict[str, Any]:
    """What is noted of every task."""
    quality = stored.quality
    return {
        "tool": f"nps-store {version('nps-store')}",
        "created": _now().isoformat(timespec="seconds"),
        "method": "exact" if fine_tune.adapter is None else fine_tune.adapter.settings.kind,
        "keep": stored.keep,
        "seed": options.seed,
        "quality": None if quality is None else quality.to_json(),
        "source": {
            "name": fine_tune.checkpoint.path.resolve().name,
            "hash": source_hash,
            "nbytes": stored.dense_nbytes,
        },
        "target": stored.target,
    }


def search_record(
    found: Found | None,
    calibration: Calibration | None,
    choice: Choice | None,
    options: Options,
) -> dict[str, Any]:
    """What is noted of a task that was not stored losslessly."""
    if found is None:
        return {}
    noted = {
        "method": options.method,
        "n_kept": found.selection.n_kept,
        "log_weights": [round(weight, 4) for weight in found.candidate.log_weights],
        "log_scale": round(found.candidate.log_scale, 4),
        "amplitude": found.candidate.amplitude,
        "calibrated": calibration is not None,
    }
    if choice is not None and calibration is not None:
        noted["objective"] = calibration.objective
        noted["n_evaluations"] = choice.n_evaluations
        noted["check"] = calibration.quality_of(found.selection).to_json()
    return noted


def _now() -> datetime:
    """The time, or what SOURCE_DATE_EPOCH says it is, for stores that are equal byte for byte."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(epoch), UTC) if epoch.isdigit() else datetime.now(UTC)
