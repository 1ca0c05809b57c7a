"""`nps doctor`: what this machine and installation have that matters here."""

from __future__ import annotations

import typer

from nps_store.cli import arguments as arg
from nps_store.cli.output import emit, table

PROBLEMS_FOUND = 3
WARNED = 4


def doctor(as_json: arg.Json = False) -> None:
    """Show versions, processor, accelerator, memory, disk and limits: what a bug report needs.

    Exit code 0 if all is well, 4 if something may get in the way, 3 if something cannot work.

    Example: nps doctor --json
    """
    from nps_store.diagnosis import Severity, look_at_machine, look_at_packages

    findings = [*look_at_machine(), *look_at_packages()]
    worst = max(finding.severity for finding in findings)
    rows = table("what", "found", "")
    for finding in findings:
        mark = "" if finding.severity is Severity.fine else finding.severity.name
        rows.add_row(finding.what, finding.found, f"{mark}: {finding.advice}" if mark else "")
    document = {
        "schema": "nps.doctor/2",
        "severity": worst.name,
        "findings": [finding.to_json() for finding in findings],
    }
    emit(document, as_json=as_json, text=rows)
    code = {Severity.fine: 0, Severity.warning: WARNED, Severity.problem: PROBLEMS_FOUND}[worst]
    if code:
        raise typer.Exit(code)
