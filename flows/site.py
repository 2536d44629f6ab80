"""`Site`: where a night reads and writes, and who measures for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from catalog.store import Plans, Store
from probes.runners import Runner

#: Where below the root the catalog's records lie.
CATALOG = "catalog"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site:
    """The stores of a fleet, and the runner of its probes."""

    store: Store
    plans: Plans
    proposals: Plans | None = None
    """Plans that wait for a review."""
    shadows: Plans | None = None
    """What shadow nights would have published."""
    measured_by: str = "reference"
    """Name of the runner whose fingerprints are used."""
    runner: Runner | None = None
    """By default the published kernel tables."""
    clock: Callable[[], float] = time.time
    """Seconds since 1970: up to when telemetry is read."""


def store_at(root: str) -> Store:
    """Open the catalog's records below a root."""
    return Store(f"{root.rstrip('/')}/{CATALOG}")


def site_at(root: str, out: str) -> Site:
    """Open the stores below a root and the published plans."""
    below = root.rstrip("/")
    proposals, shadows = Plans(f"{below}/proposals"), Plans(f"{below}/shadows")
    return Site(store=store_at(root), plans=Plans(out), proposals=proposals, shadows=shadows)
