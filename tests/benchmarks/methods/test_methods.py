"""What holds for every method: bytes decode to what is evaluated, all of them count."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from benchmarks.methods import METHODS, OURS
from benchmarks.methods.archive import pack, unpack
from benchmarks.methods.method import Baseline
from formats.records import DenseLevels, SparseLevels

if TYPE_CHECKING:
    from benchmarks.methods.archive import Part
    from benchmarks.methods.method import Setting
    from benchmarks.quality.tasks import Loaded

BASELINES = {name: m for name, m in METHODS.items() if isinstance(m, Baseline)}
UNSEEDED = {n: m for n, m in BASELINES.items() if not n.startswith(("DARE", "UltraDelta"))}
LOSSLESS = ("lossless xor + zstd", "lossless zipnn")
EVERY = [
    pytest.param(method, setting, id=f"{name}-{number}")
    for name, method in BASELINES.items()
    for number, setting in enumerate(method.settings)
    if number % 2 == 0
]


def _need(method: Baseline) -> None:
    if "zipnn" in method.name:
        pytest.importorskip("zipnn")


@pytest.mark.parametrize(("method", "setting"), EVERY)
def test_bytes_decode_to_what_is_evaluated_and_all_count(
    method: Baseline, setting: Setting, loaded: Loaded
) -> None:
    """Decoded parts are the fitted parts, and so is the vector, bit for bit."""
    _need(method)
    problem = loaded.problem
    fitted = method.fit(problem, setting)
    own, shared = pack(fitted.parts), pack(fitted.shared) if fitted.shared else b""
    for parts, data in ((fitted.parts, own), (fitted.shared, shared)):
        back = unpack(data) if data else {}
        assert back.keys() == parts.keys()
        assert all(_same(back[name], parts[name]) for name in parts)
    decoded = method.decode(fitted.parts, fitted.shared, problem.receiver)
    assert decoded.shape == (problem.layout.numel,)
    assert decoded.dtype == torch.float32

    compressed = method.compress(problem, setting)
    assert torch.equal(compressed.delta, decoded)
    nbytes = len(own) + len(shared) / problem.n_tasks + problem.overhead_nbytes
    assert compressed.nbytes == pytest.approx(nbytes)
    assert compressed.shared_nbytes == len(shared)


@pytest.mark.parametrize("method", UNSEEDED.values(), ids=UNSEEDED)
def test_the_seed_matters_to_seeded_masks_only(method: Baseline, loaded: Loaded) -> None:
    _need(method)
    receiver = loaded.problem.receiver
    fitted = method.fit(loaded.problem, method.settings[0])
    other = replace(receiver, seed=receiver.seed + 1)
    assert torch.equal(
        method.decode(fitted.parts, fitted.shared, receiver),
        method.decode(fitted.parts, fitted.shared, other),
    )


@pytest.mark.parametrize("method", BASELINES.values(), ids=BASELINES)
def test_more_bytes_are_better(method: Baseline, loaded: Loaded) -> None:
    """From its cheapest setting to its richest a method costs more and comes closer."""
    _need(method)
    if len(method.settings) < 2 or method.name in LOSSLESS:
        pytest.skip("no rate knob")
    poor, rich = (method.compress(loaded.problem, s) for s in _ends(method))
    assert poor.nbytes < rich.nbytes
    assert loaded.problem.loss(rich.delta) < loaded.problem.loss(poor.delta)
    assert loaded.held_out.scores(rich.delta)["gain_kept"] > 0.9


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_is_lossless(name: str, loaded: Loaded) -> None:
    method = BASELINES[name]
    _need(method)
    for setting in method.settings:
        compressed = method.compress(loaded.problem, setting)
        assert torch.equal(compressed.delta, loaded.problem.delta)
        assert compressed.nbytes < 4 * loaded.problem.layout.numel + 2000


def test_names_are_their_own() -> None:
    assert all(method.name == name for name, method in METHODS.items())


def _ends(method: Baseline) -> tuple[Setting, Setting]:
    return method.settings[0], method.settings[-1]


def _same(left: Part, right: Part) -> bool:
    if isinstance(left, SparseLevels) and isinstance(right, SparseLevels):
        return np.array_equal(left.positions, right.positions) and np.array_equal(
            left.levels, right.levels
        )
    if isinstance(left, DenseLevels) and isinstance(right, DenseLevels):
        return np.array_equal(left.levels, right.levels)
    return (
        isinstance(left, np.ndarray)
        and isinstance(right, np.ndarray)
        and left.dtype == right.dtype
        and left.shape == right.shape
        and left.tobytes() == right.tobytes()
    )


def test_every_method_has_settings_for_every_group() -> None:
    for name, method in METHODS.items():
        plain, language = method.settings_of("classifiers"), method.settings_of("lm-heavy")
        assert plain
        assert (plain == language) == (name != OURS)
