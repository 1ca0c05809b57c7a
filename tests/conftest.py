"""Fixtures that several packages' tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.nps_store.models import Zoo

# Tiny tensors: a second thread of torch only waits, and waits much longer on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """A tiny base and three trained fine-tunes; not to be changed."""
    from tests.nps_store.models import make_zoo

    return make_zoo(tmp_path_factory.mktemp("zoo"))
