"""The verbs `nps bench` and `nps report`. What they run is imported when they run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nps_store.cli import arguments as arg
from nps_store.cli.failure import guarded
from nps_store.cli.output import emit
from nps_store.errors import BadOptionError

if TYPE_CHECKING:
    from rich.console import RenderableType

bench = typer.Typer(
    help="Measure how small, how good and how fast, with your own tasks on your own machine.",
    no_args_is_help=True,
)
Store = Annotated[Path, typer.Argument(help="The store (.nps).", show_default=False)]
Out = Annotated[Path, typer.Option(help="Result file to write.")]


@bench.command()
@guarded
def footprint(
    store: Annotated[
        Path | None, typer.Argument(help="The store (.nps).", show_default=False)
    ] = None,
    dense: Annotated[
        Path | None,
        typer.Option(help="Folder of the dense fine-tunes, a directory for each task's name."),
    ] = None,
    zoo: Annotated[
        Path | None,
        typer.Option(help="Instead: the shipped store, and this folder of its fine-tunes."),
    ] = None,
    out: Out = Path("bench-footprint.json"),
    as_json: arg.Json = False,
) -> None:
    """Bytes of a store's tasks, beside other ways to keep the same fine-tunes.

    Example: nps bench footprint tasks.nps --dense finetunes
    """
    from benchmarks import footprint as this

    if (store is None) == (zoo is None):
        raise BadOptionError("give a store, or --zoo for the shipped one; not both")
    result = this.measure(store or this.SHIPPED, dense=zoo or dense)
    _finish(result, this.table(result), out, as_json=as_json)


@bench.command()
@guarded
def switch(
    store: Store,
    base: arg.BaseDir = None,
    device: arg.Device = "cpu",
    rounds: Annotated[int, typer.Option(min=2, help="Repeats of each way.")] = 110,
    out: Out = Path("bench-switch.json"),
    as_json: arg.Json = False,
) -> None:
    """Times of a switch among a store's tasks, beside copying and loading dense weights.

    Example: nps bench switch tasks.nps
    """
    from benchmarks import switch as this

    result = this.measure(store, base=base, device=device, rounds=rounds)
    _finish(result, this.switch_table(result), out, as_json=as_json)


@bench.command()
@guarded
def quality(
    store: Annotated[
        Path | None, typer.Argument(help="The store (.nps).", show_default=False)
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help='NAME=FILE.jsonl: lines {"text", "label"}; repeat.')
    ] = None,
    dense: Annotated[
        list[str] | None, typer.Option(help="NAME=DIR: the dense fine-tune; repeat.")
    ] = None,
    zoo: Annotated[
        Path | None,
        typer.Option(
            help="Instead: a folder of fine-tunes NAME with data/NAME.calibration.jsonl and "
            "data/NAME.test.jsonl, on which methods are compared at all their rates."
        ),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="With --zoo: a method; repeat. Default: a few.")
    ] = None,
    base: arg.BaseDir = None,
    device: arg.Device = "cpu",
    out: Out = Path("bench-quality.json"),
    as_json: arg.Json = False,
) -> None:
    """Metric of stored tasks on data of yours, or rate against quality of methods.

    Example: nps bench quality tasks.nps --data role=test.jsonl --dense role=finetunes/role
    Example: nps bench quality --zoo finetunes --base all-MiniLM-L6-v2 --method NPS
    """
    if zoo is not None and store is None and base is not None:
        from benchmarks.quality import folder

        result = folder.measure(zoo, base=base, methods=method or (), device=device, out=out)
        return _finish(result, folder.table(result), out, as_json=as_json)
    if store is None or zoo is not None or not data:
        raise BadOptionError("give a store and --data, or --zoo and --base; not both")
    from benchmarks import stored_quality

    files, models = arg.named_files("--data", data), arg.named_files("--dense", dense)
    result = stored_quality.measure(store, data=files, dense=models, base=base, device=device)
    return _finish(result, stored_quality.table(result), out, as_json=as_json)


@bench.command()
@guarded
def serve(
    url: Annotated[str, typer.Argument(help="The server, without /v1.", show_default=False)],
    route: Annotated[
        str, typer.Option(help="/classify, /v1/embeddings, /v1/completions, /v1/chat/completions.")
    ] = "/classify",
    rate: Annotated[float, typer.Option(help="Requests a second, on average.")] = 20.0,
    seconds: Annotated[float, typer.Option(help="How long requests arrive, for each mix.")] = 30.0,
    mix: Annotated[
        list[str] | None,
        typer.Option(help="Of tasks: zipf, uniform, one; repeat. Default: zipf and uniform."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A task, the most popular first; repeat. Default: all that it lists."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help='Lines {"text"} to ask; default: a few sentences.')
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Of a generated answer.")] = 32,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may take.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Of arrivals, tasks and texts.")] = 0,
    api_key: Annotated[
        str | None, typer.Option(help="Sent as Bearer token.", envvar="NPS_API_KEY")
    ] = None,
    out: Out = Path("bench-serve.json"),
    as_json: arg.Json = False,
) -> None:
    """Latency and throughput of any server with OpenAI's routes, under open-loop load.

    Requests arrive at random times whether or not earlier ones are answered, and wait from the
    moment they were due: a slow server cannot slow its own load down.

    Example: nps bench serve http://127.0.0.1:8000 --route /classify --rate 50
    """
    try:
        from benchmarks.load import measure as this
    except ModuleNotFoundError as error:
        raise BadOptionError(
            f"sending requests needs the package {error.name!r}: pip install 'nps-store[bench]'"
        ) from error

    load = this.Load(
        route, tuple(mix or ("zipf", "uniform")), tuple(model or ()), rate, seconds,
        texts=this.TEXTS if data is None else this.texts_of(data),
        max_tokens=max_tokens, timeout_s=timeout, seed=seed,
    )  # fmt: skip
    result = this.measure(url, load, api_key=api_key)
    _finish(result, this.table(result), out, as_json=as_json)


def report(
    results: Annotated[
        list[Path], typer.Argument(help="Result files of `nps bench`.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("report.html"),
    as_json: arg.Json = False,
) -> None:
    """One HTML page of results, with everything in it: curves, bars, distributions, sources.

    Example: nps report bench-*.json --out report.html
    """
    from benchmarks.report import write_report

    report = write_report(results, out)
    left_out = [str(path) for path in report.left_out]
    for path in left_out:
        sys.stderr.write(f"{path}: left out, there is no section for its kind\n")
    document = {
        "schema": "nps.report/1", "out": str(out), "sections": report.sections,
        "left_out": left_out,
    }  # fmt: skip
    emit(document, as_json=as_json, text=f"{out}: {', '.join(report.sections)}")


def _finish(result: dict[str, Any], text: RenderableType, out: Path, *, as_json: bool) -> None:
    from benchmarks.machine import write_result

    write_result(out, result)
    emit(result, as_json=as_json, text=text)
