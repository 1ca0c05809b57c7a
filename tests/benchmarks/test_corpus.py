"""The corpus: what is taken, what is left out, and that nothing is lost on the way to disk."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import corpus
from benchmarks.corpus import Document, Source

if TYPE_CHECKING:
    from pathlib import Path


def page(number: int, n_lines: int = 6) -> str:
    return "".join(f"page {number} tells in line {n} what it has to\n" for n in range(n_lines))


def source(root: Path, *, nbytes: int = 10**6) -> Source:
    return Source("man", (root,), ("*.txt", "*.gz"), nbytes)


def test_what_is_taken_and_what_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text(page(1))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(page(2).encode()))
    (tmp_path / "long.txt").write_text(page(3, n_lines=2000))
    (tmp_path / "a_copy.txt").write_text(page(1) + "and one line of its own at the end\n")
    (tmp_path / "redirect.gz").write_bytes(gzip.compress(b".so man1/other.1\n"))
    (tmp_path / "broken.gz").write_bytes(gzip.compress(page(4).encode())[:-9])
    (tmp_path / "latin1.txt").write_bytes("größer".encode("latin-1"))
    (tmp_path / "other.py").write_text(page(5))
    (tmp_path / "link.txt").symlink_to(tmp_path / "other.py")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "foreign.txt").write_text(page(6))
    texts = [d.text for d in corpus.build([source(tmp_path)])]
    starts = {text.split(" tells")[0] for text in texts}
    assert starts == {"page 1", "page 2", "page 3"}
    assert len(texts) == 3  # of two near-copies the one that comes first
    assert max(len(text.encode()) for text in texts) == corpus.MAX_FILE_NBYTES


def test_splits_are_by_path_and_no_more_is_taken_than_asked(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number}.txt").write_text(page(number))
    documents = list(corpus.build([source(tmp_path)]))
    assert documents == list(corpus.build([source(tmp_path)]))
    counts = [sum(d.split == split for d in documents) for split in ("calibration", "test")]
    assert len(documents) == 200
    assert all(5 < count < 40 for count in counts)
    some = list(corpus.build([source(tmp_path, nbytes=50 * len(page(100)))]))
    assert some == documents[: len(some)]
    assert 50 <= len(some) <= 52


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'man'.*--corpus"):
        list(corpus.build([source(tmp_path)]))


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_reads_what_was_written(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("corpus") / "deep" / "c.jsonl.xz"
    documents = [Document("man", "train", text) for text in texts]
    corpus.write(path, documents)
    assert corpus.read(path) == documents
    assert list(path.parent.iterdir()) == [path]


def test_copied_share() -> None:
    seen = corpus.lines_of(page(1))
    assert corpus.copied_share(page(1), seen) == 1
    assert corpus.copied_share(page(2), seen) == 0
    assert corpus.copied_share(page(1) + page(2), seen) == 0.5
    assert corpus.copied_share("}\n{\n", seen) == 0
