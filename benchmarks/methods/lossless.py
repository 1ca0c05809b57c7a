"""The fine-tune's own bits: xor with the base, byte planes, zstd; zipnn, where it is installed."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.methods.levels import array_of
from benchmarks.methods.method import Baseline, Fitted, Parts, Setting
from nps_store.checkpoint import DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from benchmarks.methods.problem import Problem, Receiver

ZIPNN_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_RAW = {4: torch.int32, 2: torch.int16}


class XorZstd(Baseline):
    """The xor's exponents and signs are mostly zero; its mantissas are noise."""

    name = "lossless xor + zstd"
    settings: tuple[Setting, ...] = ({},)

    def fit(self, problem: Problem, setting: Setting) -> Fitted:  # noqa: ARG002
        """One array of bits a dtype."""
        receiver, dense = problem.receiver, problem.dense.cpu()
        return Fitted(
            {
                dtype: bits_of(receiver, dense, dtype) ^ bits_of(receiver, receiver.base, dtype)
                for dtype in sorted(set(receiver.dtypes.values()))
            }
        )

    def weights(self, parts: Parts, receiver: Receiver) -> Tensor:
        """The fine-tune's weights, float32 [numel], exactly."""
        weights = torch.empty(receiver.layout.numel)
        for dtype, part in parts.items():
            bits = array_of(part).numpy() ^ bits_of(receiver, receiver.base, dtype)
            put_bits_(weights, receiver, bits, dtype)
        return weights

    def decode(self, parts: Parts, shared: Parts, receiver: Receiver) -> Tensor:  # noqa: ARG002
        """What was added to the base."""
        return self.weights(parts, receiver) - receiver.base


class ZipNn(Baseline):
    """zipnn (Hershcovitch et al., 2024) on the weights as they are, and on their xor."""

    settings: tuple[Setting, ...] = ({"of": "xor"}, {"of": "weights"})
    name = "lossless zipnn"

    def fit(self, problem: Problem, setting: Setting) -> Fitted:
        """One frame a dtype.

        Raises:
            ModuleNotFoundError: zipnn is not installed.
        """
        receiver, dense = problem.receiver, problem.dense.cpu()
        parts: Parts = {"is_xor": np.array([setting["of"] == "xor"], np.uint8)}
        for dtype in sorted(set(receiver.dtypes.values())):
            bits = bits_of(receiver, dense, dtype)
            if setting["of"] == "xor":
                bits ^= bits_of(receiver, receiver.base, dtype)
            frame = zipnn_of(dtype).compress(bits.tobytes())
            parts[dtype] = np.frombuffer(frame, np.uint8)
        return Fitted(parts)

    def decode(self, parts: Parts, shared: Parts, receiver: Receiver) -> Tensor:  # noqa: ARG002
        """What was added to the base."""
        weights = torch.empty(receiver.layout.numel)
        is_xor = bool(array_of(parts["is_xor"]))
        for dtype in sorted(set(receiver.dtypes.values())):
            frame = array_of(parts[dtype]).numpy().tobytes()
            like = bits_of(receiver, receiver.base, dtype)
            bits = np.frombuffer(bytes(zipnn_of(dtype).decompress(frame)), like.dtype)
            put_bits_(weights, receiver, bits ^ like if is_xor else bits, dtype)
        return weights - receiver.base


def bits_of(receiver: Receiver, weights: Tensor, dtype: str) -> NDArray[Any]:
    """Raw bits of all tensors that the base has in this dtype, one behind the other."""
    kind = DTYPES[dtype]
    return np.concatenate(
        [
            weights[span.place].to(kind).view(_RAW[kind.itemsize]).numpy()
            for span in receiver.layout.spans
            if receiver.dtypes[span.name] == dtype
        ]
    )


def put_bits_(weights: Tensor, receiver: Receiver, bits: NDArray[Any], dtype: str) -> None:
    """Inverse of `bits_of`."""
    values = torch.from_numpy(bits.copy()).view(DTYPES[dtype]).float()
    start = 0
    for span in receiver.layout.spans:
        if receiver.dtypes[span.name] == dtype:
            weights[span.place] = values[start : start + span.numel]
            start += span.numel


def zipnn_of(dtype: str) -> Any:  # noqa: ANN401 (a library without types)
    """zipnn for values of a dtype.

    Raises:
        ModuleNotFoundError: zipnn is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing it uses what torch has deprecated
        zipnn = import_module("zipnn")
    return zipnn.ZipNN(input_format="byte", bytearray_dtype=ZIPNN_DTYPES[dtype])
