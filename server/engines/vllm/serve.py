"""vLLM's own OpenAI server, with the tasks of a store among its models."""

from __future__ import annotations

import json
import os
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from nps_store.store import Store
from server.engines.vllm.offline import base_directory
from server.engines.vllm.version import check_vllm
from server.errors import VllmVersionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.engines.vllm.options import Options

ROUTES = "nps_routes"
"""The entry point that adds this engine's routes to vLLM's server."""


def serve(
    options: Options,
    *,
    host: str,
    port: int,
    api_key: str | None,
    environment: Mapping[str, str],
    own: Sequence[str] = (),
) -> None:
    """Serve until a signal. Tasks that do not fit are named in the log and answer with an error.

    Args:
        options: Of the engine.
        host: Address to listen on.
        port: Port to listen on.
        api_key: Key that clients send, or None.
        environment: Settings of the service for all processes, as variables: keys stay out of
            vLLM's configuration, which it logs.
        own: Options of `vllm serve`, which go before what is set here.

    Raises:
        VllmVersionError: vLLM is missing, or another version.
        BadOptionError: The store has its base embedded.
    """
    check_vllm()
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from server.engines.vllm.plugin import register

    cli_env_setup()
    os.environ.update(environment)
    os.environ["VLLM_PLUGINS"] = ",".join(_plugins())
    register()
    words = [*arguments(options, host=host, port=port, api_key=api_key), *own]
    parser = make_arg_parser(FlexibleArgumentParser(prog="nps serve --engine vllm --"))
    parsed = parser.parse_args(words)
    command = ServeSubcommand()
    command.validate(parsed)
    command.cmd(parsed)


def arguments(options: Options, *, host: str, port: int, api_key: str | None) -> list[str]:
    """The words of a `vllm serve` command line that serves the tasks of a store."""
    from server.engines.vllm.start import engine_arguments

    with Store.open(options.store, base=options.base) as store:
        words = ["--model", str(base_directory(store)), "--served-model-name", store.base_name]
    words += ["--host", host, "--port", str(port)]
    words += [] if api_key is None else ["--api-key", api_key]
    for name, value in engine_arguments(options).items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            text = json.dumps(value) if isinstance(value, dict) else str(value)
            words += [f"--{option}", text]
    return words


def _plugins() -> list[str]:
    """The plugins that vLLM loads anyway, and the one with routes, which it loads only by name.

    Raises:
        VllmVersionError: This package was installed before it had that one.
    """
    if not entry_points(group="vllm.endpoint_plugins", name=ROUTES):
        raise VllmVersionError(
            f"the installed package does not tell vLLM of its entry point {ROUTES!r}",
            hint="install nps-store again",
        )
    if "VLLM_PLUGINS" in os.environ:
        return [*os.environ["VLLM_PLUGINS"].split(","), "nps", ROUTES]
    found = entry_points()
    groups = [g for g in found.groups if g.startswith("vllm.") and g != "vllm.endpoint_plugins"]
    return sorted(
        {entry.name for group in groups for entry in found.select(group=group)} | {ROUTES}
    )
