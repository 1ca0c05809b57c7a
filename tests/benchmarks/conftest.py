"""The tiny fine-tunes of the tests as the benchmarks lay them out."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from benchmarks.quality.tasks import FineTune, Loaded, load

if TYPE_CHECKING:
    from pathlib import Path

    from tests.nps_store.models import Zoo


@pytest.fixture(scope="session")
def fine_tunes(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> list[FineTune]:
    """Three trained fine-tunes of one base, with calibration and test data."""
    root: Path = tmp_path_factory.mktemp("quality")
    (root / "data").mkdir()
    names = ("two", "three", "five")
    for name in names:
        shutil.copytree(zoo.dense(name), root / name)
        lines = zoo.data(name).read_text().splitlines(keepends=True)
        for split, rows in (("calibration", lines[:48]), ("test", lines[48:])):
            (root / "data" / f"{name}.{split}.jsonl").write_text("".join(rows))
    return [FineTune("classifiers", name, zoo.base, root) for name in names]


@pytest.fixture(scope="session")
def loaded(fine_tunes: list[FineTune]) -> Loaded:
    """The fine-tune of five classes; not to be changed."""
    return load(fine_tunes[2], fine_tunes, "cpu")
