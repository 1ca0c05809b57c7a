"""What a user may ask, and what contradicts itself."""

from __future__ import annotations

import math

import pytest

from nps_store.compress import Options, compress
from nps_store.errors import BadOptionError

OPTIONS = [
    {"target": 0.9, "keep": 0.1},
    {"keep": 0.1, "max_nbytes": 1000},
    {"method": "exact", "keep": 0.5},
    {"method": "exact", "dtype": "BF16"},
    {"method": "nope"},
    {"target": 0},
    {"target": 1.5},
    {"target": math.nan},
    {"keep": -0.1},
    {"keep": 2},
    {"max_nbytes": 0},
    {"dtype": "I8"},
    {"evaluations": -1},
    {"search_seconds": 0},
    {"search_seconds": math.nan},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_options_that_make_no_sense(options):
    with pytest.raises(BadOptionError):
        Options(**options)


def test_a_target_without_data_is_refused(zoo, tmp_path):
    with pytest.raises(BadOptionError, match="--calib two=FILE"):
        compress(zoo.base, [zoo.source("two", calibrated=False)], tmp_path / "s.nps",
                 options=Options(target=0.9))  # fmt: skip
