"""The benchmark of narrowing, and the width that TTFT's interval has for what the calibration does not hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.narrow import main, narrow
from benchmarks.refit.conditions import Condition
from benchmarks.refit.features import COLUMNS, Laid
from benchmarks.refit.schedule import Schedule
from benchmarks.refit.solve import Residual, Solution, priors
from benchmarks.refit.unseen import DRAWS, REPEATS, half_width, model_shifts, scatter, sensitivity
from catalog.fitted import load_constants
from catalog.models import find_model

DATA = Path(__file__).parents[1] / "../shared/data/e2e"


def laid(model: str = "Llama-3.1-8B", *, tp: int = 1, compute_s: float = 1.0) -> Laid:
    """One request whose prefill is a single step bound by compute."""
    condition = Condition(
        origin="made up", model=find_model(model), gpu="h100_sxm", tp=tp, quantization="bf16", engine="async",
        schedule=Schedule([], []), ttft_s=1.0, tpot_s=1.0,
    )  # fmt: skip
    seconds = np.zeros((1, len(COLUMNS)))
    seconds[0, COLUMNS.index("compute")] = compute_s
    one = np.array([1])
    return Laid(condition=condition, seconds=seconds, sent=one - 1, first=one, done=one, outputs=np.array([2.0]))


def solution(**values: float) -> Solution:
    """Constants that cost nothing but for those named."""
    return Solution(dict.fromkeys(priors("v1"), 0.0) | values)


def test_a_single_term_moves_ttft_by_its_own_prior():
    """Where prefill is compute alone, ln TTFT has the prior width of `compute`; half of it where half is constant."""
    width = priors("v1")["compute"][1]
    assert sensitivity(laid(), solution(compute=1.0)) == pytest.approx(width)
    both = laid()
    both.seconds[0, COLUMNS.index("launch")] = 1.0
    assert sensitivity(both, solution(compute=1.0)) == pytest.approx(width / 2, rel=0.1)


def test_the_half_width_by_hand():
    """One model off by 0.1, prior 0.15: scale sqrt((0.15² + 0.1²) / 2), Student-t of 2 degrees (2.920), two draws."""
    run = laid()
    found = half_width([run, replace(run, condition=replace(run.condition, ttft_s=None))], solution(compute=1.0),
                       [Residual(run, "ttft", 0.1), Residual(run, "tpot", 9.0)])  # fmt: skip
    scale = np.sqrt((priors("v1")["compute"][1] ** 2 + 0.1**2) / 2)
    assert found == pytest.approx(np.sqrt(DRAWS * (2.91999 * scale) ** 2 + REPEATS**2), rel=1e-4)


def test_shifts_and_scatter_by_hand():
    """Shifts are means by model and GPU; the scatter is what is left around each (model, GPU, TP)."""
    one, other = laid(), laid("Qwen3-8B")
    rows = [Residual(one, "ttft", 0.1), Residual(one, "ttft", 0.3), Residual(other, "ttft", -0.2)]
    assert model_shifts(rows) == pytest.approx([-0.2, 0.2])
    assert scatter(rows, ("ttft",)) == pytest.approx(0.1 * np.sqrt(2) / 1.645)


def test_narrowing_on_made_up_runs():
    """Runs that share an offset of 10 % and no scatter: the error falls and the interval narrows with each point."""
    runs = [Residual(laid(), "tpot", 0.1 + 0.001 * i) for i in range(8)]
    rows = narrow(runs, load_constants())["tpot"]
    errors, widths = ([rows[str(k)][name] for k in range(4)] for name in ("median_error", "width"))
    assert errors == sorted(errors, reverse=True)
    assert widths == sorted(widths, reverse=True)
    assert errors[0] == pytest.approx(np.expm1(0.1), rel=0.1)
    assert errors[3] < 0.5 * errors[0]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the calibration sets are absent")
def test_measured_runs_narrow_on_the_calibration_sets(capsys):
    """Intervals narrow with every point, and still cover: at least 85 % of the runs that were left out."""
    main(True, [])
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == {"tpot", "latency", "ttft"}
    for rows in figures.values():
        widths = [rows[str(k)]["width"] for k in range(4)]
        assert widths == sorted(widths, reverse=True)
        assert all(rows[str(k)]["coverage"] >= 0.85 for k in range(4))
    assert figures["tpot"]["3"]["median_error"] < figures["tpot"]["0"]["median_error"]
