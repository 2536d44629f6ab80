"""`calibrate`: from predicted and observed latencies to biases, drifts, and services whose plan must be kept.

Why it is so. A prediction that is wrong in the same way every night is corrected by what production measured, as far as
that can be believed and no further: corrections shift and widen predictions and never narrow them, since one service at
one load says little of another. What changes suddenly asks for a new measurement, and what was promised too much is not
followed by a bolder promise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from pydantic import Field

from catalog.cluster import Fact
from catalog.predictors import Predictor
from planner.calibrate.bias import MOST, NIGHTS, Bias, PhaseBias, bias, nights_of
from planner.calibrate.breaker import hold, open_breakers, optimistic
from planner.calibrate.compare import Comparison, Reading, enough, limits, reading, strategy_in_force
from planner.calibrate.drift import Drift, drifts
from planner.calibrate.scoreboard import markdown, rows, summary

#: Two-sided 90 %.
_Z = 1.645


class Calibration(Fact):
    """What production taught, as the night applies it."""

    at_hour: int
    """Comparisons up to then, hours since 1970-01-01 00:00 UTC."""
    decode: PhaseBias
    prefill: PhaseBias
    drifting: tuple[Drift, ...] = ()
    breakers: dict[str, str] = Field(default_factory=dict)
    """Services that keep what they have, with the reason."""


def calibrate(comparisons: Iterable[Comparison], at_hour: int) -> Calibration:
    """Learn from the comparisons of the last `NIGHTS` nights."""
    recent = [row for row in comparisons if 0 <= at_hour - row.at_hour <= NIGHTS * 24]
    decode = bias(nights_of(recent, "decode"), "decode")
    prefill = bias(nights_of(recent, "prefill"), "prefill")
    shifted = (*drifts(recent, "decode", decode.night), *drifts(recent, "prefill", prefill.night))
    return Calibration(
        at_hour=at_hour, decode=decode, prefill=prefill, drifting=shifted, breakers=open_breakers(recent, at_hour)
    )


def corrected(
    predictor: Predictor, calibration: Calibration, *, model: str, gpu: str, intent: str | None = None
) -> Predictor:
    """The predictor as production corrects it for an engine, or for one service on it; itself if nothing is known."""
    decode, prefill = (part.of(model, gpu, intent) for part in (calibration.decode, calibration.prefill))
    if calibration.decode.overall.nights + calibration.prefill.overall.nights == 0:
        return predictor
    factors = [min(max(math.exp(each.mean), 1 / MOST), MOST) for each in (decode, prefill)]
    shift = {
        phase: max((abs(d.shift) for d in calibration.drifting if (d.phase, d.model, d.gpu) == (phase, model, gpu)),
                   default=0.0) for phase in ("decode", "prefill")
    }  # fmt: skip
    scaled = predictor.scaled(decode=factors[0], prefill=factors[1])
    note = f"production, {decode.nights} nights: decode x{factors[0]:.3f}, prefill x{factors[1]:.3f}"
    return replace(
        scaled,
        decode_interval=_widened(predictor.decode_interval, decode, calibration.decode.night, shift["decode"]),
        prefill_interval=_widened(predictor.prefill_interval, prefill, calibration.prefill.night, shift["prefill"]),
        ttft_interval=_widened(predictor.ttft_ends, prefill, calibration.prefill.night, shift["prefill"]),
        notes=(*predictor.notes, note),
    )


def _widened(interval: tuple[float, float], known: Bias, night: float, shift: float) -> tuple[float, float]:
    """The interval around the corrected time: as wide as before, at least as what production leaves open, and a drift.

    Where nothing was measured the correction is what other engines have in common: the interval stays what it was.
    """
    left = math.exp(_Z * math.hypot(known.sd, night)) if known.nights else 1.0
    more = math.exp(shift)
    return min(interval[0], 1 / left) / more, max(interval[1], left) * more


__all__ = [
    "Bias",
    "Calibration",
    "Comparison",
    "Drift",
    "PhaseBias",
    "Reading",
    "calibrate",
    "corrected",
    "enough",
    "hold",
    "limits",
    "markdown",
    "optimistic",
    "reading",
    "rows",
    "strategy_in_force",
    "summary",
]
