"""Models that several tests of real vLLM share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.server.engines.vllm.models import Zoo, make_zoo

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def zoo_of(tmp_path_factory) -> Callable[[str], Zoo]:
    """A zoo by its kind; not to be changed."""
    made: dict[str, Zoo] = {}

    def get(kind: str) -> Zoo:
        if kind not in made:
            made[kind] = make_zoo(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return get
