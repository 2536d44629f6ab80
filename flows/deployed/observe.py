"""The flow `observe`: read the services that Prometheus watches, forecast their next day, and keep it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger
from prefect.settings import get_current_settings

from flows import events
from flows.artifacts import shown, table
from flows.fleet import read_fleet
from flows.forms import Where
from flows.observe.stage import Seen, sight
from flows.security import check_server
from flows.site import store_at
from planner.workload.observed import peak

OBSERVE_S = 1800


@flow(
    name="observe",
    flow_run_name="observe-{fleet}",
    timeout_seconds=OBSERVE_S,
    persist_result=False,
    result_serializer="json",
)
def observe(fleet: Where = "examples/fleet.yaml", root: Where = "var") -> int:
    """Read every watched service up to the last whole hour; return how many were read.

    Args:
        fleet: Path of fleet.yaml, relative to the folder that was deployed from.
        root: Run data, a folder or a URL.
    """
    check_server(get_current_settings().api.url)
    with events.refusals_told():
        found = sight(read_fleet(Path(fleet)), store_at(root), at_s=time.time())
    for note in found.notes:
        get_run_logger().warning(note)
    rows = [row(seen) for seen in found.services.values()]
    with shown():
        table(rows, key="observed", description="The next day of each watched service")
    return sum(seen.source == "observed" for seen in found.services.values())


def row(seen: Seen) -> dict[str, Any]:
    """One service as it is shown."""
    load, ahead = seen.workload, seen.forecast
    return {
        "service": seen.intent,
        "load from": seen.source,
        "mean /s": "-" if load is None or load.rate is None else f"{load.rate:.4g}",
        "planned peak /s": "-" if load is None else f"{peak(load):.4g}",
        "busiest window": "-" if ahead is None else f"{ahead.peak.hours} UTC",
        "90 % interval": "-" if ahead is None else f"{ahead.peak.low:.4g} to {ahead.peak.high:.4g}",
        "arrival cv": "-" if load is None else f"{load.arrival_cv:g}",
        "notes": "; ".join(seen.notes),
    }
