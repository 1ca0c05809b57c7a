"""Is this the base that the store was made for? Decided by content, tensor by tensor."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formats.base import BaseRecord, BaseTensor
from formats.records import DenseBits
from nps_store.checkpoint import Checkpoint, tensor_hash
from nps_store.errors import BaseMismatchError, BaseNotFoundError
from nps_store.records import from_bits

if TYPE_CHECKING:
    import os

    from torch import Tensor

    from formats.container import Container
    from nps_store.sources import BaseSource


def describe(base: BaseSource) -> tuple[BaseTensor, ...]:
    """Names, shapes, dtypes and hashes of all tensors: a base's identity."""
    return tuple(
        BaseTensor(name, base.dtype(name), base.shape(name), tensor_hash(base.tensor(name)))
        for name in base.names
    )


def find_base(container: Container, directory: str | os.PathLike[str] | None) -> BaseSource:
    """The base of a store: embedded, or external and identified.

    Args:
        container: The open store.
        directory: Where to look; by default where the base was at compression.

    Raises:
        BaseNotFoundError: There is no directory there.
        BaseMismatchError: It is another base.
    """
    record = container.base
    if record.storage == "embedded" and directory is None:
        return EmbeddedBase(container)
    seen_from_store = Path(container.path).parent / (record.path_hint or "")
    path = Path(directory) if directory is not None else seen_from_store
    if directory is not None and path.is_file():
        raise BaseNotFoundError(f"{path}: is a file; expected the directory of the store's base")
    if not path.is_dir() or (directory is None and not record.path_hint):
        raise BaseNotFoundError(
            f"{container.path}: its base is external and not at {str(path)!r}; "
            "name its directory with --base"
        )
    base = Checkpoint(path)
    check_identity(base, record, where=str(path))
    return base


def check_identity(base: BaseSource, record: BaseRecord, *, where: str) -> None:
    """Compare every tensor of `base` with the record.

    Raises:
        BaseMismatchError: They differ; names the first tensor that does.
    """
    known = {tensor.name: tensor for tensor in record.tensors}
    for name in sorted({*known, *base.names}):
        expected = known.get(name)
        if expected is None or name not in base.names:
            side = "an additional" if expected is None else "no"
            raise BaseMismatchError(f"{where}: not the base of this store: it has {side} {name!r}")
        actual = BaseTensor(name, base.dtype(name), base.shape(name), expected.hash)
        if actual == expected:
            actual = BaseTensor(name, actual.dtype, actual.shape, tensor_hash(base.tensor(name)))
        if actual != expected:
            raise BaseMismatchError(
                f"{where}: not the base of this store: tensor {name!r} differs: "
                f"expected {_identity(expected)}, got {_identity(actual)}"
            )


class EmbeddedBase:
    """The base that a store holds itself."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._reader = container.base_reader()
        self._entries = {entry.name: entry for entry in self._reader}
        self.names = tuple(sorted(self._entries))
        self._directory: Path | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The base's `config.json`."""
        return dict(json.loads(self._container.file(self._container.base.files["config.json"])))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return self._entries[name].shape

    def dtype(self, name: str) -> str:
        """Dtype of one tensor."""
        return self._entries[name].dtype

    def tensor(self, name: str) -> Tensor:
        """One tensor, decoded anew at each call."""
        entry = self._entries[name]
        record = self._reader.record(entry)
        if not isinstance(record, DenseBits):
            raise BaseMismatchError(f"{self._container.path}: embedded tensor {name!r} is no copy")
        return from_bits(record.bits, entry.dtype).reshape(entry.shape)

    def files(self) -> dict[str, Path]:
        """The base's files, written out to a temporary directory that lives as long as this."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="nps-base-"))
            weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
            for name, ref in self._container.base.files.items():
                target = self._directory / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self._container.file(ref))
        return {name: self._directory / name for name in self._container.base.files}


def _identity(tensor: BaseTensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)} {tensor.hash[:12]}"
