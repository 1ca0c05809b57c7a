"""A stored task as an ordinary Hugging Face directory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from nps_store.errors import BadOptionError, StoreExistsError
from nps_store.shards import write_shards

if TYPE_CHECKING:
    from nps_store.store import Store

MAX_SHARD_NBYTES = 4 << 30


def export_task(
    store: Store,
    name: str,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    max_shard_nbytes: int = MAX_SHARD_NBYTES,
) -> int:
    """Write a task's weights, bit-identical to `store.materialize`, and its files.

    The directory appears only once it is complete, and one that is replaced stays until then.
    Peak memory is one tensor and its change.

    Args:
        store: Where the task is.
        name: The task.
        out: Directory to create.
        overwrite: Replace a model directory that is there.
        max_shard_nbytes: Weights beyond this go into further files.

    Returns:
        Bytes of weights.

    Raises:
        StoreExistsError: `out` exists, or is no model directory that could be replaced.
        BadOptionError: There is no place for `out`.
        TaskNotFoundError: There is no such task.
        FormatError: The stored task is damaged.
    """
    out = Path(out)
    task = store.task(name)
    _check_target(out, overwrite=overwrite)
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        task.files.write_to(partial)
        nbytes = _write_weights(store, name, partial, max_shard_nbytes)
        _publish(partial, out)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.filename is not None:  # ours is nobody's business
            error.filename = str(error.filename).replace(str(partial), str(out), 1)
        raise
    return nbytes


def _check_target(out: Path, *, overwrite: bool) -> None:
    place = next(each for each in out.absolute().parents if each.exists())
    if not place.is_dir():
        raise BadOptionError(f"{place}: is a file; expected a directory to put {out.name} in")
    if not os.access(place, os.W_OK | os.X_OK):
        raise BadOptionError(f"{place}: may not be written to; choose another place")
    if not out.exists():
        return
    if not overwrite:
        raise StoreExistsError(f"{out}: already exists; use --overwrite to replace it")
    if not out.is_dir() or (any(out.iterdir()) and not (out / "config.json").is_file()):
        raise StoreExistsError(
            f"{out}: already exists and is no model directory, so it is not replaced; "
            "choose another place"
        )


def _publish(partial: Path, out: Path) -> None:
    """Put the finished directory in place; what was there goes only after that."""
    if not out.exists():
        partial.rename(out)
        return
    old = out.with_name(f"{out.name}.old-{os.getpid()}")
    out.rename(old)
    try:
        partial.rename(out)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old)


def _write_weights(store: Store, name: str, directory: Path, limit: int) -> int:
    specs = list(store.specs(name))
    return write_shards(directory, specs, store.tensors(name), max_shard_nbytes=limit)
