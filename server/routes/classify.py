"""`POST /classify`: probabilities and a label per input."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request

from server.answering import Query
from server.http.disconnect import unless_disconnected
from server.protocol.classify import (
    ClassificationData,
    ClassificationRequest,
    ClassificationResponse,
)
from server.protocol.pooling import Usage

if TYPE_CHECKING:
    from server.service import Service


def classify_routes(service: Service) -> APIRouter:
    """The routes of classification."""
    router = APIRouter(tags=["inference"])

    @router.post("/classify")
    async def classify(body: ClassificationRequest, request: Request) -> ClassificationResponse:
        """Classify every input by the task that `model` names."""
        query = Query(body.model, "classify", body.input, body.max_tokens)
        answer = await unless_disconnected(
            request, service.answer(query, trace=request.state.trace)
        )
        data = [
            ClassificationData(
                index=index,
                label=answer.labels[int(probs.argmax())],
                probs=probs.tolist(),
                num_classes=len(probs),
            )
            for index, probs in enumerate(answer.rows)
        ]
        return ClassificationResponse(
            id=f"classify-{body.request_id or uuid.uuid4().hex}",
            created=int(time.time()),
            model=answer.model,
            data=data,
            usage=Usage.of_prompt(answer.n_tokens),
        )

    return router
