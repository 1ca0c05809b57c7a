"""`nps merge`: one task made of several, at no cost but a few numbers."""

from __future__ import annotations

import datetime
import sys
from dataclasses import replace as replace_fields
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nps_store.cli import arguments as arg
from nps_store.cli.output import emit
from nps_store.errors import BadOptionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nps_store.fusion import FusionPlan
    from nps_store.recipes import Recipe


class MergeMethod(StrEnum):
    """How members are combined."""

    nps = "nps"
    average = "average"
    task_arithmetic = "task-arithmetic"
    ties = "ties"
    consensus = "consensus"
    dare = "dare"


DEFAULT_SCALES = dict.fromkeys(
    (MergeMethod.task_arithmetic, MergeMethod.consensus, MergeMethod.dare), 0.3
)
"""Of a sum of task vectors without weights (Task Arithmetic, arXiv 2212.04089, takes .3 to .4 for
eight tasks)."""


def merge(
    store: arg.StorePath,
    name: Annotated[str, typer.Option(help="Of the merged task.", show_default=False)],
    task: Annotated[
        list[str],
        typer.Option(help="MEMBER or MEMBER=WEIGHT: a task or recipe; repeat.", show_default=False),
    ],
    method: Annotated[
        MergeMethod | None,
        typer.Option(
            help="How members are combined; nps, which searches the weights, where there are "
            "calibration data, else task-arithmetic."
        ),
    ] = None,
    calib: arg.Calibrations = None,
    steps: Annotated[
        int,
        typer.Option(
            min=0, help="Of nps: steps of learning the weights by gradients; 0: by CMA-ES."
        ),
    ] = 150,
    groups: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of nps: groups of layers, or of modules where they are more, with weights of "
            "their own. Default: as many as 1 KB holds; by CMA-ES, one.",
        ),
    ] = None,
    evaluations: Annotated[
        int, typer.Option(min=0, help="Of nps by CMA-ES: model evaluations.")
    ] = 240,
    search_seconds: arg.SearchSeconds = None,
    seed: arg.Seed = 0,
    device: arg.Device = "cpu",
    base: arg.BaseDir = None,
    scale: Annotated[
        float | None, typer.Option(help="Of the merged task vector, beside the weights.")
    ] = None,
    at_least: Annotated[
        int, typer.Option(help="Of consensus: members that must change an element.")
    ] = 2,
    drop: Annotated[
        float, typer.Option(help="Of dare: share of each member's changes to drop, by --seed.")
    ] = 0.9,
    replace: Annotated[bool, typer.Option(help="Replace a recipe of the same name.")] = False,
    as_json: arg.Json = False,
) -> None:
    """Merge tasks into one that is served, evaluated and exported like any other.

    Merged classifiers keep the head of each member: they are asked for as NAME@MEMBER.

    Example: nps merge tasks.nps --name all --task role --task use=0.5 --method average
    """
    from nps_store.fusion import FusionPlan
    from nps_store.recipes import MAX_GROUPS
    from nps_store.recipes.writing import add_recipe

    weights = _weights(task)
    method = method or (MergeMethod.nps if calib else MergeMethod.task_arithmetic)
    if method is MergeMethod.nps:
        plan = FusionPlan(steps, evaluations, groups or (MAX_GROUPS if steps else 1), seed)
        recipe = _searched(
            store, name, weights, calib, plan,
            base=base, device=device, seconds=search_seconds, replace=replace,
        )  # fmt: skip
    else:
        params = {
            MergeMethod.consensus: {"at_least": float(at_least)},
            MergeMethod.dare: {"drop": drop, "seed": float(seed)},
        }
        recipe = _recipe(weights, method, scale, params.get(method, {}))
    names = add_recipe(store, name, recipe, replace=replace)
    report(store, name, recipe, names, schema="nps.merge/1", as_json=as_json)


def report(
    store: object,
    name: str,
    recipe: Recipe,
    names: tuple[str, ...],
    *,
    schema: str,
    as_json: bool,
) -> None:
    """Say what was made."""
    members = {member: list(weights) for member, weights in recipe.members.items()}
    document: dict[str, Any] = {
        "schema": schema, "store": str(store), "name": name, "rule": recipe.rule,
        "members": members, "tasks": list(names),
    }  # fmt: skip
    text = f"{name}: {recipe.rule} of {len(members)}; ask for {', '.join(names)}"
    emit(document, as_json=as_json, text=text)


def created() -> dict[str, str]:
    """When, for what is noted of a recipe."""
    now = datetime.datetime.now(datetime.UTC)
    return {"created": now.isoformat(timespec="seconds")}


def told_of_few(names: list[str]) -> list[str]:
    """Tell whose measure is on the rows of the search; the names."""
    if names:
        sys.stderr.write(
            f"{', '.join(names)}: too few rows to set one aside, so what is kept was measured on "
            "those that the weights were searched on, and promises too much\n"
        )
    return names


def progress(what: str) -> Callable[[float, int], None]:
    """Tells of every evaluation of a search what is lost."""

    def tell(loss: float, count: int) -> None:
        sys.stderr.write(f"evaluation {count}: {loss:.4f} of the {what} lost\n")

    return tell


def _tell_step(loss: float, count: int) -> None:
    """Every tenth is enough: lessons differ from step to step."""
    if count % 10 == 0:
        sys.stderr.write(f"step {count}: {loss:.4f} off, on the texts of this step\n")


def _searched(
    store: Path,
    name: str,
    weights: dict[str, float | None],
    calib: list[str] | None,
    plan: FusionPlan,
    *,
    base: Path | None,
    device: str,
    seconds: float | None,
    replace: bool,
) -> Recipe:
    from nps_store.calibration import read_rows
    from nps_store.fusion import LiveMerge, fuse
    from nps_store.recipes import Recipe
    from nps_store.recipes.writing import check_recipe
    from nps_store.search import Stopwatch
    from nps_store.store import Store

    if {*weights.values()} != {None}:
        raise BadOptionError("--method nps searches the weights; give --task without =WEIGHT")
    files = arg.calibration_files(calib, weights)
    missing = sorted(weights.keys() - files.keys())
    if missing:
        raise BadOptionError(
            f"--method nps needs --calib for every member; {missing[0]!r} has none"
        )
    check_recipe(store, name, Recipe(dict.fromkeys(weights, (1.0,))), replace=replace)
    rows = {member: read_rows(files[member]) for member in weights}
    with Store.open(store, base=base) as opened:
        merge = LiveMerge(opened, rows, device=device, seed=plan.seed)
        fused = fuse(
            merge, merge.bounded(plan),
            stopwatch=Stopwatch(seconds), report=progress("gain"), on_step=_tell_step,
        )  # fmt: skip
        kept, unmeasured = merge.kept(fused.recipe), merge.unmeasured
    quality = {
        "measure": "distill", "value": sum(kept.values()) / len(kept), "members": kept,
        "on_searched_rows": told_of_few(unmeasured),
    }  # fmt: skip
    searched = {"loss": fused.loss, "evaluations": fused.n_evaluations}
    return replace_fields(fused.recipe, meta={**created(), "quality": quality, "search": searched})


def _recipe(
    weights: dict[str, float | None],
    method: MergeMethod,
    scale: float | None,
    params: dict[str, float],
) -> Recipe:
    from nps_store.recipes import Recipe, normalised

    given = {member: 1.0 if weight is None else weight for member, weight in weights.items()}
    if method is MergeMethod.average:
        return Recipe(normalised(given, scale=1.0 if scale is None else scale), meta=created())
    usual = DEFAULT_SCALES.get(method, 1.0) if None in weights.values() else 1.0
    factor = usual if scale is None else scale
    members = {member: (factor * weight,) for member, weight in given.items()}
    if method is MergeMethod.task_arithmetic:
        return Recipe(members, meta=created())
    return Recipe(members, method.value, params, meta=created())


def _weights(texts: list[str]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for text in texts:
        member, separator, weight = text.partition("=")
        if member in found:
            raise BadOptionError(f"--task names {member!r} twice; give it one weight")
        try:
            found[member] = float(weight) if separator else None
        except ValueError:
            raise BadOptionError(
                f"--task {text!r}: expected MEMBER or MEMBER=WEIGHT with a number"
            ) from None
    return found
