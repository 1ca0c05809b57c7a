"""`GET /v1/models`: the base and every task of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from server.errors import ModelNotFoundError
from server.protocol.models import ModelCard, ModelList, StoreInfo
from server.residency.resident import State

if TYPE_CHECKING:
    from server.service import Service


def model_routes(service: Service, *, started_at: int) -> APIRouter:
    """The routes that list models.

    Args:
        service: Whose catalog is listed.
        started_at: Unix seconds, shown as the base's creation.
    """
    router = APIRouter(tags=["models"])

    @router.get("/v1/models")
    async def list_models() -> ModelList:
        """List the base and every task."""
        return ModelList(data=_cards(service, started_at))

    @router.get("/v1/models/{model:path}")
    async def get_model(model: str) -> ModelCard:
        """Describe one model."""
        cards = {card.id: card for card in _cards(service, started_at)}
        if model not in cards:
            raise ModelNotFoundError.of(model, cards)
        return cards[model]

    return router


def _cards(service: Service, started_at: int) -> list[ModelCard]:
    table = service.table
    catalog = table.catalog
    kinds = {r.task: r.prepared.kind for r in table if r.state is State.READY}
    base = ModelCard(
        id=catalog.base,
        created=started_at,
        root=catalog.base,
        nps=StoreInfo(state=table.state(None), kind=kinds.get(None)),
    )
    tasks = [
        ModelCard(
            id=name,
            created=info.created,
            root=catalog.base,
            parent=catalog.base,
            nps=StoreInfo(
                state=table.state(name),
                kind=kinds.get(name),
                content_hash=info.content_hash,
                nbytes=info.nbytes,
                details=dict(info.details),
            ),
        )
        for name, info in sorted(catalog.tasks.items())
    ]
    # A task that bears the base's name is what that name means.
    return ([] if catalog.base in catalog.tasks else [base]) + tasks
