"""A Hugging Face model directory on disk, read tensor by tensor.

Only safetensors are read: a pickle is code, and a checkpoint that must be executed to be looked at
has no place in a store.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nps_store.errors import (
    ModelDirectoryMissingError,
    NonFiniteWeightError,
    NotAModelDirectoryError,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"

# Files of a model directory that belong to the model's behaviour: configuration, tokenizer,
# chat template, pooling. Weights are stored as tensors; everything else (logs, cards) is not ours.
ATTACHED_SUFFIXES = frozenset({".json", ".txt", ".jinja", ".model", ".tiktoken", ".vocab"})
NOT_ATTACHED = frozenset({"trainer_state.json", "data_config.json", "all_results.json"})
MAX_ATTACHED_NBYTES = 64 << 20


class Checkpoint:
    """Read-only view of one model directory. Tensors are read when asked for; not thread-safe.

    Attributes:
        path: The directory.
        config: The parsed `config.json`.
        names: Of all tensors, sorted.

    Raises:
        ModelDirectoryMissingError: There is no such directory.
        NotAModelDirectoryError: It is a file, or a directory without `config.json` or safetensors,
            or with files that contradict.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.is_file():
            raise NotAModelDirectoryError(
                f"{self.path}: is a file; expected a Hugging Face model directory"
            )
        if not self.path.is_dir():
            raise ModelDirectoryMissingError(
                f"{self.path}: no such directory; expected a Hugging Face model directory"
            )
        if not (self.path / "config.json").is_file():
            raise NotAModelDirectoryError(
                f"{self.path}: no config.json; expected a Hugging Face model directory"
            )
        self.config = self._read_json("config.json")
        weight_map = self._weight_map()
        shards = sorted(set(weight_map.values())) or [self._single_file()]
        self._where = self._locate({name: self._open(name) for name in shards})
        for name in sorted(weight_map.keys() - self._where.keys()):
            raise NotAModelDirectoryError(
                f"{self.path}: tensor {name!r} of the index is not in its shard {weight_map[name]}"
            )
        self.names: tuple[str, ...] = tuple(sorted(self._where))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return tuple(self._where[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """Dtype of a tensor as safetensors names it ("F32", "BF16", ...)."""
        return str(self._where[name].get_slice(name).get_dtype())

    def tensor(self, name: str) -> Tensor:
        """One tensor, on the CPU, in its stored dtype.

        Raises:
            NonFiniteWeightError: It holds NaN or Inf.
        """
        tensor: Tensor = self._where[name].get_tensor(name)
        if tensor.is_floating_point() and not is_finite(tensor):
            bad = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteWeightError(
                f"{self.path}: tensor {name!r} holds {bad} NaN or Inf values; "
                "expected finite weights, so the checkpoint is damaged or training diverged"
            )
        return tensor

    def files(self) -> dict[str, Path]:
        """Small files that belong to the model (POSIX names relative to the directory)."""
        return self.files_in(self.path)

    @staticmethod
    def files_in(directory: Path) -> dict[str, Path]:
        """Small files of a directory that belong to a model."""
        found = {}
        for path in sorted(directory.rglob("*")):
            name = path.relative_to(directory).as_posix()
            if (
                path.is_file()
                and path.suffix in ATTACHED_SUFFIXES
                and path.name not in NOT_ATTACHED
                and not name.endswith(".index.json")
                and not any(part.startswith(".") for part in Path(name).parts)
                and name.count("/") <= 1
                and not name.startswith("checkpoint-")  # of a training run, as the Trainer saves
                and path.stat().st_size <= MAX_ATTACHED_NBYTES
            ):
                found[name] = path
        return found

    def _weight_map(self) -> dict[str, str]:
        """Shard of every tensor; empty where the checkpoint is one file."""
        if not (self.path / INDEX_NAME).is_file():
            return {}
        weight_map = self._read_json(INDEX_NAME).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise NotAModelDirectoryError(f"{self.path / INDEX_NAME}: it has no weight_map")
        if not all(isinstance(shard, str) for shard in weight_map.values()):
            raise NotAModelDirectoryError(f"{self.path / INDEX_NAME}: a shard's name is no string")
        return weight_map

    def _single_file(self) -> str:
        if (self.path / WEIGHTS_NAME).is_file():
            return WEIGHTS_NAME
        other = sorted(path.name for path in self.path.glob("*.bin"))
        hint = f" (found {other[0]}: convert it to safetensors first)" if other else ""
        raise NotAModelDirectoryError(f"{self.path}: no {WEIGHTS_NAME} and no {INDEX_NAME}{hint}")

    def _open(self, shard: str) -> Any:  # noqa: ANN401 (safetensors exports no type)
        path = self.path / shard
        if Path(shard).name != shard or not path.is_file():
            raise NotAModelDirectoryError(f"{self.path}: shard {shard!r} of the index is missing")
        try:
            return safe_open(path, framework="pt", device="cpu")
        except (SafetensorError, OSError) as error:
            raise NotAModelDirectoryError(f"{path}: not a safetensors file ({error})") from error

    def _locate(self, shards: dict[str, Any]) -> dict[str, Any]:
        where: dict[str, Any] = {}
        for shard, handle in shards.items():
            for name in handle.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                if name in where:
                    raise NotAModelDirectoryError(
                        f"{self.path}: tensor {name!r} stands in two shards, also {shard!r}"
                    )
                where[name] = handle
                dtype = handle.get_slice(name).get_dtype()
                if dtype not in DTYPES:
                    raise NotAModelDirectoryError(
                        f"{self.path}: tensor {name!r} has dtype {dtype}; "
                        f"expected one of {', '.join(DTYPES)}"
                    )
        return where

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise NotAModelDirectoryError(f"{self.path / name}: unreadable ({error})") from error
        if not isinstance(content, dict):
            raise NotAModelDirectoryError(f"{self.path / name}: expected a JSON object")
        return content


def is_finite(tensor: Tensor) -> bool:
    """Whether a floating tensor holds no NaN or Inf: its extremes tell, in a twentieth of the time
    of looking at each element, and without memory."""
    if not tensor.numel():
        return True
    return bool(torch.isfinite(torch.stack(tensor.aminmax())).all())


def raw_bytes(tensor: Tensor) -> memoryview:
    """The tensor's bytes in C order, little-endian, without a copy where it is contiguous."""
    flat = tensor.detach().contiguous().reshape(-1)
    if not flat.numel():  # may have strides that no view of bytes can have
        return memoryview(b"")
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]


def tensor_hash(tensor: Tensor) -> str:
    """xxh3-128 (seed 0) of the tensor's raw bytes, as 32 hex digits: its identity in a store."""
    return xxhash.xxh3_128_hexdigest(raw_bytes(tensor))


def weights_hash(names: Iterable[str], tensor: Callable[[str], Tensor]) -> str:
    """xxh3-128 over names and hashes of tensors: which weights these are.

    Args:
        names: Of all tensors, sorted.
        tensor: Reads one.
    """
    digest = xxhash.xxh3_128()
    for name in names:
        digest.update(f"{name}\0{tensor_hash(tensor(name))}\n".encode())
    return digest.hexdigest()
