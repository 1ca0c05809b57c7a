"""What `/classify` and `/v1/embeddings` have in common."""

from __future__ import annotations

from typing import Annotated, Literal, TypeGuard

from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

_EXPECTED = "expected a text, a list of texts, a list of token ids, or a list of such lists"


def _is_token_ids(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


def _as_inputs(value: object) -> list[str] | list[list[int]]:
    """A list with one entry per input, of texts or of token ids."""
    if isinstance(value, str):
        return [value]
    if _is_token_ids(value):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value):
            return value
        if all(_is_token_ids(item) for item in value):
            return value
    raise PydanticCustomError("inputs", _EXPECTED)


Inputs = Annotated[
    list[str] | list[list[int]],
    PlainValidator(_as_inputs),
    WithJsonSchema(
        {
            "description": _EXPECTED,
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
                {"type": "array", "items": {"type": "integer"}, "minItems": 1},
                {
                    "type": "array",
                    "items": {"type": "array", "items": {"type": "integer"}, "minItems": 1},
                    "minItems": 1,
                },
            ],
        }
    ),
]


class PoolingRequest(BaseModel):
    """The fields of both requests."""

    model: str | None = Field(default=None, description="A task or the base; the base if left out.")
    input: Inputs
    user: str | None = None
    request_id: str | None = Field(
        default=None, max_length=128, description="Becomes a part of the answer's `id`."
    )
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = Field(
        default=None,
        description="Keep this many tokens of a text, special ones included; -1 or none: as many "
        "as the model takes. Token ids are never truncated.",
    )
    truncation_side: Literal["right"] | None = None
    padding: Literal["do_not_pad"] | None = None
    add_special_tokens: Literal[True] = True
    use_activation: Literal[True] | None = None
    priority: Literal[0] = 0

    @property
    def max_tokens(self) -> int | None:
        """The truncation asked for; None is the model's own limit."""
        asked = self.truncate_prompt_tokens
        return None if asked is None or asked < 0 else asked


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: None = None

    @classmethod
    def of_prompt(cls, n_tokens: int) -> Usage:
        """Usage of a request that generates nothing."""
        return cls(prompt_tokens=n_tokens, total_tokens=n_tokens)
