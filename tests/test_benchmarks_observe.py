"""`benchmarks.observe`: made telemetry is what it says, and a small reading of it answers every key."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from benchmarks import observe


@pytest.mark.skipif(bool(observe.missing()), reason=observe.missing() or "present")
def test_a_small_reading_answers_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    """Two services over two days: both are read, and the figures are there."""
    code = observe.main(True, ["--services", "2", "--days", "2"])
    row = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (row["services"], row["days"], row["observed"]) == (2, 2, 2)
    assert row["samples"] == row["series"] * 2 * 86400 // 300
    assert {"wall_s", "cpu_s", "prometheus_cpu_s", "load_s", "rate_error", "scrape_s"} <= set(row)


def test_made_counts_have_the_dispersion_that_they_state() -> None:
    """Counts of a stated Var / mean have it within 10 %, Poisson included."""
    for stated in (1.0, 5.0):
        counts = observe.bursty(np.full(20_000, 300.0), stated, np.random.default_rng(0))
        assert counts.var() / counts.mean() == pytest.approx(stated, rel=0.1)


def test_counters_rise_and_begin_anew_once() -> None:
    """Each series of the text falls once at most, where its process began anew."""
    each = observe.service(3)
    falls = []
    for block in observe.openmetrics([each], days=1, scrape_s=600, end_s=86400 * 100, replicas=1):
        if "_total" in block or "_count" in block:
            values = [float(line.split(" ")[1]) for line in block.splitlines()]
            falls.append(sum(after < before for before, after in pairwise(values)))
    assert set(falls) <= {0, 1}
    assert 1 in falls


def test_the_latencies_are_lognormal_by_their_mean() -> None:
    """Half of a lognormal of cv 0.5 lies below its median, mean / sqrt(1 + cv²)."""
    assert observe.lognormal_cdf(2.0 / np.sqrt(1.25), 2.0, 0.5) == pytest.approx(0.5)


def test_a_machine_without_prometheus_says_so(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Where the programs are missing the benchmark ends with 1 and says what to install."""
    monkeypatch.setattr(observe.shutil, "which", lambda _: None)
    assert observe.main(True, []) == 1
    assert "apt-get install prometheus" in capsys.readouterr().out
