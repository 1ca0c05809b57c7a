"""Coverage-guided fuzzing: ``python -m tests.formats.fuzz.run FOLDER -runs=2000000``.

Needs the ``fuzz`` extra. FOLDER takes what is found to be new; seeds are read from ``corpus``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

# numba can not compile what atheris has instrumented
COMPILED = ["formats.codecs.loops", "formats.codecs.rank_loops"]
with atheris.instrument_imports(include=["formats"], exclude=COMPILED):
    from tests.formats.fuzz.target import execute, without_checksums

CORPUS = Path(__file__).parent / "corpus"


def test_one_input(data: bytes) -> None:
    execute(data)


if __name__ == "__main__":
    with without_checksums():
        atheris.Setup([*sys.argv, str(CORPUS)], test_one_input)
        atheris.Fuzz()
