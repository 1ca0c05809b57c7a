"""Contents of a store as plain JSON, the form in which readers are compared."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from formats import Container
from formats.index import BaseRecord, BaseTensor, FileRef
from tests.formats.stores import (
    TOKENIZER,
    base_bits,
    base_file,
    base_tensors,
    factors_base,
    factors_record,
    outlying_base,
    outlying_record,
    ranked_base,
    ranked_record,
    task_records,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from formats.files import BaseFile
    from formats.records import Record

KINDS = {
    "SparseLevels": "sparse_levels",
    "SparseValues": "sparse_values",
    "DenseLevels": "dense_levels",
    "XorBits": "xor_bits",
    "DenseBits": "dense_bits",
    "Factors": "factors",
}


def neutral(record: Record | None) -> dict[str, Any] | None:
    """A record as plain JSON: integers as lists, everything else as hexadecimal bytes."""
    if record is None:
        return None
    result: dict[str, Any] = {"kind": KINDS[type(record).__name__]}
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name == "seed" and value is None:
            continue
        if isinstance(value, np.ndarray):
            value = (
                value.tolist()
                if field.name in ("positions", "levels")
                else value.astype(value.dtype.newbyteorder("<")).tobytes().hex()
            )
        result[field.name] = value
    return result


def expected_content(tasks: dict[str, int], *, storage: str) -> dict[str, Any]:
    """What ``stores.build`` puts in, from its inputs; ``tasks`` maps names to seeds."""
    with_file = {"tokenizer.json": FileRef("35df5f5e58939ba1741481783972c7c6", len(TOKENIZER))}
    base = BaseRecord(storage, tuple(base_tensors()), with_file)
    content: dict[str, Any] = {"base": base.to_json(), "tasks": {}}
    for name, seed in tasks.items():
        content["tasks"][name] = {
            "tensors": [
                [
                    a["name"],
                    a["dtype"],
                    list(a["shape"]),
                    a["base"],
                    neutral(a["record"]),
                    neutral(a.get("extra")),
                ]
                for a in task_records(seed)
            ],
            "absent": [3],
            "files": {"tokenizer.json": (TOKENIZER + str(seed).encode()).hex()},
            "meta": {"quality": 0.99},
        }
    if storage == "embedded":
        bits = base_bits()
        content["base_data"] = {
            "tensors": [
                [t.name, t.dtype, list(t.shape), i, _base_record(bits[t.name], t.dtype), None]
                for i, t in enumerate(base_tensors())
            ],
            "absent": [],
            "files": {},
            "meta": {},
        }
    return content


def expected_ranked() -> dict[str, Any]:
    """What ``stores.build_ranked`` puts in."""
    return _one_task(ranked_base(), ranked_record)


def expected_outlying() -> dict[str, Any]:
    """What ``stores.build_outlying`` puts in."""
    return _one_task(outlying_base(), outlying_record)


def expected_factors() -> dict[str, Any]:
    """What ``stores.build_factors`` puts in."""
    return _one_task(factors_base(), factors_record)


def _one_task(
    tensors: list[BaseTensor], record_of: Callable[[BaseTensor], Record]
) -> dict[str, Any]:
    return {
        "base": BaseRecord("external", tuple(tensors)).to_json(),
        "tasks": {
            "one": {
                "tensors": [
                    [t.name, t.dtype, list(t.shape), i, neutral(record_of(t)), None]
                    for i, t in enumerate(tensors)
                ],
                "absent": [],
                "files": {},
                "meta": {},
            }
        },
    }


def _base_record(bits: np.ndarray, dtype: str) -> dict[str, Any]:
    return {
        "kind": "dense_bits",
        "numel": bits.size,
        "bits": bits.astype("<u2").tobytes().hex(),
        "dtype": dtype,
    }


def read_content(path: Path, base_file: BaseFile = base_file) -> dict[str, Any]:
    """The content of a store as the real reader sees it."""
    with Container.open(path) as store:
        content: dict[str, Any] = {"base": store.base.to_json(), "tasks": {}}
        for name in store.root.tasks:
            content["tasks"][name] = _task(store.task_reader(name))
            content["tasks"][name]["files"] = {
                file_name: store.file(ref, base_file=base_file).hex()
                for file_name, ref in store.directory(name).files.items()
            }
        if store.base.storage == "embedded":
            content["base_data"] = _task(store.base_reader())
        return content


def _task(reader: Any) -> dict[str, Any]:
    return {
        "tensors": [
            [
                entry.name,
                entry.dtype,
                list(entry.shape),
                entry.base,
                neutral(reader.record(entry)),
                neutral(reader.extra(entry)),  # noqa: S610
            ]
            for entry in reader
        ],
        "absent": list(reader.directory.absent),
        "files": {},
        "meta": dict(reader.directory.meta),
    }
