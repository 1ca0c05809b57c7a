"""Virtual tasks: merges and transfers of stored ones, which cost a few numbers in the index."""

from nps_store.recipes.catalog import Catalog, VirtualTask
from nps_store.recipes.combine import combined
from nps_store.recipes.flatten import flattened, users_of
from nps_store.recipes.merged import merged
from nps_store.recipes.recipe import (
    BANDS,
    LINEAR,
    MAX_GROUPS,
    MOST_WEIGHTS,
    N_BANDS,
    RULES,
    Recipe,
    band_params,
    normalised,
)

__all__ = [
    "BANDS",
    "LINEAR",
    "MAX_GROUPS",
    "MOST_WEIGHTS",
    "N_BANDS",
    "RULES",
    "Catalog",
    "Recipe",
    "VirtualTask",
    "band_params",
    "combined",
    "flattened",
    "merged",
    "normalised",
    "users_of",
]
