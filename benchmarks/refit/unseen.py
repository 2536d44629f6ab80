"""How far TTFT may be off on a model, a GPU or an engine that the calibration does not hold.

The calibration measured the TTFT of one model on one GPU alone (57 runs), so no left-out run shows how TTFT varies
between models or GPUs; its residuals say what a further run of the same pair is off. What the constants of prefill
would be elsewhere is known by their priors (`solve.priors`): drawn anew, they shift the mean TTFT of the calibration
runs by

    s0² = mean over runs of Σ_c (∂ ln TTFT / ∂ ln c · width_c)²

This prior counts for one model; the shift d of the model that was left out counts for another. With scale and
location of shifts thus known from 1 + G draws, a further shift is Student-t with 1 + G degrees of freedom and the scale
(s0² + Σ d²) / (1 + G) (scaled inverse chi-squared posterior: Gelman et al., Bayesian Data Analysis, 2.6). A new model
and a new GPU are a draw each, for left-out runs cannot tell them apart. Repeats of a run differ by 14 % in TTFT at
their 90th percentile, which one run of each condition cannot show either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student_t

from benchmarks.refit.features import Laid, predict
from benchmarks.refit.solve import Residual, Solution, priors
from planner.fit.narrowed import Z90

REPEATS = 0.14
"""90th percentile of the relative difference between repeated runs, TTFT (measured; SCIENCE.md 4)."""
DRAWS = 2
"""A new model, and a new GPU."""


def half_width(laid: Sequence[Laid], solution: Solution, left_out: Sequence[Residual]) -> float:
    """Logarithmic half-width (90 %) that an unseen model and GPU add to TTFT, beside the residuals' own.

    Args:
        laid: runs of today's engine; those without a measured TTFT are passed over.
        solution: their constants.
        left_out: residuals of every run under constants fitted without its model.
    """
    runs = [run for run in laid if run.condition.ttft_s is not None]
    variance = float(np.mean([sensitivity(run, solution) ** 2 for run in runs]))
    shifts = model_shifts(left_out)
    freedom = 1 + len(shifts)
    scale = math.sqrt((variance + sum(shift**2 for shift in shifts)) / freedom)
    width = float(student_t.ppf(0.95, freedom)) * scale
    return math.sqrt(DRAWS * width**2 + REPEATS**2)


def sensitivity(run: Laid, solution: Solution, generation: str = "v1") -> float:
    """Standard deviation of ln TTFT when each constant is drawn from its prior."""
    base = predict(run, solution.theta, solution.values["request_s"])[0]
    total = 0.0
    for name, (_, width) in priors(generation).items():
        values = dict(solution.values)
        values[name] *= math.exp(width)
        moved = predict(run, Solution(values).theta, values["request_s"])[0]
        if base is not None and moved is not None:
            total += math.log(moved / base) ** 2
    return math.sqrt(total)


def model_shifts(left_out: Sequence[Residual]) -> list[float]:
    """Mean logarithmic error of TTFT by (model, GPU)."""
    found: dict[tuple[str, str], list[float]] = {}
    for residual in left_out:
        condition = residual.laid.condition
        if residual.metric == "ttft":
            found.setdefault((condition.model.name, condition.gpu), []).append(residual.value)
    return [float(np.mean(values)) for _, values in sorted(found.items())]


def scatter(left_out: Sequence[Residual], metrics: Sequence[str]) -> float:
    """Standard deviation of ln(predicted / measured) between runs of one (model, GPU, TP).

    As the 90th percentile of the distance from the group's mean over that of a normal, so that a few runs that went
    otherwise (they ran out of KV space) do not rule it.
    """
    groups: dict[tuple[object, ...], list[float]] = {}
    for residual in left_out:
        condition = residual.laid.condition
        if residual.metric in metrics:
            key = (condition.origin, condition.model.name, condition.gpu, condition.tp, residual.metric)
            groups.setdefault(key, []).append(residual.value)
    far: list[float] = []
    for _, values in sorted(groups.items(), key=lambda item: str(item[0])):
        if len(values) > 1:
            unbiased = math.sqrt(len(values) / (len(values) - 1))
            far += [unbiased * abs(value - float(np.mean(values))) for value in values]
    return float(np.quantile(far, 0.9)) / Z90
