"""From texts to token ids, and which ids a model can take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nps_store.modeling import PreparedTask
    from server.engines import TokenIds


_NO_LIMIT = 1 << 62


def encode(
    prepared: PreparedTask, texts: Sequence[str], *, max_tokens: int | None
) -> list[TokenIds]:
    """Token ids of each text, special tokens included.

    Args:
        prepared: Whose tokenizer it is.
        texts: Any texts; too long ones are truncated.
        max_tokens: Truncate to this many; None is the model's limit.

    Raises:
        BadRequestError: `max_tokens` leaves no room for the text between the special tokens.
    """
    token_ids = prepared.encode(texts)
    if max_tokens is None or all(len(ids) <= max_tokens for ids in token_ids):
        return token_ids
    n_special = prepared.tokenizer.num_special_tokens_to_add()
    if max_tokens <= n_special:
        raise BadRequestError(
            f"truncate_prompt_tokens: expected more than the {n_special} special tokens, "
            f"got {max_tokens}",
            param="truncate_prompt_tokens",
        )
    encoded = prepared.tokenizer(list(texts), truncation=True, max_length=max_tokens)
    return [list(ids) for ids in encoded["input_ids"]]


def check_token_ids(prepared: PreparedTask, token_ids: Sequence[TokenIds]) -> None:
    """Refuse ids outside the vocabulary and inputs beyond the model's limit.

    An id without a row would be an exception on a CPU and the end of the process on a GPU.

    Raises:
        BadRequestError: Names the first input at fault.
    """
    config = prepared.shell.config
    n_rows = int(config.vocab_size)
    limit = min(
        int(getattr(config, "max_position_embeddings", _NO_LIMIT)),
        int(prepared.tokenizer.model_max_length),
    )
    for index, ids in enumerate(token_ids):
        if len(ids) > limit:
            raise BadRequestError(
                f"input {index}: expected at most {limit} token ids, got {len(ids)}", param="input"
            )
        outside = [i for i in ids if not 0 <= i < n_rows]
        if outside:
            raise BadRequestError(
                f"input {index}: expected token ids from 0 to {n_rows - 1}, got {outside[0]}",
                param="input",
            )
