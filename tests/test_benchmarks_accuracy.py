"""`benchmarks.accuracy`: errors, intervals and decisions, by hand and against an independent scorer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.accuracy import scores

SCORER = Path(__file__).parents[1] / "../shared/score.py"


def tables(rows: int, *, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Random runs of three groups: conditions, measured, predicted with bounds and some nulls."""
    rng = np.random.default_rng(seed)
    ids = [f"r{i:03}" for i in range(rows)]
    tpot, ttft = rng.uniform(5, 60, rows), rng.uniform(50, 900, rows)
    said = tpot * rng.lognormal(0, 0.25, rows)
    missing = rng.random(rows) < 0.1
    inputs = pl.DataFrame({"id": ids, "model": "m", "gpu": [f"g{i % 3}" for i in range(rows)], "precision": "fp8",
                           "isl": 1024, "osl": 1024})  # fmt: skip
    truth = pl.DataFrame({"id": ids, "ttft_ms": ttft, "tpot_ms": tpot, "out_tps_gpu": rng.uniform(100, 900, rows)})
    predicted = pl.DataFrame({
        "id": ids, "ttft_ms": ttft * 1.1, "tpot_ms": said, "tpot_ms_lo": said * 0.8, "tpot_ms_hi": said * 1.25,
        "out_tps_gpu": rng.uniform(100, 900, rows),
    }).with_columns(
        pl.when(pl.Series(missing)).then(None).otherwise(pl.col(name)).alias(name)
        for name in ("ttft_ms", "tpot_ms", "tpot_ms_lo", "tpot_ms_hi", "out_tps_gpu")
    )  # fmt: skip
    return inputs, truth, predicted


def test_decisions_by_hand():
    """Six configurations under 20 ms: the pick is good for 80 % of the best; under 10 ms none is promised."""
    ids = list("abcdef")
    inputs = pl.DataFrame({"id": ids, "model": "m", "gpu": "g", "precision": "p", "isl": 1, "osl": 1})
    truth = pl.DataFrame({"id": ids, "tpot_ms": [9.0, 12.0, 18.0, 25.0, 40.0, 60.0],
                          "out_tps_gpu": [10.0, 20.0, 50.0, 60.0, 70.0, 80.0]})  # fmt: skip
    said = pl.DataFrame({"id": ids, "tpot_ms": [11.0, 14.0, 19.0, 22.0, 41.0, 45.0],
                         "out_tps_gpu": [9.0, 40.0, 30.0, 55.0, 65.0, 90.0]})  # fmt: skip
    rows = scores.joined(inputs, truth, said)
    made = scores.decide(rows, limits=(10.0, 20.0), pessimistic=False)
    # 10 ms: run a keeps it, nothing is promised; 20 ms: b is picked (40 promised, 20 measured), c had 50.
    assert (made.decisions, made.broken, made.abstained) == (2, 0, 1)
    assert made.regret_mean == pytest.approx((1.0 + 0.6) / 2)
    # 50 ms: f is picked (90 promised) and takes 60 ms.
    assert scores.decide(rows, limits=(50.0,), pessimistic=False).broken == 1


def test_figures_of_nothing_are_null():
    """A peer without answers has no errors, and abstains from every decision."""
    inputs, truth, predicted = tables(30)
    empty = predicted.clear()
    found = scores.summary(scores.joined(inputs, truth, empty), pessimistic=False)
    assert found["coverage"] == 0.0
    assert found["tpot_median"] is None
    assert found["abstained"] == found["decisions"] > 0


@pytest.mark.parametrize("pessimistic", [False, True])
def test_an_independent_scorer_agrees(tmp_path, pessimistic):
    """The scorer beside the public data finds the same errors, coverage and decisions."""
    if not SCORER.exists():
        pytest.skip("the independent scorer ../shared/score.py is absent")
    inputs, truth, predicted = tables(60)
    for name, table in (("inputs", inputs), ("truth", truth), ("pred", predicted)):
        table.write_parquet(tmp_path / f"{name}.parquet")
    command = [sys.executable, str(SCORER), "--holdout", str(tmp_path), "--pred", str(tmp_path / "pred.parquet"),
               "--objective", "out_tps_gpu", "--slo", "tpot_ms:10,15,20,30,50"]  # fmt: skip
    said = subprocess.run([*command, *["--pessimistic"] * pessimistic], capture_output=True, text=True, check=True)
    theirs = json.loads(said.stdout)
    ours = scores.summary(scores.joined(inputs, truth, predicted), pessimistic=pessimistic)
    tpot, decision = theirs["metrics"]["tpot_ms"], theirs["decision"]
    assert ours["coverage"] == pytest.approx(tpot["coverage"], abs=1e-4)
    assert ours["tpot_median"] == pytest.approx(tpot["medAPE"], abs=1e-4)
    assert ours["tpot_p90"] == pytest.approx(tpot["p90APE"], abs=1e-4)
    assert ours["ttft_median"] == pytest.approx(theirs["metrics"]["ttft_ms"]["medAPE"], abs=1e-4)
    assert ours["interval_coverage"] == pytest.approx(tpot["interval_coverage"], abs=1e-4)
    assert (ours["decisions"], ours["broken"], ours["abstained"]) == (
        decision["decisions"], decision["slo_violations"], decision["abstained_though_feasible"],
    )  # fmt: skip
    assert ours["regret_mean"] == pytest.approx(decision["regret_mean"], abs=1e-4)
