"""A stored task as an ordinary Hugging Face directory."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import save_file

from nps_store.errors import BadOptionError, StoreExistsError

if TYPE_CHECKING:
    from torch import Tensor

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
    Peak memory is one shard.

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
    shards: list[list[str]] = []
    pending: dict[str, Tensor] = {}
    total = 0

    def flush() -> None:
        _save(pending, directory / f"shard-{len(shards)}")
        shards.append(list(pending))
        pending.clear()

    for tensor_name, tensor in store.tensors(name):
        held = sum(t.nbytes for t in pending.values())
        if pending and held + tensor.nbytes > limit:
            flush()
        pending[tensor_name] = tensor.contiguous()
        total += tensor.nbytes
    flush()
    _name_shards(directory, shards, total)
    return total


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # what the system said is in its text only
        code = re.search(r"\(os error (\d+)\)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def _name_shards(directory: Path, shards: list[list[str]], total: int) -> None:
    """Names as `from_pretrained` expects them, known only once all shards are written."""
    if len(shards) == 1:
        (directory / "shard-0").rename(directory / "model.safetensors")
        return
    weight_map = {}
    for number, names in enumerate(shards):
        shard = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (directory / f"shard-{number}").rename(directory / shard)
        weight_map.update(dict.fromkeys(names, shard))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
