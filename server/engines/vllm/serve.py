"""vLLM's own OpenAI server, with the tasks of a store among its models."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from nps_store.errors import UnsupportedTaskError
from nps_store.store import Store
from server.engines.vllm.fit import check_fit
from server.engines.vllm.offline import base_directory
from server.engines.vllm.version import check_vllm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.engines.vllm.options import Options


def serve(
    options: Options, *, host: str, port: int, api_key: str | None, own: Sequence[str] = ()
) -> None:
    """Serve until a signal. Tasks that do not fit are left out, and named on stderr.

    Args:
        options: Of the engine.
        host: Address to listen on.
        port: Port to listen on.
        api_key: Key that clients send, or None.
        own: Options of `vllm serve`, which go before what is set here.

    Raises:
        VllmVersionError: vLLM is missing, or another version.
        BadOptionError: The store has its base embedded.
    """
    check_vllm()
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from server.engines.vllm.plugin import register

    register()
    words = [*arguments(options, host=host, port=port, api_key=api_key), *own]
    parser = make_arg_parser(FlexibleArgumentParser(prog="nps serve --engine vllm --"))
    parsed = parser.parse_args(words)
    command = ServeSubcommand()
    command.validate(parsed)
    command.cmd(parsed)


def arguments(options: Options, *, host: str, port: int, api_key: str | None) -> list[str]:
    """The words of a `vllm serve` command line that serves the tasks of a store."""
    from server.engines.vllm.routing import route_to
    from server.engines.vllm.start import engine_arguments

    with Store.open(options.store, base=options.base) as store:
        words = ["--model", str(base_directory(store)), "--served-model-name", store.base_name]
        modules = []
        for name in store.tasks:
            try:
                check_fit(store, name)
            except UnsupportedTaskError as error:
                sys.stderr.write(f"nps: left out: {error}\n")
            else:
                route = route_to(store.task(name), 1)
                modules.append(json.dumps({"name": route.lora_name, "path": route.lora_path}))
    words += ["--host", host, "--port", str(port)]
    words += [] if api_key is None else ["--api-key", api_key]
    words += ["--lora-modules", *modules] if modules else []
    for name, value in engine_arguments(options).items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            text = json.dumps(value) if isinstance(value, dict) else str(value)
            words += [f"--{option}", text]
    return words
