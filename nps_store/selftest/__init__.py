"""Known answers: whether this installation computes what it should, in about two seconds.

The first run on a machine may take some more, while numba compiles its loops.
"""

from nps_store.selftest.checks import CHECKS, Outcome, run

__all__ = ["CHECKS", "Outcome", "run"]
