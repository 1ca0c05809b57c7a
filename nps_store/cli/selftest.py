"""`nps selftest`: does this installation compute what it should?"""

from __future__ import annotations

import typer

from nps_store.cli import arguments as arg
from nps_store.cli.output import emit, table

PROBLEMS_FOUND = 3


def selftest(as_json: arg.Json = False) -> None:
    """Compute known answers: decode, apply and revert, search; exit code 3 if one is wrong.

    Takes about two seconds; the first time longer, where numba has loops to compile.

    Example: nps selftest
    """
    from nps_store.selftest import run

    outcomes = list(run())
    ok = all(outcome.passed is not False for outcome in outcomes)
    rows = table("check", "", "seen", "seconds", right=("seconds",))
    for outcome in outcomes:
        mark = {True: "ok", False: "WRONG", None: "absent"}[outcome.passed]
        rows.add_row(outcome.check, mark, outcome.seen, f"{outcome.seconds:.2f}")
    document = {
        "schema": "nps.selftest/1",
        "ok": ok,
        "checks": [outcome.to_json() for outcome in outcomes],
    }
    emit(document, as_json=as_json, text=rows)
    if not ok:
        raise typer.Exit(PROBLEMS_FOUND)
