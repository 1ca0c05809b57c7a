"""The command `nps`: one verb a file.

Results go to stdout (`--json`: exactly one document), everything for people's eyes to stderr. The
exit code is the error class's own.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import typer

from nps_store.cli.add import add
from nps_store.cli.compact import compact
from nps_store.cli.compress import compress
from nps_store.cli.doctor import doctor
from nps_store.cli.evaluate import evaluate
from nps_store.cli.export import export
from nps_store.cli.failure import guarded
from nps_store.cli.inspect import inspect
from nps_store.cli.ls import ls
from nps_store.cli.merge import merge
from nps_store.cli.rm import rm
from nps_store.cli.selftest import selftest
from nps_store.cli.transfer import transfer
from nps_store.cli.verify import verify


def build() -> typer.Typer:
    """The command with all verbs, those of other packages (`serve`, `bench`) included."""
    app = typer.Typer(
        name="nps",
        help="Compressed storage and serving for many full fine-tunes of one base model.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    tasks, store = (compress, add, rm, merge, transfer, export), (ls, inspect, verify, compact)
    for verb in (*tasks, *store, doctor, selftest):
        app.command()(guarded(verb))
    app.command(name="eval")(guarded(evaluate))
    for point in sorted(entry_points(group="nps_store.verbs"), key=lambda point: point.name):
        found = point.load()
        if isinstance(found, typer.Typer):  # verbs of its own, each guarded
            app.add_typer(found, name=point.name)
        else:
            app.command(name=point.name)(guarded(found))
    return app


def main() -> None:
    """Run the command line; ends the process with the code of what happened."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line in this process; the exit code."""
    try:
        build()(args=arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0
