"""An adapter's directory with its base, seen as the checkpoint that merging both would give.

So whatever knows what to do with a fine-tune knows what to do with an adapter; only what is stored
of it is not the difference but the adapter's own factors.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError, safe_open

from nps_store.adapters.factors import AdapterTensors, factors_of
from nps_store.adapters.model_config import config_of
from nps_store.adapters.settings import SETTINGS_NAME, AdapterSettings
from nps_store.alignment import head_names
from nps_store.checkpoint import DTYPE_NAMES, DTYPES, Checkpoint, is_finite
from nps_store.errors import NonFiniteWeightError, NotAModelDirectoryError, UnrelatedModelError
from nps_store.records import patch_of
from nps_store.sources import has_head

if TYPE_CHECKING:
    from torch import Tensor

    from formats.records import Factors
    from nps_store.sources import BaseSource

WEIGHTS_NAME: Final = "adapter_model.safetensors"
CONFIG_NAME: Final = "config.json"
SETTINGS_FOLDER: Final = "adapter"


class AdapterCheckpoint:
    """Read-only view of one adapter; as `Checkpoint`. Not thread-safe.

    Attributes:
        path: The directory.
        settings: Of the adapter.
        config: Of the model with it.
        names: Of all tensors of that model, sorted.
        factors: What is stored of the base's tensors that factors change, by their names there.
    """

    def __init__(self, path: Path, base: BaseSource) -> None:
        """Read the factors and find their places in the base.

        Args:
            path: A directory with `adapter_config.json`.
            base: What it was trained on.

        Raises:
            NotAModelDirectoryError: Files are missing or contradict each other.
            UnsupportedTaskError: The adapter has what cannot be stored as such (names it).
            UnrelatedModelError: The base has no such modules.
            NonFiniteWeightError: A factor is NaN or Inf.
        """
        self.path = path
        self.settings = AdapterSettings.read(path)
        self._base = base
        self._file = self._open()
        where = str(path / WEIGHTS_NAME)
        found = AdapterTensors.of(self._file.keys(), where=where)
        self._prefix = self._find_prefix(found)
        body = {self._prefix + name: name for name in base.names}
        own_config = self._read_config()
        new = {name: self._shape(key) for name, key in found.whole.items() if name not in body}
        self.config = own_config or config_of(base.config, self.settings, new, where=where)
        if self.config.get("architectures") != base.config.get("architectures"):
            heads = head_names(base.names) if has_head(base.config) else frozenset()
            body = {name: own for name, own in body.items() if own not in heads}
        self._body, self._whole = body, found.whole
        self.names: tuple[str, ...] = tuple(sorted({*body, *found.whole}))
        self.factors = self._factors(found, where)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        if name in self._whole:
            return self._shape(self._whole[name])
        return self._base.shape(self._body[name])

    def dtype(self, name: str) -> str:
        """Dtype of a tensor: the base's, where it has one of that name."""
        if name in self._body:
            return self._base.dtype(self._body[name])
        return str(self._file.get_slice(self._whole[name]).get_dtype())

    def tensor(self, name: str) -> Tensor:
        """One tensor of the model with the adapter merged into it, on the CPU.

        Raises:
            NonFiniteWeightError: It holds NaN or Inf.
        """
        if name in self._whole:
            return self._read(self._whole[name]).to(DTYPES[self.dtype(name)])
        base = self._base.tensor(self._body[name])
        record = self.factors.get(self._body[name])
        if record is None:
            return base
        merged = patch_of(record).new_values(base.reshape(-1)).reshape(base.shape)
        return self._checked(name, merged)

    def files(self) -> dict[str, Path]:
        """Files of the model: the adapter's own, and of the base what it lacks.

        The adapter's settings lie in a folder of their own: where an exported model's directory
        holds them, transformers takes it for an adapter.
        """
        files = {**self._base.files(), **Checkpoint.files_in(self.path)}
        files[f"{SETTINGS_FOLDER}/{SETTINGS_NAME}"] = files.pop(SETTINGS_NAME)
        if not (self.path / CONFIG_NAME).is_file() and self.config != self._base.config:
            files[CONFIG_NAME] = self._made_config
        return files

    @property
    def nbytes(self) -> int:
        """Of the adapter's own weights."""
        return (self.path / WEIGHTS_NAME).stat().st_size

    @cached_property
    def _made_config(self) -> Path:
        directory = tempfile.mkdtemp(prefix="nps-adapter-")
        weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        path = Path(directory) / CONFIG_NAME
        path.write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")
        return path

    def _factors(self, found: AdapterTensors, where: str) -> dict[str, Factors]:
        records: dict[str, Factors] = {}
        for module, parts in found.modules.items():
            own = {parameter: f"{module}.{parameter}" for parameter in ("weight", "bias")}
            places = {key: self._body[name] for key, name in own.items() if name in self._body}
            both = {*own.values()} & {*self._whole}
            if both:
                raise NotAModelDirectoryError(
                    f"{where}: {min(both)!r} has factors and was saved as a whole, too"
                )
            made = factors_of(
                module,
                {part: self._read(name) for part, name in parts.items()},
                {key: self._base.shape(name) for key, name in places.items()},
                self.settings,
                where=where,
            )
            records |= {places[parameter]: record for parameter, record in made.items()}
        return records

    def _find_prefix(self, found: AdapterTensors) -> str:
        """What names of the model have in front of the base's."""
        known = {*self._base.names}
        prefixes = {self._prefix_of(f"{module}.weight", known) for module in found.modules}
        if len(prefixes) == 1 and (prefix := prefixes.pop()) is not None:
            return prefix
        missing = [m for m in found.modules if self._prefix_of(f"{m}.weight", known) is None]
        what = f"module {missing[0]!r} is not in the base" if missing else "it has no factors"
        raise UnrelatedModelError(
            f"{self.path}: not an adapter of this base: {what}; expected one that was trained on it"
        )

    @staticmethod
    def _prefix_of(name: str, known: set[str]) -> str | None:
        parts = name.split(".")
        for depth in range(len(parts) - 1):
            if ".".join(parts[depth:]) in known:
                return "".join(f"{part}." for part in parts[:depth])
        return None

    def _open(self) -> Any:  # noqa: ANN401 (safetensors exports no type)
        path = self.path / WEIGHTS_NAME
        if not path.is_file():
            other = sorted(each.name for each in self.path.glob("*.bin"))
            hint = f" (found {other[0]}: convert it to safetensors first)" if other else ""
            raise NotAModelDirectoryError(f"{self.path}: no {WEIGHTS_NAME}{hint}")
        try:
            return safe_open(path, framework="pt", device="cpu")
        except (SafetensorError, OSError) as error:
            raise NotAModelDirectoryError(f"{path}: not a safetensors file ({error})") from error

    def _read_config(self) -> dict[str, Any] | None:
        path = self.path / CONFIG_NAME
        if not path.is_file():
            return None
        try:
            config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise NotAModelDirectoryError(f"{path}: unreadable ({error})") from error
        return config

    def _shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(key).get_shape())

    def _read(self, key: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(key)
        if tensor.dtype not in DTYPE_NAMES:
            raise NotAModelDirectoryError(
                f"{self.path}: tensor {key!r} has dtype {tensor.dtype}; "
                f"expected one of {', '.join(DTYPES)}"
            )
        return self._checked(key, tensor)

    def _checked(self, name: str, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and not is_finite(tensor):
            bad = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteWeightError(
                f"{self.path}: tensor {name!r} holds {bad} NaN or Inf values; "
                "expected finite weights, so the adapter is damaged or training diverged"
            )
        return tensor
