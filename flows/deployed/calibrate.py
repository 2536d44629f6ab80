"""The flow `calibrate`: predicted against observed, service by service, as a scoreboard, corrections and drifts."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger
from prefect.settings import get_current_settings

from catalog.errors import FleetplanError
from flows import events
from flows.artifacts import TABLE_ROWS
from flows.calibrating import Calibrated, calibrate_fleet
from flows.fleet import read_fleet
from flows.forms import Where
from flows.security import check_server
from flows.site import site_at
from planner.calibrate import markdown, rows, summary

CALIBRATE_S = 3600
#: Rows of the scoreboard that markdown shows; the table artifact has them all.
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
    try:
        found = calibrate_fleet(read_fleet(Path(fleet)), site_at(root, out))
    except FleetplanError as error:
        events.refused(error)
        raise
    for note in found.notes:
        get_run_logger().warning(note)
    show(found)
    for drift in found.new_drifts:
        events.emit(events.DRIFT, f"intent.{drift.intent}", drift.model_dump(mode="json"))
    return len(found.comparisons)


def show(found: Calibrated) -> None:
    """The scoreboard as a table and as a page."""
    board = rows(found.history)
    create_table_artifact(board[:TABLE_ROWS], key="scoreboard", description="Predicted against observed")
    lines = ["# Predicted against observed", "", *_short(found), "", markdown(board[:SHOWN])]
    create_markdown_artifact("\n".join(lines), key="calibration", description="What production taught")


def _short(found: Calibrated) -> list[str]:
    counted = summary(found.history)
    lines = [f"{len(found.comparisons)} services compared, {counted['comparisons']} comparisons in all."]
    lines += [f"- Breaker open: **{intent}**: {reason}" for intent, reason in found.calibration.breakers.items()]
    lines += [f"- Drift: **{each.intent}**, {each.phase} by {each.shift:+.1%}" for each in found.calibration.drifting]
    return [*lines, *(f"- {note}" for note in found.notes)]
