"""Small stores and the means to compare, damage and forge them."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from formats import Container, ContainerWriter, TaskReader, dither
from formats.canonical import dump, load
from formats.checksum import hexdigest
from formats.dtypes import raw_dtype
from formats.index import BaseTensor, FileRef
from formats.newfile import NewFile
from formats.records import (
    DenseBits,
    DenseLevels,
    Factors,
    Record,
    SparseLevels,
    SparseValues,
    XorBits,
    factors_count,
)

if TYPE_CHECKING:
    from pathlib import Path

    from formats.directory import TensorEntry

TOKENIZER = b'{"vocab": ["a", "b", "c", "d", "e", "f", "g"]}' * 20
BASE_SHAPES = {
    "embed": (6, 8),
    "layer.weight": (40, 30),
    "layer.bias": (40,),
    "scale": (),
    "dithered.weight": (48, 64),
}


def base_bits(dtype: str = "BF16") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    high = 256 ** raw_dtype(dtype).itemsize
    return {
        name: rng.integers(0, high, int(np.prod(shape)), dtype=np.uint64).astype(raw_dtype(dtype))
        for name, shape in BASE_SHAPES.items()
    }


def base_tensors(dtype: str = "BF16") -> list[BaseTensor]:
    return [
        BaseTensor(name, dtype, BASE_SHAPES[name], hexdigest(bits.data))
        for name, bits in base_bits(dtype).items()
    ]


def dithered(numel: int, seed: int, *, step: float = 30.0) -> np.ndarray:
    """int64 positions as dither selects them from magnitudes around 1; 1 / step of all are kept."""
    magnitudes = np.random.default_rng(seed % 1000).exponential(size=numel)
    return np.flatnonzero(dither.uniform(seed, 0, numel) < magnitudes / step).astype(np.int64)


def ranked_base() -> list[BaseTensor]:
    """Tensors around the size of a dither block."""
    shapes = {"small": (384,), "block": (256, 256), "wide": (150, 1001), "none": (8, 8)}
    return [BaseTensor(name, "F16", shape, "0" * 32) for name, shape in shapes.items()]


def ranked_record(tensor: BaseTensor) -> SparseLevels:
    """Positions by the dither "one" of ``tensor``, of which "none" has no kept ones."""
    seed = dither.tensor_seed("one", tensor.name)
    positions = dithered(tensor.numel, seed, step=1e9 if tensor.name == "none" else 40)
    levels = np.where(positions % 3 == 0, -1, 1).astype(np.int8)
    return SparseLevels(tensor.numel, positions, levels, np.ones(1, np.float32), seed)


def build_ranked(path: Path) -> Path:
    """A store with one task, all of it ranked."""
    with ContainerWriter.create(path) as writer:
        writer.set_base(storage="external", tensors=ranked_base())
        with writer.begin_task("one", dither="one") as task:
            for index, tensor in enumerate(ranked_base()):
                record = ranked_record(tensor)
                entry = task.add(
                    tensor.name, dtype="F16", shape=tensor.shape, base=index, record=record
                )
                assert entry.encoding == "sparse_levels/ranked"
            task.finish()
        writer.commit()
    return path


def outlying_base() -> list[BaseTensor]:
    """Tensors of one and of several blocks."""
    shapes = {"small": (40, 50), "wide": (66, 1001)}
    return [BaseTensor(name, "F16", shape, "0" * 32) for name, shape in shapes.items()]


def outlying_record(tensor: BaseTensor) -> DenseLevels:
    """Levels from -2 to 2 and eight far beyond, both extremes among them."""
    rng = np.random.default_rng(tensor.numel)
    levels = rng.integers(-2, 3, tensor.numel).astype(np.int8)
    levels[rng.choice(tensor.numel, 8, replace=False)] = [-128, -128, -9, -4, 4, 5, 90, 127]
    return DenseLevels(tensor.numel, levels, np.ones(tensor.shape[0], np.float32))


def build_outlying(path: Path) -> Path:
    """A store with one task, all of it packed levels with outliers."""
    with ContainerWriter.create(path) as writer:
        writer.set_base(storage="external", tensors=outlying_base())
        with writer.begin_task("one") as task:
            for index, tensor in enumerate(outlying_base()):
                record = outlying_record(tensor)
                entry = task.add(
                    tensor.name, dtype="F16", shape=tensor.shape, base=index, record=record
                )
                assert entry.record is not None
                assert entry.record.n_outliers == 8
            task.finish()
        writer.commit()
    return path


def factors_base() -> list[BaseTensor]:
    """A tensor for every form, called like it."""
    shapes = {"product": (40, 50), "transposed": (6, 4, 5), "rows": (7,), "columns": (3, 8)}
    return [BaseTensor(name, "BF16", shape, "0" * 32) for name, shape in shapes.items()]


def factors_record(tensor: BaseTensor) -> Factors:
    """Of the form that the tensor is called by."""
    rows, form = tensor.shape[0], tensor.name
    rank = 3 if form in {"product", "transposed"} else 0
    count = factors_count(form, rank, numel=tensor.numel, rows=rows)
    values = np.random.default_rng(tensor.numel).standard_normal(count).astype("<f4")
    scale = 0.75 if rank else 1.0
    return Factors(tensor.numel, rows, form, rank, values.view("<u4"), scale, "F32")


def build_factors(path: Path) -> Path:
    """A store with one task, all of it factors."""
    with ContainerWriter.create(path) as writer:
        writer.set_base(storage="external", tensors=factors_base())
        with writer.begin_task("one") as task:
            for index, tensor in enumerate(factors_base()):
                record = factors_record(tensor)
                entry = task.add(
                    tensor.name, dtype="BF16", shape=tensor.shape, base=index, record=record
                )
                assert entry.encoding == f"factors/{tensor.name}"
            task.finish()
        writer.commit()
    return path


def task_records(seed: int) -> list[dict[str, Any]]:
    """Arguments of ``TaskWriter.add`` for a task with every kind of record."""
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.choice(1200, 30, replace=False)).astype(np.int64)
    levels = rng.choice(np.array([-2, -1, 1, 3], np.int8), kept.size)
    scales = rng.random(40).astype(np.float32)
    bits = rng.integers(0, 65536, 40).astype("<u2")
    head = rng.integers(-3, 4, 20).astype(np.int8)
    tensor_seed = dither.tensor_seed(f"task {seed}", "dithered.weight")
    by_dither = dithered(3072, tensor_seed)
    signs = rng.choice(np.array([-1, 1], np.int8), by_dither.size)
    return [
        {
            "name": "layer.weight",
            "dtype": "BF16",
            "shape": (40, 30),
            "base": 1,
            "record": SparseLevels(1200, kept, levels, scales),
        },
        {
            "name": "layer.bias",
            "dtype": "BF16",
            "shape": (40,),
            "base": 2,
            "record": XorBits(40, bits, "BF16"),
        },
        {
            "name": "embed",
            "dtype": "BF16",
            "shape": (8, 8),
            "base": 0,
            "record": SparseValues(48, kept[kept < 48], bits[: (kept < 48).sum()], "F16"),
            "extra": DenseBits(16, bits[:16], "BF16"),
        },
        {
            "name": "head.weight",
            "dtype": "F32",
            "shape": (4, 5),
            "base": None,
            "record": DenseLevels(20, head, np.ones(4, np.float32)),
        },
        {
            "name": "dithered.weight",
            "dtype": "BF16",
            "shape": (48, 64),
            "base": 4,
            "record": SparseLevels(3072, by_dither, signs, scales[:1], tensor_seed),
        },
    ]


def add_task(writer: ContainerWriter, name: str, seed: int = 0) -> None:
    tuned = writer.add_file(TOKENIZER + str(seed).encode(), dictionary=TOKENIZER)
    with writer.begin_task(name, dither=f"task {seed}") as task:
        for arguments in task_records(seed):
            arguments = dict(arguments)
            task.add(arguments.pop("name"), **arguments)
        task.finish(absent=[3], files={"tokenizer.json": tuned}, meta={"quality": 0.99})


def set_base(writer: ContainerWriter, storage: str = "external") -> None:
    ref = FileRef(hexdigest(TOKENIZER), len(TOKENIZER))
    tensors = base_tensors()
    writer.set_base(storage=storage, tensors=tensors, files={"tokenizer.json": ref})
    if storage == "embedded":
        assert writer.add_file(TOKENIZER) == ref
        with writer.base_writer() as base:
            for index, (tensor, bits) in enumerate(zip(tensors, base_bits().values(), strict=True)):
                base.add(
                    tensor.name,
                    dtype=tensor.dtype,
                    shape=tensor.shape,
                    base=index,
                    record=DenseBits(bits.size, bits, tensor.dtype),
                )
            base.finish()


def build(path: Path, *tasks: str, storage: str = "external") -> Path:
    """A store with one commit per task; the seed of a task is its position."""
    with ContainerWriter.create(path) as writer:
        set_base(writer, storage)
        if not tasks:
            writer.commit()
        for seed, name in enumerate(tasks):
            add_task(writer, name, seed)
            writer.commit()
    return path


def plain(record: Record | None) -> Any:
    """A record as something that compares by value."""
    if record is None:
        return None
    values = (getattr(record, field.name) for field in fields(record))
    return (
        type(record).__name__,
        *(v.tobytes() + v.dtype.str.encode() if isinstance(v, np.ndarray) else v for v in values),
    )


def base_file(ref: FileRef) -> bytes:
    return TOKENIZER


def snapshot(path: os.PathLike[str]) -> dict[str, Any]:
    """Everything that a store holds, decoded."""
    with Container.open(path) as store:
        return contents(store)


def contents(store: Container) -> dict[str, Any]:
    """Everything that an open store holds, decoded."""
    result: dict[str, Any] = {
        "base": store.base,
        "recipes": store.root.recipes,
        "meta": store.root.meta,
        "tasks": {},
    }
    if store.base.storage == "embedded":
        reader = store.base_reader()
        result["bits"] = [plain(reader.record(entry)) for entry in reader]
        result["files"] = {name: store.file(ref) for name, ref in store.base.files.items()}
    for name in store.root.tasks:
        reader = store.task_reader(name)
        result["tasks"][name] = (
            [_decoded(reader, entry) for entry in reader],
            reader.directory.absent,
            reader.directory.meta,
            {
                file_name: store.file(ref, base_file=base_file)
                for file_name, ref in reader.directory.files.items()
            },
        )
    return result


def _decoded(reader: TaskReader, entry: TensorEntry) -> tuple[Any, ...]:
    record, extra = reader.record(entry), reader.extra(entry)  # noqa: S610
    return (entry.name, entry.dtype, entry.shape, entry.base, plain(record), plain(extra))


def expected_tensors(seed: int) -> list[Any]:
    return [
        (
            a["name"],
            a["dtype"],
            a["shape"],
            a["base"],
            plain(a["record"]),
            plain(a.get("extra")),
        )
        for a in task_records(seed)
    ]


def names(folder: Path) -> list[str]:
    """Names of what lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def forge(
    source: Path,
    target: Path,
    *,
    root: Any = None,
    base: Any = None,
    directory: Any = None,
    frame: Any = None,
) -> Path:
    """Copies a store with edited documents and correct checksums, as an attacker would.

    Args:
        source: A valid store.
        target: The forged copy.
        root: Edits the root index document in place.
        base: Edits the base record document in place.
        directory: Edits every task directory document in place.
        frame: Replaces the stored root index as a whole.
    """
    with Container.open(source) as store:
        new = NewFile(str(target))
        appender = new.appender
        tasks = {}
        for name, entry in store.root.tasks.items():
            document: Any = load(store.section(entry.directory), max_nbytes=1 << 20)
            if directory is not None:
                directory(document)
            nbytes = entry.directory.offset - entry.first_offset
            body = replace(entry.directory, offset=entry.first_offset, nbytes=nbytes)
            first_offset = appender.copy(store.section(body))
            section = appender.section(dump(document))
            tasks[name] = {"first_offset": first_offset, "directory": section.to_json()}
        files = {}
        for key, stored in store.root.files.items():
            offset = appender.copy(store.section(stored.section))
            files[key] = replace(stored, section=replace(stored.section, offset=offset)).to_json()
        document = load(store.section(store.root.base), max_nbytes=1 << 20)
        if base is not None:
            base(document)
        section = appender.section(dump(document))
        index: Any = {
            "base": section.to_json(),
            "base_data": None,
            "tasks": tasks,
            "files": files,
            "recipes": {},
            "meta": {},
        }
        if root is not None:
            root(index)
        pointer = appender.write_trailer(
            appender.section(dump(index) if frame is None else frame), store.generation
        )
        appender.write_slot(pointer)
        new.publish(pointer)
        os.close(new.fd)
    return target
