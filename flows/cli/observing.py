"""Commands on production: `observe` what services served and forecast their next day, `calibrate` the predictions."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.errors import BadInput
from flows.cli import options

if TYPE_CHECKING:
    from flows.observe.stage import Seen, Sighting

At = Annotated[str | None, typer.Option(help="UTC time up to which telemetry is read, such as 2026-11-20T02:00; now.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(observe)
    app.command()(calibrate)


def observe(
    fleet: options.Fleet, *, at: At = None, root: options.Root = options.ROOT, as_json: options.Json = False
) -> None:
    """Read the services that Prometheus watches, forecast their next day, and keep it as their last good load.

    Exit 3 where the telemetry of a service is missing.
    """
    from flows.fleet import read_fleet  # noqa: PLC0415 - commands import what they need
    from flows.observe.stage import sight  # noqa: PLC0415
    from flows.site import store_at  # noqa: PLC0415

    loaded = read_fleet(fleet)
    if all(intent.workload.prometheus is None for intent in loaded.fleet.intents):
        raise BadInput("no workload says prometheus", place=str(fleet), mend="add prometheus: {select: {...}} to one")
    found = sight(loaded, store_at(root), at_s=seconds(at))
    for note in found.notes:
        sys.stderr.write(f"note: {note}\n")
    if as_json:
        options.print_json({"at_hour": found.at_hour, "services": [as_row(seen) for seen in found.services.values()]})
    else:
        options.print_tables(_table(found))
    if any(seen.source != "observed" for seen in found.services.values()):
        raise typer.Exit(3)


def calibrate(
    fleet: options.Fleet,
    *,
    at: At = None,
    root: options.Root = options.ROOT,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
) -> None:
    """Compare the plan in force with what its services measured, and correct the predictions of the nights to come."""
    from dataclasses import replace  # noqa: PLC0415

    from flows.calibrating import calibrate_fleet  # noqa: PLC0415
    from flows.fleet import read_fleet  # noqa: PLC0415
    from flows.site import site_at  # noqa: PLC0415
    from planner.calibrate import markdown, rows  # noqa: PLC0415

    now = seconds(at)
    found = calibrate_fleet(read_fleet(fleet), replace(site_at(root, out), clock=lambda: now))
    for note in found.notes:
        sys.stderr.write(f"note: {note}\n")
    for intent, reason in found.calibration.breakers.items():
        sys.stderr.write(f"breaker open: {intent}: {reason}\n")
    for drift in found.new_drifts:
        sys.stderr.write(f"drift: {drift.intent}: {drift.phase} has shifted by {drift.shift:+.1%}; probe it again\n")
    if as_json:
        options.print_json({
            "record": found.record,
            "comparisons": [row.model_dump(mode="json") for row in found.comparisons],
            "calibration": found.calibration.model_dump(mode="json"),
        })  # fmt: skip
    else:
        sys.stdout.write(markdown(rows(found.comparisons)))


def seconds(at: str | None) -> float:
    """Seconds since 1970 of a time in UTC, now where none is given."""
    if at is None:
        return time.time()
    try:
        read = datetime.fromisoformat(at)
    except ValueError:
        raise BadInput(f"{at[:40]!r} is no time", place="--at", mend="write it as 2026-11-20T02:00") from None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def as_row(seen: Seen) -> dict[str, Any]:
    """One service in JSON."""
    windows = [] if seen.forecast is None else seen.forecast.windows
    return {
        "intent": seen.intent,
        "source": seen.source,
        "workload": None if seen.workload is None else seen.workload.model_dump(mode="json"),
        "windows": [
            {"start_hour": w.start_hour, "end_hour": w.end_hour, "rate": w.rate, "low": w.low, "high": w.high}
            for w in windows
        ],
        "tested_days": None if seen.forecast is None else seen.forecast.tested_days,
        "busiest": None if seen.observed is None or seen.observed.busiest is None
        else seen.observed.busiest.model_dump(mode="json"),
        "notes": list(seen.notes),
        "record": seen.record,
    }  # fmt: skip


def _table(found: Sighting) -> Any:  # noqa: ANN401 - a Rich table
    from rich.table import Table  # noqa: PLC0415

    from planner.workload.observed import peak, typical  # noqa: PLC0415

    table = Table("service", "load from", "mean /s", "planned peak /s", "busiest hours", "prompt", "output",
                  "arrival cv", "prefix hits", title="next day")  # fmt: skip
    for seen in found.services.values():
        load = seen.workload
        if load is None or load.rate is None:
            table.add_row(seen.intent, seen.source, *["-"] * 7)
            continue
        window = "-" if seen.forecast is None else seen.forecast.peak.hours
        sizes = [f"{size:,.0f}" if (size := typical(each)) is not None else "-" for each in (load.prompt, load.output)]
        table.add_row(seen.intent, seen.source, f"{load.rate:.4g}", f"{peak(load):.4g}", window, *sizes,
                      f"{load.arrival_cv:g}", f"{load.prefix_hit_share:.0%}")  # fmt: skip
    return table
