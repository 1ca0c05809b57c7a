"""What is sent to each route, and when its first token is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROUTES: dict[str, Callable[[str, str, int], dict[str, Any]]] = {
    "/classify": lambda model, text, _: {"model": model, "input": text},
    "/v1/embeddings": lambda model, text, _: {"model": model, "input": text},
    "/v1/completions": lambda model, text, n: {
        "model": model, "prompt": text, "max_tokens": n, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True},
    },
    "/v1/chat/completions": lambda model, text, n: {
        "model": model, "messages": [{"role": "user", "content": text}], "max_tokens": n,
        "temperature": 0, "stream": True, "stream_options": {"include_usage": True},
    },
}  # fmt: skip
"""Path to the body of a request, of model, text and most tokens of the answer."""


def event_of(line: str) -> dict[str, Any] | None:
    """The event on one line of a stream; None for what is not one, and for the last."""
    name, _, content = line.partition(":")
    if name != "data" or content.strip() == "[DONE]":
        return None
    event: dict[str, Any] = json.loads(content)
    return event
