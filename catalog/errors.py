"""Errors that fleetplan raises: a place, the value, the mend.

    FleetplanError
    ├── BadInput          what a user wrote is wrong: the message names where, what and what to do (exit 2)
    ├── CorruptRecord     a catalog file does not match its digest (exit 1)
    └── StalePlan         the plan was computed for another fleet or base than the one in force (exit 1)

Infeasible is never an error: it is a `planner.strategies.Rejection` or an unmet intent in the plan.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FleetplanError(Exception):
    """Root of everything fleetplan raises on purpose."""


class BadInput(FleetplanError):
    """A user's input is wrong. The text reads `place: what is wrong with the value; what to do`."""

    def __init__(self, what: str, *, place: str = "", mend: str = "") -> None:
        self.what = what
        self.place = place
        self.mend = mend
        super().__init__(f"{place}: " * bool(place) + what + f"; {mend}" * bool(mend))


class CorruptRecord(FleetplanError):
    """A record of the catalog does not match the digest in its name, or cannot be read."""


class StalePlan(FleetplanError):
    """A plan refers to a base plan or a fleet that is no longer the one in force."""


def near_names(name: str, known: Iterable[str]) -> str:
    """Suggest up to three known names close to `name`, as `did you mean 'a' or 'b'?`, else list a few."""
    names = sorted(known)
    folded = {candidate.casefold(): candidate for candidate in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(folded[match]) for match in close) + "?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known names: {shown}" if names else "no names are known"
