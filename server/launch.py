"""From the words of a command line to a running service."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import typer
from pydantic import ValidationError

from server import logs
from server.app import create_app
from server.run import listen, run
from server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.engines import Engine

ENGINES = ("torch", "vllm")


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
    vllm_options: Sequence[str] = (),
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
        vllm_options: Words for vLLM, where it is the engine.

    Raises:
        typer.BadParameter: An unknown engine, or a setting that is out of range.
        NpsError: The address is taken, or the base cannot be served.
    """
    settings = _settings(chosen)
    if engine_name == "vllm":
        if ready_on_stdout:
            raise typer.BadParameter("--engine vllm says when it is ready at /ready, not --json")
        _serve_with_vllm(store, base, settings, host=host, port=port, own=vllm_options)
        return
    if vllm_options:
        raise typer.BadParameter(f"--engine {engine_name} takes no options after --")
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


def _serve_with_vllm(
    store: str | os.PathLike[str],
    base: str | os.PathLike[str] | None,
    settings: Settings,
    *,
    host: str,
    port: int,
    own: Sequence[str],
) -> None:
    """Serve with vLLM's own server, which has settings of its own for all else."""
    from server.engines.vllm.options import Options
    from server.engines.vllm.serve import serve

    options = Options(os.fspath(store), None if base is None else os.fspath(base))
    if settings.memory_budget is not None:
        options = replace(options, max_nbytes=settings.memory_budget)
    if "quantum_s" in settings.model_fields_set:
        options = replace(options, quantum_s=settings.quantum_s)
    secret = settings.admin_key
    environment = {} if secret is None else {"NPS_ADMIN_KEY": secret.get_secret_value()}
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    serve(options, host=host, port=port, api_key=key, environment=environment, own=own)


def _engine(
    name: str, *, store: str | os.PathLike[str], base: str | os.PathLike[str] | None, device: str
) -> Engine:
    if name not in ENGINES:
        raise typer.BadParameter(f"--engine: expected {' or '.join(ENGINES)}, got {name!r}")
    from server.engines.torch import TorchEngine

    return TorchEngine(store, base=base, device=device)
