"""From the words of a command line to a running service."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer
from pydantic import ValidationError

from server import logs
from server.app import create_app
from server.run import listen, run
from server.settings import Settings

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from server.engines import Engine

ENGINES = ("torch",)


def launch(
    store: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None,
    engine_name: str,
    device: str,
    host: str,
    port: int,
    chosen: Mapping[str, object],
    ready_on_stdout: bool,
) -> None:
    """Serve `store` until a signal.

    Args:
        store: The store's path.
        base: The base's directory; None for where it was at compression.
        engine_name: One of ENGINES.
        device: `cpu` or `cuda`.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        chosen: Settings that go before the environment's.
        ready_on_stdout: Say on stdout, as one JSON document, where the service listens.

    Raises:
        typer.BadParameter: An unknown engine, or a setting that is out of range.
        NpsError: The address is taken, or the base cannot be served.
    """
    settings = _settings(chosen)
    engine = _engine(engine_name, store=store, base=base, device=device)
    listener = listen(host, port)
    logs.configure(sys.stderr)
    app = create_app(settings, engine)
    run(app, settings=settings, listener=listener, ready_on_stdout=ready_on_stdout)


def _settings(chosen: Mapping[str, object]) -> Settings:
    try:
        return Settings(**chosen)  # type: ignore[arg-type]  # validated by pydantic
    except ValidationError as error:
        first = error.errors()[0]
        name = "NPS_" + "_".join(str(part) for part in first["loc"]).upper()
        raise typer.BadParameter(f"{name}: {first['msg']}, got {first['input']!r}") from error


def _engine(
    name: str, *, store: str | os.PathLike[str], base: str | os.PathLike[str] | None, device: str
) -> Engine:
    if name not in ENGINES:
        raise typer.BadParameter(f"--engine: expected {' or '.join(ENGINES)}, got {name!r}")
    from server.engines.torch import TorchEngine

    return TorchEngine(store, base=base, device=device)
