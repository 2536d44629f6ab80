"""The flow `calibrate`: predicted against observed, service by service, as a scoreboard, corrections and drifts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger
from prefect.settings import get_current_settings

from flows import events
from flows.artifacts import shown, table
from flows.calibrating import Calibrated, calibrate_fleet
from flows.fleet import read_fleet
from flows.forms import Where
from flows.security import check_server
from flows.site import site_at
from planner.calibrate import rows, summary

CALIBRATE_S = 3600
#: Services that the page tells of one by one; the table has them all.
SHOWN = 100


@flow(
    name="calibrate",
    flow_run_name="calibrate-{fleet}",
    timeout_seconds=CALIBRATE_S,
    persist_result=False,
    result_serializer="json",
)
def calibrate(fleet: Where = "examples/fleet.yaml", root: Where = "var", out: Where = "plans") -> int:
    """Compare the plan in force with what its services measured over their busiest hours; return how many were.

    Args:
        fleet: Path of fleet.yaml, relative to the folder that was deployed from.
        root: Run data, a folder or a URL.
        out: Published plans.
    """
    check_server(get_current_settings().api.url)
    with events.refusals_told():
        found = calibrate_fleet(read_fleet(Path(fleet)), site_at(root, out))
    for note in found.notes:
        get_run_logger().warning(note)
    show(found)
    for drift in found.new_drifts:
        events.emit(events.DRIFT, f"intent.{drift.intent}", drift.model_dump(mode="json"))
    return len(found.comparisons)


def show(found: Calibrated) -> None:
    """The scoreboard of all nights as a table, and what this night's comparisons say as a page."""
    board = [brief(row) for row in rows(found.history)]
    told = [sentence(row) for row in rows(found.comparisons)[:SHOWN]]
    lines = ["# Predicted against observed", "", *_short(found), "", *told]
    with shown():
        table(board, key="scoreboard", description="Predicted against observed, the newest night first")
        create_markdown_artifact("\n".join(lines), key="calibration", description="What production taught")


def brief(row: dict[str, Any]) -> dict[str, Any]:
    """One comparison as wide as Prefect's page."""
    ratios = {
        f"{name} predicted → observed": f"{row[f'{name} predicted'].partition(' (')[0]} → {row[f'{name} observed']}"
        for name in ("TTFT", "TPOT")
    }
    verdict = row["verdict"].partition(":")[0]
    head = {"hours from": row["hours from"], "service": row["service"], "requests/s": row["requests/s"]}
    return {**head, **ratios, "verdict": verdict}


def sentence(row: dict[str, Any]) -> str:
    """One comparison in words, with the intervals."""
    load = f"{row['requests/s']} requests/s (planned for {row['planned']})"
    said = [
        f"{name} {row[f'{name} predicted']} predicted, {row[f'{name} observed']} observed" for name in ("TTFT", "TPOT")
    ]
    return f"- **{row['service']}**, {row['strategy']}, {load}: {'; '.join(said)}: {row['verdict']}"


def _short(found: Calibrated) -> list[str]:
    counted = summary(found.history)
    lines = [f"{len(found.comparisons)} services compared, {counted['comparisons']} comparisons in all."]
    lines += [f"- Breaker open: **{intent}**: {reason}" for intent, reason in found.calibration.breakers.items()]
    lines += [f"- Drift: **{each.intent}**, {each.phase} by {each.shift:+.1%}" for each in found.calibration.drifting]
    return [*lines, *(f"- {note}" for note in found.notes)]
