"""Text that every Debian machine or Python installation has, as a corpus for language models.

    python -m benchmarks.corpus --out .cache/corpus/lm.jsonl.xz

The corpus is whatever this machine holds, so that nothing has to be fetched and no large file is in
git; results name its hash. Splits are by file, and near-copies of earlier files are left out.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence, Set

Split = Literal["train", "calibration", "test"]
DEFAULT_PATH = Path(__file__).parent.parent / ".cache" / "corpus" / "lm.jsonl.xz"
MAX_FILE_NBYTES = 32 << 10
"""Of a long file only the beginning is taken: many files teach more than a few long ones."""
SHORTEST_LINE = 20
"""Lines below this length (braces, blank lines) say nothing about what was copied."""
MAX_COPIED = 0.5
"""A file with a larger share of its lines in earlier files is a near-copy."""
FOREIGN = frozenset({"site-packages", "dist-packages", "__pycache__"})


@dataclass(frozen=True)
class Document:
    """One file's text.

    Attributes:
        domain: Name of its source.
        split: What it may be used for.
        text: Its beginning.
    """

    domain: str
    split: Split
    text: str


@dataclass(frozen=True)
class Source:
    """Files of one register.

    Attributes:
        domain: Name of the register.
        roots: Folders to look in.
        patterns: What the files are called.
        nbytes: How much to take.
    """

    domain: str
    roots: tuple[Path, ...]
    patterns: tuple[str, ...]
    nbytes: int


GENERAL = ("perl", "header", "doc", "licence")
"""Registers that the base learns."""
DOMAINS = ("python", "man", "changelog")
"""Registers that fine-tunes learn; rare in the base's text."""

_DOC = Path("/usr/share/doc")
SOURCES = (
    Source("perl", (Path("/usr/share/perl"), Path("/usr/share/perl5")),
           ("*.pm", "*.pl", "*.pod"), 7_000_000),
    Source("header", (Path("/usr/include"),), ("*.h", "*.hpp"), 7_000_000),
    Source("doc", (_DOC,), ("README*", "NEWS*", "*.txt", "*.txt.gz", "*.md", "*.rst"), 7_000_000),
    Source("licence", (_DOC,), ("copyright",), 3_000_000),
    Source("python", (Path(sysconfig.get_path("stdlib")),), ("*.py",), 9_000_000),
    Source("man", tuple(Path(f"/usr/share/man/man{n}") for n in range(1, 9)), ("*.gz",), 9_000_000),
    Source("changelog", (_DOC,), ("changelog*.gz",), 9_000_000),
)  # fmt: skip


def build(sources: Sequence[Source]) -> Iterator[Document]:
    """Documents of every source, in an order that depends on nothing but the files' paths.

    Raises:
        FileNotFoundError: This machine has no file of a source.
    """
    seen: set[bytes] = set()
    for source in sources:
        taken = 0
        for key, path in _in_random_order(source):
            text = _read(path)
            if text is None:
                continue
            text = text.encode()[:MAX_FILE_NBYTES].decode(errors="ignore")
            if not text.strip() or copied_share(text, seen) > MAX_COPIED:
                continue
            seen |= lines_of(text)
            taken += len(text.encode())
            yield Document(source.domain, _split(key), text)
            if taken >= source.nbytes:
                break
        if not taken:
            raise FileNotFoundError(
                f"no text for {source.domain!r} below {', '.join(map(str, source.roots))}; "
                "build the corpus on a machine that has it and name the file with --corpus"
            )


def lines_of(text: str) -> set[bytes]:
    """Digests of the lines that are long enough to tell where they are from."""
    stripped = (line.strip() for line in text.splitlines())
    return {_digest(line) for line in stripped if len(line) >= SHORTEST_LINE}


def copied_share(text: str, seen: Set[bytes]) -> float:
    """Share of a text's telling lines that `seen` has; 0 where there are none."""
    lines = lines_of(text)
    return len(lines & seen) / len(lines) if lines else 0.0


def write(path: Path, documents: Iterable[Document]) -> Path:
    """Write a corpus as xz-compressed JSON lines; the file appears once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with lzma.open(partial, "wt", encoding="utf-8", preset=6) as out:
        out.writelines(json.dumps(asdict(d), ensure_ascii=False) + "\n" for d in documents)
    return partial.rename(path)


def read(path: Path) -> list[Document]:
    """Read a corpus."""
    with lzma.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        return [Document(**json.loads(line)) for line in lines]


def file_hash(path: Path) -> str:
    """Which corpus a result was measured on (sha256 of its file)."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _in_random_order(source: Source) -> list[tuple[bytes, Path]]:
    found = {
        (_digest(str(path.relative_to(root))), path)
        for root in source.roots
        for pattern in source.patterns
        for path in root.rglob(pattern)
        if path.is_file() and not path.is_symlink() and FOREIGN.isdisjoint(path.parts)
    }
    return sorted(found)


def _split(key: bytes) -> Split:
    """A tenth of the files each to calibrate and to test with."""
    splits: dict[int, Split] = {0: "calibration", 1: "test"}
    return splits.get(key[-1] % 10, "train")


def _read(path: Path) -> str | None:
    """A file as text; None where it is not text, or only names another page."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, EOFError, UnicodeDecodeError):
        return None
    return None if text.startswith(".so ") or "\0" in text else text


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def main(
    out: Annotated[Path, typer.Option(help="Where to write it (.jsonl.xz).")] = DEFAULT_PATH,
) -> None:
    """Collect the corpus of this machine."""
    write(out, build(SOURCES))
    documents = read(out)
    for source in SOURCES:
        texts = [d.text for d in documents if d.domain == source.domain]
        print(f"{source.domain}: {len(texts)} files, {sum(map(len, texts)):,} characters")
    print(f"{out}: {out.stat().st_size:,} bytes, sha256 {file_hash(out)}")


if __name__ == "__main__":
    typer.run(main)
