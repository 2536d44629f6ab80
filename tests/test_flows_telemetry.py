"""Nights whose Prometheus breaks, with a real one: down, slow, NaN, counters that start anew again and again.

Stated outcomes: a service whose telemetry fails is planned for its last good load, and the plan's notes say why and
since when; hours of NaN are unknown hours; a counter that starts anew loses no traffic; no fault costs more than the
client's patience.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import observe as made
from flows.fleet import read_fleet
from flows.night import Night, plan_night
from flows.site import site_at

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(made.missing()), reason=made.missing() or "present"),
]
Floats = NDArray[np.float64]
SCRAPE_S = 120
RATES = {"steady": 3.0, "patchy": 3.0, "dark": 3.0, "anew": 3.0}
HEAD = """
cluster:
  pools:
    - {{name: one, gpu: h100_sxm, gpus_per_node: 8, nodes: 2, price: 2.29 USD/GPU/h}}
prometheus: {{url: '{url}', days: 3, scrape: 120 s}}
intents:
"""
INTENT = """  - name: {name}
    model: meta-llama/Llama-3.1-8B-Instruct
    workload:
      {{prometheus: {{select: {{model_name: org/{name}}}}}, rate: 2.5 /s, prompt: {{mean: 500}}, output: {{mean: 100}}}}
    slo: {{ttft: 1 s, tpot: 60 ms}}
    quantizations: [bf16]
    kv_dtypes: [bf16]
    disaggregated: forbidden
"""


def patchy(values: Floats) -> Floats:
    """A whole day of the three is NaN."""
    day = np.arange(len(values)) // (made.DAY_S // SCRAPE_S)
    return np.where(day == 1, np.nan, values)


def dark(values: Floats) -> Floats:
    """Nothing but NaN."""
    return np.full_like(values, np.nan)


def anew(values: Floats) -> Floats:
    """A process that is started anew every half hour: its counters begin at zero each time."""
    gained = np.diff(np.maximum.accumulate(np.concatenate([[0.0], np.cumsum(increased(values))])))
    life = np.arange(len(values)) // 15
    total = np.cumsum(gained)
    return total - np.concatenate([[0.0], total])[15 * life]


def increased(values: Floats) -> Floats:
    """What each sample gained over the one before, a fall being a new start."""
    steps = np.diff(values, prepend=0.0)
    return np.where(steps < 0, values, steps)


def bent(block: str, how: Callable[[Floats], Floats]) -> str:
    """One series' lines with other values; gauges stay."""
    lines = [line.rsplit(" ", 2) for line in block.splitlines()]
    if "kv_cache_usage" in block or "requests_waiting" in block:
        return block
    values = how(np.array([float(value) for _, value, _ in lines]))
    return "".join(f"{head} {value:.10g} {at}\n" for (head, _, at), value in zip(lines, values, strict=True))


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of four services in Prometheus' own blocks, up to the last whole hour."""
    folder = tmp_path_factory.mktemp("telemetry")
    hows = {"patchy": patchy, "dark": dark, "anew": anew}
    end = int(time.time()) // made.HOUR_S * made.HOUR_S
    with (folder / "history.txt").open("w") as file:
        for name, rate in RATES.items():
            service = made.Service(name=name, rate=rate, swing=0.3, weekend=1.0, burst=1.0)
            lines = made.openmetrics([service], days=3, scrape_s=SCRAPE_S, end_s=end, replicas=1)
            file.writelines(bent(block, hows[name]) if name in hows else block for block in lines)
        file.write("# EOF\n")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", "--max-block-duration=24h",
               str(folder / "history.txt"), str(folder / "tsdb")]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return folder / "tsdb"


@pytest.fixture
def prometheus(blocks: Path, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real Prometheus over a copy of the blocks: its URL and its process."""
    shutil.copytree(blocks, tmp_path / "prometheus" / "tsdb")
    with made.serving(tmp_path / "prometheus" / "tsdb") as (url, process):
        yield url, process
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run data of all tests but what was observed: what was probed and searched once is not repeated."""
    return tmp_path_factory.mktemp("root")


def night(root: Path, folder: Path, url: str, *, hours: float = 0.0) -> Night:
    """One night, so many hours after now, of a fleet whose four services are watched."""
    (folder / "var" / "catalog").mkdir(parents=True, exist_ok=True)
    for kind in ("fingerprint", "search"):
        (root / kind).mkdir(exist_ok=True)
        if not (folder / "var" / "catalog" / kind).exists():
            (folder / "var" / "catalog" / kind).symlink_to(root / kind)
    path = folder / "fleet.yaml"
    path.write_text(HEAD.format(url=url) + "".join(INTENT.format(name=name) for name in RATES))
    site = site_at(str(folder / "var"), str(folder / "plans"))
    return plan_night(read_fleet(path), replace(site, clock=lambda: time.time() + hours * made.HOUR_S))


def rates(found: Night) -> dict[str, float]:
    """Planned rates by service."""
    return {decision.name: decision.rate for decision in found.plan.intents}


def test_nan_is_unknown_and_counters_that_start_anew_lose_nothing(
    root: Path, tmp_path: Path, prometheus: tuple[str, subprocess.Popen[bytes]]
) -> None:
    """A day of NaN is left out; nothing but NaN is planned as declared, and said; half-hourly restarts change nothing.

    The peak that is planned is the upper end of a forecast: that of the steady service is the measure.
    """
    found = night(root, tmp_path, prometheus[0])
    planned = rates(found)
    assert planned["steady"] >= RATES["steady"]
    assert planned["anew"] == pytest.approx(planned["steady"], rel=0.1)
    assert RATES["patchy"] <= planned["patchy"] <= 2.0 * planned["steady"]
    assert planned["dark"] == 2.5
    told = [note for note in found.notes if note.startswith("dark: ")]
    assert told
    assert "the load that it declares" in told[0]
    assert not [note for note in found.notes if note.startswith(("steady: ", "anew: "))]
    assert found.met


def test_a_prometheus_that_was_killed_costs_no_plan(
    root: Path, tmp_path: Path, prometheus: tuple[str, subprocess.Popen[bytes]]
) -> None:
    """Killed -9 between two nights: the second plans the last good loads, decides the same, and says since when."""
    url, process = prometheus
    first = night(root, tmp_path, url)
    process.kill()
    process.wait(timeout=30)
    second = night(root, tmp_path, url, hours=24.0)
    assert rates(second) == rates(first)
    assert second.plan.placements == first.plan.placements
    told = {note.partition(":")[0] for note in second.notes if "does not answer" in note and "last good load" in note}
    assert told == {"steady", "patchy", "anew"}
    assert (first.plan.serial, second.plan.serial) == (1, 2)


def test_a_prometheus_that_hangs_costs_the_clients_patience_alone(
    root: Path, tmp_path: Path, prometheus: tuple[str, subprocess.Popen[bytes]]
) -> None:
    """Stopped (it accepts calls and never answers): the night ends within minutes, on the last good loads.

    When it goes on, the next night reads it again.
    """
    url, process = prometheus
    first = night(root, tmp_path, url)
    process.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    second = night(root, tmp_path, url, hours=1.0)
    assert time.monotonic() - begun < 150.0
    assert rates(second) == rates(first)
    assert any("ReadTimeout" in note and "last good load" in note for note in second.notes)
    process.send_signal(signal.SIGCONT)
    third = night(root, tmp_path, url, hours=1.0)
    assert not any("does not answer" in note for note in third.notes)
