"""Writes the seeds of the corpus: ``python -m tests.formats.fuzz.seed``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from formats import Container
from formats.codecs import zstd
from formats.layout import DATA_OFFSET
from formats.sections import SectionRef
from tests.formats.fuzz.target import SEPARATOR
from tests.formats.stores import build, build_factors, build_outlying
from tests.formats.test_exhaustive import small_store

CORPUS = Path(__file__).parent / "corpus"


def parts(path: Path) -> dict[str, bytes]:
    """Inputs of three parts, one a task."""
    made = {}
    with Container.open(path) as store:
        base = _text(store, store.root.base)
        entries = dict(store.root.tasks)
        if store.root.base_data is not None:
            entries["base"] = store.root.base_data
        for name, entry in entries.items():
            body = SectionRef(entry.first_offset, entry.nbytes - entry.directory.nbytes, "")
            extent = bytes(store.section(body))
            made[f"{name}-{path.stem}"] = SEPARATOR.join(
                [base, _text(store, entry.directory), extent]
            )
    return made


def _text(store: Container, ref: SectionRef) -> bytes:
    frame = store.section(ref)
    return zstd.decompress(frame, zstd.declared_nbytes(frame))


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.nps"
        seeds = {"store": small_store(small)[DATA_OFFSET:]}
        every = build(Path(folder) / "every.nps", "one")
        outlying = build_outlying(Path(folder) / "outlying.nps")
        factors = build_factors(Path(folder) / "factors.nps")
        for path in (small, every, outlying, factors):
            seeds |= parts(path)
    for name, data in seeds.items():
        (CORPUS / f"seed-{name}").write_bytes(data)
        sys.stdout.write(f"{name}: {len(data)} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
