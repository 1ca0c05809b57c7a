"""The verb `nps serve`. Heavy and optional packages are imported when it runs, not when listed."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - read by typer
from typing import Annotated

import typer


def serve(
    store: Annotated[Path, typer.Argument(help="The store to serve.", show_default=False)],
    vllm_options: Annotated[
        list[str] | None,
        typer.Argument(help="vLLM's own options, after --.", show_default=False),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(help="The base's directory; default: where it was at compression."),
    ] = None,
    engine: Annotated[str, typer.Option(help="What computes: torch or vllm.")] = "torch",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    device: Annotated[str, typer.Option(help="cpu or cuda; vllm: what it is built for.")] = "cpu",
    memory_budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Bytes for resident tasks beside the base. Unset: the base's size, patches only. "
            "Set: tasks get their own copy of the body, which needs no switch, where one fits.",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(help="Key that clients send as Bearer token.", envvar="NPS_API_KEY"),
    ] = None,
    admin_key: Annotated[
        str | None,
        typer.Option(
            help="Key of the /admin routes, which are off without it.", envvar="NPS_ADMIN_KEY"
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="When ready, say so as one JSON document on stdout.")
    ] = False,
) -> None:
    """Serve every task of a store from one resident base.

    Logs go to stderr as JSON lines, one a request. SIGTERM and Ctrl-C let running requests finish.
    Every other limit is an NPS_* environment variable.

    Example: nps serve tasks.nps --base all-MiniLM-L6-v2 --port 8000
    Example: nps serve tasks.nps --engine vllm -- --max-model-len 8192
    """
    try:
        from server.launch import launch
    except ModuleNotFoundError as error:
        raise typer.BadParameter(
            f"serving needs the package {error.name!r}: pip install 'nps-store[server]'"
        ) from error

    chosen = {"memory_budget": memory_budget, "api_key": api_key, "admin_key": admin_key}
    launch(
        store,
        base=base,
        engine_name=engine,
        device=device,
        host=host,
        port=port,
        chosen={name: value for name, value in chosen.items() if value is not None},
        ready_on_stdout=as_json,
        vllm_options=vllm_options or (),
    )
