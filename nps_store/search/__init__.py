"""Neural parameter search: which elements of a task vector to keep, and with what weight.

Sees arrays and a callable objective; knows no files, no model class and no service.
"""

from nps_store.search.continuation import MAX_KEEP, Found, RateSearch
from nps_store.search.optimizer import Stopwatch
from nps_store.search.refinement import Learner, Refinement
from nps_store.search.rule import RULES, Rule
from nps_store.search.selection import Candidate, Selection
from nps_store.search.weights import Objective, Plan

__all__ = [
    "MAX_KEEP",
    "RULES",
    "Candidate",
    "Found",
    "Learner",
    "Objective",
    "Plan",
    "RateSearch",
    "Refinement",
    "Rule",
    "Selection",
    "Stopwatch",
]
