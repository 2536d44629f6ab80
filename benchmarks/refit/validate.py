"""Cross-validation of the constants by extrapolation distance, and the intervals that follow from it.

| distance | what the constants or tables have not seen |
|---|---|
| same | the run itself (five folds within each set) |
| new_tp | the model's runs of that tensor-parallel degree |
| new_model | any run of the model |
| new_gpu | any run on the GPU |
| no_table | the GPU's own kernel tables (the most alike GPU's stand in) |
| roofline | any kernel table |

Intervals are split-conformal: the measured value lies between predicted·exp(-q) of the 95 % and the 5 % quantile of
ln(predicted/measured), with ranks raised for the finite sample (Lei et al., JASA 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from benchmarks.refit.conditions import Condition
from benchmarks.refit.features import Laid, Layout
from benchmarks.refit.solve import Residual, Solution, residuals, solve

#: Generations of engines that share their constants, and the classes in each.
GENERATIONS = {"v1": ("v1", "async"), "v0": ("v0",)}
_FOLDS = 5


def by_distance(laid: Sequence[Laid], solutions: dict[str, Solution]) -> dict[str, list[Residual]]:
    """Residuals of every run at every distance that its set allows."""
    found = {
        "fitted": [r for each in GENERATIONS for r in residuals(of(laid, each), solutions[each])],
        "same": _left_out(laid, lambda run, index: (run.condition.origin, index % _FOLDS)),
        "new_tp": _left_out(laid, lambda run, _: (run.condition.model.name, run.condition.tp)),
        "new_model": left_out_by_model(laid),
        "new_gpu": _left_out(laid, lambda run, _: run.condition.gpu),
    }
    conditions = [run.condition for run in laid]
    found["no_table"] = _unmeasured(conditions, Layout("transferred"), solutions)
    found["roofline"] = _unmeasured(conditions, Layout("roofline"), solutions)
    return found


def left_out_by_model(laid: Sequence[Laid]) -> list[Residual]:
    """Residuals of every run under constants fitted without its model."""
    return _left_out(laid, lambda run, _: run.condition.model.name)


def conformal(values: Iterable[float], *, coverage: float = 0.9) -> tuple[float, float]:
    """(low, high) multipliers of a prediction whose logarithmic errors were `values`."""
    ordered = np.sort(np.fromiter(values, dtype=float))
    tail = (1.0 - coverage) / 2.0
    rank = int(np.ceil((1.0 - tail) * (ordered.size + 1)))  # 1-based; the largest where the sample is too small
    upper = ordered[min(rank, ordered.size) - 1]
    lower = ordered[max(ordered.size - rank, 0)]
    return float(np.exp(min(-upper, 0.0))), float(np.exp(max(-lower, 0.0)))


def statistics(found: Sequence[Residual]) -> dict[str, float]:
    """Median and 90th percentile of the absolute relative error, median bias, and the number of metrics."""
    values = np.array([residual.value for residual in found])
    error = np.abs(np.expm1(values))
    return {
        "n": float(values.size),
        "median": round(float(np.median(error)), 4),
        "p90": round(float(np.quantile(error, 0.9)), 4),
        "bias": round(float(np.expm1(np.median(values))), 4),
    }


def of(laid: Sequence[Laid], generation: str) -> list[Laid]:
    """Runs of one generation of engines."""
    return [run for run in laid if run.condition.engine in GENERATIONS[generation]]


def _left_out(laid: Sequence[Laid], group: Callable[[Laid, int], object]) -> list[Residual]:
    """Residuals of each group under constants fitted without it; a set of one group has nothing to be fitted on."""
    found = []
    for generation in GENERATIONS:
        runs = of(laid, generation)
        groups = [group(run, index) for index, run in enumerate(runs)]
        for held in sorted(set(groups), key=str):
            rest = [run for run, mine in zip(runs, groups, strict=True) if mine != held]
            if rest:
                out = [run for run, mine in zip(runs, groups, strict=True) if mine == held]
                found += residuals(out, solve(rest, generation))
    return found


def _unmeasured(conditions: Sequence[Condition], layout: Layout, solutions: dict[str, Solution],
                ) -> list[Residual]:  # fmt: skip
    laid = [layout.lay(condition) for condition in conditions]
    return [r for each in GENERATIONS for r in residuals(of(laid, each), solutions[each])]
