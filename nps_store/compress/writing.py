"""Putting an encoded task into a container, and trying that out beside it first."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from formats.container import Container
from formats.files import file_ref
from formats.records import DenseBits
from formats.writer import ContainerWriter
from nps_store.identity import describe
from nps_store.records import to_bits
from nps_store.store import Store
from nps_store.task import task_nbytes, with_tied

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from formats.base import BaseTensor
    from formats.index import TaskEntry
    from nps_store.compress.encode import Encoding
    from nps_store.compress.fine_tune import FineTune
    from nps_store.sources import BaseSource


class TaskSink:
    """Writes tasks of one base into a container, or into a scratch container to look at them.

    Attributes:
        tensors: The base's identity.
    """

    def __init__(self, base: BaseSource, tensors: tuple[BaseTensor, ...]) -> None:
        self._base = base
        self.tensors = tensors

    @classmethod
    def of(cls, base: BaseSource) -> TaskSink:
        """Reads the base once, for its identity."""
        return cls(base, describe(base))

    @property
    def identity(self) -> str:
        """xxh3-128 over names, shapes, dtypes and hashes of the base's tensors, and its files."""
        digest = xxhash.xxh3_128()
        for tensor in self.tensors:
            digest.update(f"{tensor}\n".encode())
        for name, path in sorted(self._base.files().items()):
            digest.update(f"{name}\0{xxhash.xxh3_128_hexdigest(path.read_bytes())}\n".encode())
        return digest.hexdigest()

    def set_base(
        self, writer: ContainerWriter, *, embed: bool, name: str, path_hint: str | None
    ) -> None:
        """Record the base in a new container, with its weights where it is embedded."""
        files = {}
        for file_name, path in self._base.files().items():
            content = path.read_bytes()
            files[file_name] = writer.add_file(content) if embed else file_ref(content)
        writer.set_base(
            storage="embedded" if embed else "external",
            tensors=self.tensors,
            files=files,
            path_hint=path_hint,
            meta={"name": name},
        )
        if embed:
            with writer.base_writer() as out:
                for index, tensor in enumerate(self.tensors):
                    bits = to_bits(self._base.tensor(tensor.name))
                    out.add(
                        tensor.name,
                        dtype=tensor.dtype,
                        shape=tensor.shape,
                        base=index,
                        record=DenseBits(len(bits), bits, tensor.dtype),
                    )
                out.finish()

    def write(
        self,
        writer: ContainerWriter,
        fine_tune: FineTune,
        encoding: Encoding,
        *,
        meta: Mapping[str, Any],
    ) -> TaskEntry:
        """Add one task with its files; not committed.

        A tied tensor is stored under its first name; its further ones are noted under `meta`.
        """
        files = {}
        base_files = self._base.files()
        for name, path in fine_tune.checkpoint.files().items():
            like = base_files.get(name)
            dictionary = like.read_bytes() if like is not None else None
            files[name] = writer.add_file(path.read_bytes(), dictionary=dictionary)
        with writer.begin_task(
            fine_tune.name,
            prefix=fine_tune.alignment.prefix,
            dtype=fine_tune.dtype,
            dither=encoding.dither,
        ) as out:
            for tensor in encoding.tensors_of(fine_tune):
                out.add(
                    tensor.name,
                    dtype=tensor.dtype,
                    shape=tensor.shape,
                    base=tensor.base,
                    record=tensor.record,
                    extra=tensor.extra,
                )
            noted = with_tied(meta, fine_tune.ties.second)
            return out.finish(absent=encoding.absent, files=files, meta=noted)

    @contextmanager
    def scratch(self, fine_tune: FineTune, encoding: Encoding) -> Iterator[tuple[Store, int]]:
        """A throw-away store that holds just this task, and the bytes the task takes in it."""
        with tempfile.TemporaryDirectory(prefix="nps-scratch-") as directory:
            path = Path(directory) / "scratch.nps"
            with ContainerWriter.create(path) as writer:
                self.set_base(writer, embed=False, name="base", path_hint=None)
                self.write(writer, fine_tune, encoding, meta={})
                writer.commit()
            with Container.open(path) as container:
                nbytes = task_nbytes(container, fine_tune.name)
                yield Store(path, container, self._base), nbytes
