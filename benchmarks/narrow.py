"""`python -m benchmarks narrow [--json] [--data DIR]`: by how much 0, 1, 2 and 3 measured runs narrow predictions.

Every run of the three calibration sets is predicted by constants fitted without its model, as a user's model would be.
Within each (model, GPU, TP, format) some runs are then taken as measured, correct the others by `planner.fit.narrowed`,
and the others alone are scored: median error, width of the 90 % interval (high / low), and how many lie in it. Groups
and draws weigh by the runs they score.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.refit import DATA
from benchmarks.refit.conditions import load
from benchmarks.refit.features import Layout
from benchmarks.refit.solve import Residual
from benchmarks.refit.validate import left_out_by_model
from catalog.fitted import Constants, load_constants
from planner.fit.narrowed import NOISE, correction

POINTS = (0, 1, 2, 3)
DRAWS = 20
#: Metric -> the phase whose interval and scatter it has.
PHASES = {"tpot": "decode", "latency": "decode", "ttft": "prefill"}
INTERVALS = {"decode": "decode", "prefill": "ttft"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Runs that were left out of the correction."""

    error: float
    width: float
    """High over low end of the interval."""
    inside: bool


def main(as_json: bool, arguments: Sequence[str]) -> int:  # noqa: FBT001 - what `python -m benchmarks` hands over
    """Narrow, score, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks narrow", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the three condition sets")
    options = parser.parse_args(list(arguments))
    layout = Layout()
    residuals = left_out_by_model([layout.lay(condition) for condition in load(options.data)[0]])
    figures = narrow(residuals, load_constants())
    if as_json:
        print(json.dumps(figures))
        return 0
    for metric, rows in figures.items():
        for points, row in rows.items():
            print(f"{metric:8s} {points} measured: median error {row['median_error']:.1%}, interval "
                  f"x{row['width']:.3f}, covers {row['coverage']:.1%} (n {row['n']:.0f})")  # fmt: skip
    return 0


def narrow(residuals: Sequence[Residual], constants: Constants) -> dict[str, dict[str, dict[str, float]]]:
    """Metric -> measured points -> figures."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for metric, phase in PHASES.items():
        groups = _groups([residual for residual in residuals if residual.metric == metric])
        if not groups:
            continue
        interval = (constants.number(f"intervals.{INTERVALS[phase]}.reference.low"),
                    constants.number(f"intervals.{INTERVALS[phase]}.reference.high"))  # fmt: skip
        scatter = max(NOISE[phase], constants.number(f"intervals.scatter.{phase}"))
        found[metric] = {
            str(points): _figures([s for logs in groups for s in _scored(logs, points, interval, scatter)])
            for points in POINTS
        }
    return found


def _groups(residuals: Sequence[Residual]) -> list[np.ndarray]:
    """ln(measured / predicted) by engine; groups too small to leave a run out are left out at every count alike."""
    groups: dict[tuple[str, str, int, str], list[float]] = {}
    for residual in residuals:
        condition = residual.laid.condition
        key = (condition.model.name, condition.gpu, condition.tp, condition.quantization)
        groups.setdefault(key, []).append(-residual.value)
    return [np.array(values) for _, values in sorted(groups.items()) if len(values) > max(POINTS)]


def _scored(logs: np.ndarray, points: int, interval: tuple[float, float], scatter: float) -> list[Scored]:
    rng = np.random.default_rng([len(logs), 11])
    found = []
    for _ in range(DRAWS):
        order = rng.permutation(len(logs))
        seen, rest = logs[order[:points]], logs[order[max(POINTS) :]]  # the same runs are scored at every count
        learned = correction([math.exp(value) for value in seen], interval=interval, scatter=scatter)
        low, high = learned.interval
        for value in rest:
            left = math.exp(value) / learned.factor
            found.append(Scored(error=abs(1 / left - 1), width=high / low, inside=low <= left <= high))
    return found


def _figures(scored: Sequence[Scored]) -> dict[str, float]:
    return {
        "n": float(len(scored)),
        "median_error": round(float(np.median([each.error for each in scored])), 4),
        "width": round(float(np.median([each.width for each in scored])), 4),
        "coverage": round(float(np.mean([each.inside for each in scored])), 4),
    }
