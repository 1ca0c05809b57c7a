"""Keys in the Authorization header: one for clients, one for operators."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from fastapi import Request  # noqa: TC002 - read by the framework
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import SecretStr


def require_key(key: SecretStr | None, *, absent: str | None = None) -> Callable[[Request], None]:
    """A dependency that lets only holders of `key` through.

    Args:
        key: The key; None where none is configured.
        absent: Why everybody is refused when none is configured; None lets everybody through.
    """

    def check(request: Request) -> None:
        if key is None:
            if absent is not None:
                raise HTTPException(403, absent)
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        expected = key.get_secret_value().encode()
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), expected):
            raise HTTPException(
                401,
                "a valid key is required: send it as 'Authorization: Bearer KEY'",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check
