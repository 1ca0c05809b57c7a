"""Virtual tasks: merges and transfers of stored ones, which cost a few numbers in the index."""

from nps_store.recipes.catalog import Catalog, VirtualTask
from nps_store.recipes.combine import combined
from nps_store.recipes.flatten import flattened, users_of
from nps_store.recipes.merged import merged
from nps_store.recipes.recipe import LINEAR, RULES, Recipe, normalised

__all__ = [
    "LINEAR",
    "RULES",
    "Catalog",
    "Recipe",
    "VirtualTask",
    "combined",
    "flattened",
    "merged",
    "normalised",
    "users_of",
]
