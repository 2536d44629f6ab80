"""The scoreboard: predicted against observed, one row per service and night, and as markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from catalog.units import SECONDS_PER_HOUR
from planner.calibrate.breaker import optimistic
from planner.calibrate.compare import Comparison, Reading

COLUMNS = (
    "service", "hours from", "plan", "strategy", "requests/s", "planned", "TTFT predicted", "TTFT observed",
    "TTFT kept", "TPOT predicted", "TPOT observed", "TPOT kept", "verdict",
)  # fmt: skip


def rows(comparisons: Iterable[Comparison]) -> list[dict[str, Any]]:
    """One row per comparison, the newest night first, services in order."""
    return [_row(each) for each in sorted(comparisons, key=lambda each: (-each.at_hour, each.intent))]


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """A table; names from outside cannot break it."""
    if not found:
        return "Nothing was compared yet.\n"
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in COLUMNS) + " |" for row in found]
    return "\n".join(lines) + "\n"


def summary(comparisons: Sequence[Comparison]) -> dict[str, float | int | None]:
    """How good the predictions were: services, share inside the interval, median of |ln ratio| by phase."""
    result: dict[str, float | int | None] = {"comparisons": len(comparisons)}
    for name in ("ttft", "tpot"):
        readings = [reading for each in comparisons if (reading := getattr(each, name)) is not None]
        errors = sorted(abs(math.log(reading.ratio)) for reading in readings)
        result[f"{name}_inside"] = sum(r.inside for r in readings) / len(readings) if readings else None
        result[f"{name}_median_error"] = errors[len(errors) // 2] if errors else None
    return result


def verdict(row: Comparison) -> str:
    """What a comparison says, in words."""
    reason = optimistic(row)
    if reason is not None:
        return f"optimistic: {reason}"
    readings = [reading for reading in (row.ttft, row.tpot) if reading is not None]
    if not readings:
        return "not compared"
    if all(reading.inside for reading in readings):
        return "as predicted"
    return "faster than predicted" if all(r.observed <= r.high for r in readings) else "slower than predicted"


def _row(each: Comparison) -> dict[str, Any]:
    night = datetime.fromtimestamp(each.at_hour * SECONDS_PER_HOUR, tz=UTC).strftime("%Y-%m-%d %H:%M")
    row: dict[str, Any] = {
        "service": each.intent, "hours from": night, "plan": each.serial, "strategy": each.strategy,
        "requests/s": float(f"{each.rate:.4g}"), "planned": float(f"{each.planned_rate:.4g}"),
    }  # fmt: skip
    for name, reading in (("TTFT", each.ttft), ("TPOT", each.tpot)):
        row |= _latency(name, reading)
    return row | {"verdict": verdict(each)}


def _latency(name: str, reading: Reading | None) -> dict[str, str]:
    if reading is None:
        return dict.fromkeys((f"{name} predicted", f"{name} observed", f"{name} kept"), "-")
    kept = "-"
    if reading.within is not None:
        low, high = reading.within
        kept = f"{low:.1%}" if high - low < 5e-4 else f"{low:.1%} to {high:.1%}"
    spread = f" ({_ms(reading.low)} to {_ms(reading.high)})"
    return {f"{name} predicted": _ms(reading.predicted) + spread, f"{name} observed": _ms(reading.observed),
            f"{name} kept": kept}  # fmt: skip


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms"


def _cell(value: object) -> str:
    text = str(value).replace("\\", "\\\\").replace("|", "\\|")
    return " ".join(text.split()).replace("<", "&lt;")
