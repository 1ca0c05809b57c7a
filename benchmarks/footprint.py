"""How much disk the tasks of a store take, beside other ways to keep the same fine-tunes.

    nps bench footprint examples/debian-8tasks.nps --dense zoo

Bytes are those of files or of what a peer would write, everything included that its reader needs
beside the base. What takes a GPU to make comes from the checked-in results, and says so; those are
used only for fine-tunes that are, by their hash, the ones that were measured.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from benchmarks import recorded
from benchmarks.lossless_files import LOSSLESS, files_nbytes
from benchmarks.machine import circumstances
from formats.container import Container
from nps_store.checkpoint import DTYPES, Checkpoint, weights_hash
from nps_store.cli.ls import describe
from nps_store.cli.output import size
from nps_store.errors import BadOptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCHEMA = "nps.bench-footprint/1"
SHIPPED = Path("examples") / "debian-8tasks.nps"
OURS, DENSE = "NPS (this store)", "dense safetensors"


@dataclass(frozen=True)
class Line:
    """One way to keep all the tasks.

    Attributes:
        way: Its name, with its setting.
        tasks: Bytes by task.
        needs_base: Whether a reader needs the base too.
        lossless: Whether the fine-tunes come back bit for bit.
        source: Where the figures are from.
        accuracy_ratio: Mean test accuracy over that of the dense fine-tunes, where it is known.
        extra_nbytes: What all tasks share, but for the base.
    """

    way: str
    tasks: Mapping[str, float]
    needs_base: bool
    lossless: bool
    source: str
    accuracy_ratio: float | None = None
    extra_nbytes: int = 0

    @property
    def nbytes(self) -> int:
        """Of all tasks."""
        return round(sum(self.tasks.values())) + self.extra_nbytes


def measure(store: Path, *, dense: Path | None = None) -> dict[str, Any]:
    """Sizes of a store's tasks in all ways that can be known.

    Args:
        store: The store; its base is not read.
        dense: Folder with a directory of each fine-tune, by its task's name.

    Raises:
        BadOptionError: A directory there does not hold the fine-tune that is stored.
    """
    with Container.open(store) as container:
        tasks = {name: describe(container, name) for name in sorted(container.root.tasks)}
        hashes = {name: _source_hash(container, name) for name in tasks}
        base_nbytes = sum(_tensor_nbytes(tensor) for tensor in container.base.tensors)
        is_embedded = container.base.storage == "embedded"
        file_nbytes = container.nbytes
    files = {} if dense is None else _files(dense, hashes)
    lines = list(_lines(tasks, hashes, files))
    own = {name: task["nbytes"] for name, task in tasks.items()}
    rest = 0 if is_embedded else file_nbytes - sum(own.values())
    lines.append(Line(OURS, own, True, False, "this file", recorded.accuracy_ratio(hashes), rest))
    return {
        "schema": SCHEMA,
        "command": f"nps bench footprint {store}" + (f" --dense {dense}" if dense else ""),
        **circumstances(),
        "seed": None,
        "store": str(store),
        "store_nbytes": file_nbytes,
        "base_nbytes": base_nbytes,
        "base_storage": "embedded" if is_embedded else "external",
        "source_hashes": hashes,
        "lines": [{**asdict(line), "nbytes": line.nbytes} for line in lines],
    }


def table(result: Mapping[str, Any]) -> Table:
    """All ways, with the base where it is needed."""
    made = Table("way", "tasks", "with the base", "of dense", "accuracy / dense", "from",
                 title=f"{len(result['source_hashes'])} tasks, base {size(result['base_nbytes'])}",
                 title_justify="left")  # fmt: skip
    dense = next(line["nbytes"] for line in result["lines"] if line["way"] == DENSE)
    for line in result["lines"]:
        whole = with_base(result, line)
        ratio = line["accuracy_ratio"]
        told = "1 (lossless)" if line["lossless"] else "-" if ratio is None else f"{ratio:.3f}"
        made.add_row(line["way"], size(line["nbytes"]), size(whole), f"{whole / dense:.2%}", told,
                     line["source"])  # fmt: skip
    return made


def with_base(result: Mapping[str, Any], line: Mapping[str, Any]) -> int:
    """Bytes of a line's tasks and of the base, where it takes one to read them."""
    return int(line["nbytes"] + (result["base_nbytes"] if line["needs_base"] else 0))


def _lines(
    tasks: Mapping[str, Any], hashes: Mapping[str, str], files: Mapping[str, Checkpoint]
) -> Iterator[Line]:
    if files:
        yield Line(
            DENSE, {n: files_nbytes(f) for n, f in files.items()}, False, True, "these files"
        )
    else:
        dense = {name: task["dense_nbytes"] for name, task in tasks.items()}
        yield Line(DENSE, dense, False, True, "as noted when it was compressed")
    for way, compress in LOSSLESS.items():
        try:
            sizes = {name: compress(file) for name, file in files.items()}
        except ModuleNotFoundError:  # of a peer that is not installed
            sizes = {}
        if sizes:
            yield Line(way, sizes, False, True, "made now")
        elif again := recorded.footprint_line(way, hashes):
            yield Line(way, again.tasks, False, True, again.source)
    for peer in recorded.peers(hashes):
        yield Line(peer.way, peer.tasks, True, peer.lossless, peer.source, peer.accuracy_ratio)


def _files(dense: Path, hashes: Mapping[str, str]) -> dict[str, Checkpoint]:
    """The fine-tune of every task, checked to be what was compressed."""
    found = {}
    for name, stored in hashes.items():
        checkpoint = Checkpoint(dense / name)
        if weights_hash(checkpoint.names, checkpoint.tensor) != stored:
            raise BadOptionError(
                f"{dense / name}: not the fine-tune that is stored as {name!r}; its weights differ"
            )
        found[name] = checkpoint
    return found


def _source_hash(container: Container, name: str) -> str:
    return str(container.directory(name).meta.get("source", {}).get("hash", ""))


def _tensor_nbytes(tensor: Any) -> int:  # noqa: ANN401
    return int(np.prod(tensor.shape, dtype=np.int64)) * DTYPES[tensor.dtype].itemsize
