"""Streams on the way in: chunks gather per stream and leave as sections of bounded size."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from formats.encoding import SECTION_COMPRESSED, STREAMS

if TYPE_CHECKING:
    from formats.append import Appender
    from formats.sections import SectionRef

SECTION_NBYTES = 64 << 20
"""A section is closed before a chunk would take it beyond this; a longer chunk is alone."""


class StreamBuffers:
    """Gathers the chunks of one task.

    Args:
        appender: Where sections go.
        origin: Start of the task's extent; section offsets count from it.
    """

    def __init__(self, appender: Appender, origin: int) -> None:
        self._appender = appender
        self._origin = origin
        self._chunks: dict[str, list[bytes]] = {stream: [] for stream in STREAMS}
        self._nbytes = dict.fromkeys(STREAMS, 0)
        self._sections: dict[str, list[SectionRef]] = {stream: [] for stream in STREAMS}

    def add(self, stream: str, chunk: bytes) -> None:
        """Appends a chunk to its stream."""
        if self._nbytes[stream] and self._nbytes[stream] + len(chunk) > SECTION_NBYTES:
            self._flush(stream)
        self._chunks[stream].append(chunk)
        self._nbytes[stream] += len(chunk)

    def finish(self) -> dict[str, tuple[SectionRef, ...]]:
        """Writes what is left; sections of every stream that has any."""
        for stream in STREAMS:
            if self._nbytes[stream]:
                self._flush(stream)
        return {stream: tuple(refs) for stream, refs in self._sections.items() if refs}

    def _flush(self, stream: str) -> None:
        chunks = self._chunks[stream]
        if stream in SECTION_COMPRESSED:
            ref = self._appender.compressed(b"".join(chunks))
        else:
            ref = self._appender.section(*chunks)
        self._sections[stream].append(replace(ref, offset=ref.offset - self._origin))
        self._chunks[stream] = []
        self._nbytes[stream] = 0
