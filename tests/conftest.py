"""Fixtures that several packages' tests share."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.nps_store.models import Zoo

# Tiny tensors: a second thread of torch only waits, and waits much longer on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Started in the background, tests ignore Ctrl-C, and so would the commands that they interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """A tiny base and three trained fine-tunes; not to be changed."""
    from tests.nps_store.models import make_zoo

    return make_zoo(tmp_path_factory.mktemp("zoo"))
