"""What is known of one request by the time it is logged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RequestTrace:
    """Filled in along the way; never holds a text of the client's.

    Attributes:
        task: Name of the base or of a task of the store; None where the request named none of them.
        content_hash: The version of the task that answered.
        generation: The store generation at that time.
        cache: "hit" if the task was resident when the request came, else "miss".
        queue_s: Seconds from the queue to the first batch.
        switch_s: Seconds of weight switching for its batches.
    """

    request_id: str
    task: str | None = None
    content_hash: str | None = None
    generation: int | None = None
    cache: str | None = None
    n_inputs: int = 0
    n_tokens: int = 0
    queue_s: float = 0.0
    switch_s: float = 0.0
    error: str | None = None
