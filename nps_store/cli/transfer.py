"""`nps transfer`: a task by a part, so that more of the base's abilities stay."""

from __future__ import annotations

from dataclasses import replace as replace_fields
from typing import TYPE_CHECKING, Annotated

import typer

from nps_store.cli import arguments as arg
from nps_store.cli.merge import created, progress, report, told_of_few
from nps_store.errors import BadOptionError

if TYPE_CHECKING:
    from pathlib import Path

    from nps_store.recipes import Recipe
    from nps_store.transfer import TransferPlan

DEFAULT_SHARE = 0.5
NEW = "new"
"""What `--calib` may call the task, whose name is given already."""


def transfer(
    store: arg.StorePath,
    name: Annotated[str, typer.Option(help="Of the new task.", show_default=False)],
    task: Annotated[str, typer.Option(help="The task or recipe.", show_default=False)],
    share: Annotated[
        float | None,
        typer.Option(
            "--lambda",
            help="How much of it: 0 is the base, 1 the task; 0.5 where nothing is searched.",
        ),
    ] = None,
    calib: Annotated[
        list[str] | None,
        typer.Option(help="new=FILE.jsonl: texts of the task, to search by; needs no labels."),
    ] = None,
    retain: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FILE.jsonl: texts that the base is to answer as it does now; repeat."
        ),
    ] = None,
    groups: Annotated[
        int, typer.Option(min=1, help="Groups of layers with weights of their own, in a search.")
    ] = 1,
    evaluations: Annotated[
        int, typer.Option(min=0, help="Model evaluations of the search, beyond a grid of lambdas.")
    ] = 160,
    search_seconds: arg.SearchSeconds = None,
    seed: arg.Seed = 0,
    device: arg.Device = "cpu",
    base: arg.BaseDir = None,
    replace: Annotated[bool, typer.Option(help="Replace a recipe of the same name.")] = False,
    as_json: arg.Json = False,
) -> None:
    """Make a task that has a part of another's task vector.

    With --calib and --retain, lambda and a weight for each magnitude band of the task vector are
    searched, for the harmonic mean of what the new task has of the old one and leaves of the base.
    Both are their own teachers: outputs on the task's texts are compared with those of the whole
    task, outputs of the bare base on the texts to retain with those that it gives by itself.

    Example: nps transfer tasks.nps --name role-part --task role --calib new=role.jsonl
    --retain old=texts.jsonl
    """
    from nps_store.recipes import Recipe
    from nps_store.recipes.writing import add_recipe
    from nps_store.transfer import TransferPlan

    if calib or retain:
        if share is not None:
            raise BadOptionError("--lambda gives what --calib and --retain search; leave one out")
        files = _files(task, calib, retain)
        plan = TransferPlan(evaluations, groups, seed)
        recipe = _searched(
            store, name, task, files, plan,
            base=base, device=device, seconds=search_seconds, replace=replace,
        )  # fmt: skip
    else:
        given = DEFAULT_SHARE if share is None else share
        recipe = Recipe({task: (given,)}, meta=created())
    names = add_recipe(store, name, recipe, replace=replace)
    report(store, name, recipe, names, schema="nps.transfer/1", as_json=as_json)


def _files(
    task: str, calib: list[str] | None, retain: list[str] | None
) -> tuple[Path, dict[str, Path]]:
    """Texts of the task, and those to retain by their names."""
    new, old = arg.named_files("--calib", calib), arg.named_files("--retain", retain)
    if len(new) != 1 or not {*new} <= {NEW, task}:
        raise BadOptionError(f"a search needs --calib {NEW}=FILE.jsonl, once: texts of the task")
    if not old or task in old:
        raise BadOptionError(
            "a search needs --retain NAME=FILE.jsonl: texts that the base is to answer as it does "
            "now, under another name than the task's"
        )
    return next(iter(new.values())), old


def _searched(
    store: Path,
    name: str,
    task: str,
    files: tuple[Path, dict[str, Path]],
    plan: TransferPlan,
    *,
    base: Path | None,
    device: str,
    seconds: float | None,
    replace: bool,
) -> Recipe:
    from nps_store.calibration import read_rows
    from nps_store.recipes import BANDS, N_BANDS, Recipe, band_params
    from nps_store.recipes.writing import check_recipe
    from nps_store.search import Stopwatch
    from nps_store.store import Store
    from nps_store.transfer import LiveTransfer, transfer

    neutral = band_params([0.0] * (N_BANDS - 1), [1.0] * N_BANDS)
    check_recipe(store, name, Recipe({task: (1.0,)}, BANDS, neutral), replace=replace)
    rows, retain = read_rows(files[0]), {key: read_rows(file) for key, file in files[1].items()}
    with Store.open(store, base=base) as opened:
        live = LiveTransfer(opened, task, rows, retain, device=device, seed=plan.seed)
        found = transfer(
            live, live.bounded(plan), stopwatch=Stopwatch(seconds), report=progress("balance")
        )
        kept, unmeasured = live.kept(found.recipe), live.unmeasured
    quality = {
        "measure": "distill", "value": kept.balance, "task": kept.task, "base": kept.base,
        "on_searched_rows": told_of_few(unmeasured),
    }  # fmt: skip
    searched = {"loss": found.loss, "evaluations": found.n_evaluations}
    return replace_fields(found.recipe, meta={**created(), "quality": quality, "search": searched})
