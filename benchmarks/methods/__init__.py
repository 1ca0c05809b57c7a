"""Ways to compress a task vector, one a file, behind one interface: the peers of this project.

Every method is given the same `Problem`, tunes its own free parameters on the calibration data, and
returns what its reader decodes from real bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.methods.bitdelta import BitDelta
from benchmarks.methods.compeft import ComPeft
from benchmarks.methods.dare import Dare
from benchmarks.methods.deltazip import DeltaZip
from benchmarks.methods.emr import Emr
from benchmarks.methods.lossless import XorZstd, ZipNn
from benchmarks.methods.low_rank import LowRank
from benchmarks.methods.nps import FEW_KEEPS, LANGUAGE, Nps
from benchmarks.methods.tall import Tall
from benchmarks.methods.trim import Trim
from benchmarks.methods.ultradelta import UltraDelta

if TYPE_CHECKING:
    from benchmarks.methods.method import Method

OURS = "NPS"
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Nps(OURS, language=LANGUAGE),
        Trim(scaled=False),
        Trim(scaled=True),
        Dare(scaled=False),
        Dare(scaled=True),
        ComPeft(),
        UltraDelta(),
        BitDelta(),
        Tall(consensus=False),
        Tall(consensus=True),
        Emr(),
        DeltaZip(),
        LowRank(mixed=False),
        LowRank(mixed=True),
        Nps("NPS top-k", FEW_KEEPS, options={"method": "topk"}),
        Nps("dither, no search", FEW_KEEPS, options={"method": "dither"}),
        XorZstd(),
        ZipNn(),
    )
}

__all__ = ["METHODS", "OURS"]
