"""Single figures within a sentence, as `<!-- figure: NAME -->...<!-- end -->` marks them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from benchmarks.lm_settings import FULL
from benchmarks.machine import ROOT
from benchmarks.recorded import read
from nps_store.cli.output import size

if TYPE_CHECKING:
    from collections.abc import Callable


def classifier_parameters() -> str:
    """Of the classifiers' body."""
    return _millions(_numel("classifiers"))


def decoder_parameters() -> str:
    """Of the language models."""
    return _millions(_numel("lm-light"))


def base_size() -> str:
    """Of the classifiers' base."""
    return size(read("footprint")["base_nbytes"])


def store_size() -> str:
    """Of the shipped store."""
    return size(read("shipped")["store_nbytes"])


def light_shift() -> str:
    """How far light fine-tunes go from their base, in shares of its weights' norm."""
    return _shift("light")


def heavy_shift() -> str:
    """The same of heavy ones."""
    return _shift("heavy")


def gpu_parameters() -> str:
    """Of the model that is switched on a GPU."""
    return f"{read('switch_gpu')['numel'] / 1e9:.1f} B"


def torch_pin() -> str:
    """The torch that a checkout installs."""
    (pin,) = re.findall(r"^torch==(\S+)", _text("constraints.txt"), re.M)
    return str(pin)


def python_least() -> str:
    """The least version of Python."""
    (least,) = re.findall(r'^requires-python = ">=(\S+)"', _text("pyproject.toml"), re.M)
    return str(least)


FIGURES: dict[str, Callable[[], str]] = {
    figure.__name__: figure
    for figure in (
        classifier_parameters, decoder_parameters, base_size, store_size, light_shift,
        heavy_shift, gpu_parameters, torch_pin, python_least,
    )
}  # fmt: skip


def _numel(group: str) -> float:
    """Body parameters that bits are counted over."""
    point = next(point for point in read("quality")["points"] if point["group"] == group)
    return 8 * float(point["nbytes"]) / float(point["bits"])


def _shift(name: str) -> str:
    (shift,) = (each for each in FULL.shifts if each.name == name)
    return f"{100 * shift.least:g} to {100 * shift.most:g} %"


def _millions(numel: float) -> str:
    return f"{numel / 1e6:.1f} M"


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
