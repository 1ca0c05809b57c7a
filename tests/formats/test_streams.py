from __future__ import annotations

from typing import TYPE_CHECKING

from formats import Container, streams, verify
from tests.formats.stores import build, expected_tensors, snapshot

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_long_stream_has_several_sections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SECTION_NBYTES", 100)
    path = build(tmp_path / "a.nps", "one", "two", storage="embedded")
    with Container.open(path) as store:
        sizes = [ref.nbytes for ref in store.base_reader().directory.streams["bits"]]
        assert sizes == [96, 2400, 82, 6144]
        assert len(store.directory("one").streams["scales"]) == 2
    assert verify(path, "decode") == []
    assert snapshot(path)["tasks"]["two"][0] == expected_tensors(1)
