"""`nps compact`: give the bytes of removed tasks back."""

from __future__ import annotations

from nps_store.cli import arguments as arg
from nps_store.cli.output import emit, size


def compact(store: arg.StorePath, as_json: arg.Json = False) -> None:
    """Rewrite a store without removed tasks, and put it in place atomically.

    Example: nps compact tasks.nps
    """
    from formats.writer import compact as run

    saved = run(store)
    nbytes = store.stat().st_size
    emit(
        {"schema": "nps.compact/1", "store": str(store), "saved_nbytes": saved, "nbytes": nbytes},
        as_json=as_json,
        text=f"saved {size(saved)}, {size(nbytes)} left",
    )
