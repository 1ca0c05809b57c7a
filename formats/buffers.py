"""The name for "bytes somebody else owns"; Python 3.11 has no Buffer type of its own."""

from __future__ import annotations

from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
