"""Least squares for the constants: logarithmic residuals, priors in the logarithm, a loss that outliers do not rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from benchmarks.refit.features import COLUMNS, Floats, Laid, predict

#: Noise of a repeated run (relative): what a residual is measured in.
_NOISE = {"tpot": 0.04, "ttft": 0.07, "latency": 0.05}
#: How much less a run counts than an independent one would, since runs of one setup err alike. Of 1, 1.5, 2, 3 and 4,
#: 1.5 leaves the least error on runs of left-out models (4.1, 4.0, 4.0, 4.2 and 4.5 % in the median).
_TEMPER = 1.5

#: Constant -> (prior, width of the prior in the logarithm); what is absent stays at its prior.
_PRIORS: dict[str, tuple[float, float]] = {
    "memory": (1.0, 0.1), "compute": (1.0, 0.15), "decode_attention": (1.0, 0.1), "grouped_attention": (1.0, 0.1),
    "collective": (1.0, 0.15), "elementwise": (1.0, 0.15), "step_s": (1.0e-3, 0.4), "sync_s": (5e-4, 0.5),
    "mixed_step_s": (2e-3, 0.5),
    "mixed_layer_s": (1e-5, 0.5), "sequence_s": (8e-6, 0.5), "filtered_sequence_s": (5e-5, 0.4),
    "request_s": (1.5e-2, 0.5),
}  # fmt: skip
#: The old engine's attention kernels, and what it did in Python between steps, are far from today's.
_OLD = {"decode_attention": (1.3, 0.4), "grouped_attention": (1.3, 0.4), "collective": (1.0, 0.4),
        "compute": (1.0, 0.3), "step_s": (3e-3, 0.7), "layer_s": (1e-5, 1.0), "sequence_s": (5e-5, 0.7)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Solution:
    """Constants by name."""

    values: dict[str, float]

    @property
    def theta(self) -> Floats:
        """In the order of COLUMNS; a launch counts as it was measured."""
        return np.array([self.values.get(name, 1.0 if name == "launch" else 0.0) for name in COLUMNS])


@dataclass(frozen=True, slots=True)
class Residual:
    """ln(predicted / measured) of one metric of one run."""

    laid: Laid
    metric: str
    value: float


def priors(generation: str) -> dict[str, tuple[float, float]]:
    """Prior and width of each constant of a generation of engines."""
    return _PRIORS | (_OLD if generation == "v0" else {})


def solve(runs: Sequence[Laid], generation: str) -> Solution:
    """Fit the constants of one generation of engines to runs."""
    prior = priors(generation)
    names = list(prior)
    middle = np.array([prior[name][0] for name in names])
    width = np.array([prior[name][1] for name in names])

    def values(z: Floats) -> Solution:
        return Solution(dict(zip(names, (middle * np.exp(z * width)).tolist(), strict=True)))

    def misfit(z: Floats) -> Floats:
        fitted = [residual.value / (_TEMPER * _NOISE[residual.metric]) for residual in residuals(runs, values(z))]
        # The prior enters the robust loss too; within a few widths it acts as a square.
        return np.concatenate([fitted, z])

    found = least_squares(misfit, np.zeros(len(names)), loss="soft_l1", diff_step=1e-3)
    return values(found.x)


def residuals(runs: Sequence[Laid], solution: Solution) -> list[Residual]:
    """Logarithmic errors of every metric that the runs measured."""
    found = []
    for laid in runs:
        ttft, tpot, latency = predict(laid, solution.theta, solution.values["request_s"])
        condition = laid.condition
        pairs = (("ttft", ttft, condition.ttft_s), ("tpot", tpot, condition.tpot_s),
                 ("latency", latency, condition.latency_s))  # fmt: skip
        found += [
            Residual(laid, metric, float(np.log(predicted / measured)))
            for metric, predicted, measured in pairs
            if predicted is not None and measured is not None
        ]
    return found
