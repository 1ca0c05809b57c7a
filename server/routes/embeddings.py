"""`POST /v1/embeddings`: a vector per input."""

from __future__ import annotations

import base64
import time
import uuid
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request

from server.answering import Query
from server.errors import BadRequestError
from server.http.disconnect import unless_disconnected
from server.protocol.embeddings import EmbeddingData, EmbeddingRequest, EmbeddingResponse
from server.protocol.pooling import Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from server.service import Service


def embedding_routes(service: Service) -> APIRouter:
    """The routes of embedding."""
    router = APIRouter(tags=["inference"])

    @router.post("/v1/embeddings")
    async def embed(body: EmbeddingRequest, request: Request) -> EmbeddingResponse:
        """Embed every input by the base or the task that `model` names."""
        query = Query(body.model, "embed", body.input, body.max_tokens)
        answer = await unless_disconnected(
            request, service.answer(query, trace=request.state.trace)
        )
        n_dims = answer.rows.shape[1]
        if body.dimensions not in (None, n_dims):
            raise BadRequestError(
                f"the model {answer.model!r} has {n_dims} dimensions and cannot give "
                f"{body.dimensions}",
                param="dimensions",
            )
        data = [
            EmbeddingData(index=index, embedding=_encoded(row, body.encoding_format))
            for index, row in enumerate(answer.rows)
        ]
        return EmbeddingResponse(
            id=f"embd-{body.request_id or uuid.uuid4().hex}",
            created=int(time.time()),
            model=answer.model,
            data=data,
            usage=Usage.of_prompt(answer.n_tokens),
        )

    return router


def _encoded(row: NDArray[np.float32], encoding_format: str) -> list[float] | str:
    if encoding_format == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode("ascii")
    return [float(x) for x in row]
