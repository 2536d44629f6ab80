"""What users bring or probe is what their next night rests on, and the plan says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from test_searched import FLEET, facts_of, site

from catalog.fingerprints import Fingerprint
from catalog.store import Store
from flows.bench_results import BenchRun
from flows.fleet import read_fleet
from flows.imports import IMPORTED, Own, keep_bench
from flows.night import plan_night
from flows.probe import PROBED, Pair, keep
from planner.strategies import Configuration

SHAPE = Configuration(model="meta-llama/Llama-3.1-8B-Instruct", gpu="h100_sxm")
RUN = {
    "model": "meta-llama/Llama-3.1-8B-Instruct", "gpu": "h100_sxm", "tp": 1, "precision": "bf16", "isl": 500,
    "osl": 100, "concurrency": 8, "load_kind": "closed_loop", "engine_version": "0.32.0",
}  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, Fingerprint]:
    """A pair of the fleet, and its fingerprint by a runner of one's own."""
    facts = facts_of(tmp_path_factory.mktemp("imports"))
    pair = facts.pair_of(SHAPE)
    found = facts.fingerprints[pair.key]
    assert found is not None
    key = replace(pair.key, runner="vllm", driver="555.42", flags=("enforce_eager",))
    return pair, replace(
        found, key=key, provenance="a probe", points=found.points.with_columns(source=pl.lit("measured"))
    )


@pytest.mark.parametrize("kind", [IMPORTED, PROBED])
def test_the_own_fingerprint_of_a_pair_is_found(tmp_path: Path, measured: tuple[Pair, Fingerprint], kind: str) -> None:
    """Whatever driver and flags it was measured with, with the record that keeps it; another TP has none."""
    pair, fingerprint = measured
    store = Store(tmp_path)
    name = keep(fingerprint, store, kind=kind)
    own = Own(store)
    assert own.record(pair) == str(name)
    found = own(pair)
    assert found is not None
    assert set(found.points["source"]) == {"measured"}
    other = replace(pair, key=replace(pair.key, tp=2))
    assert (own(other), own.record(other)) == (None, None)


@pytest.mark.parametrize(("version", "source"), [("0.32.1", "measured"), ("0.33.0", "transferred"), ("", "measured")])
def test_another_release_is_extrapolated(
    tmp_path: Path, measured: tuple[Pair, Fingerprint], version: str, source: str
) -> None:
    """What one vLLM release measured counts as transferred on another, with its wider interval."""
    pair, fingerprint = measured
    store = Store(tmp_path)
    keep(fingerprint, store, kind=PROBED)
    found = Own(store)(replace(pair, key=replace(pair.key, engine_version=version)))
    assert found is not None
    assert set(found.points["source"]) == {source}
    assert ("extrapolated" in found.provenance) == (source == "transferred")


def test_a_plan_cites_what_its_user_measured(tmp_path: Path, measured: tuple[Pair, Fingerprint]) -> None:
    """Probed fingerprints and benchmark runs of the chosen engine stand in the plan's provenance, and move it."""
    place = site(tmp_path)
    probed = keep(replace(measured[1], points=_slower(measured[1].points)), place.store, kind=PROBED)
    bench = keep_bench(BenchRun(row=RUN, date="20261120", measured={"tpot_ms": 9.0, "ttft_ms": 40.0}), place.store)
    (tmp_path / "fleet.yaml").write_text(FLEET)
    night = plan_night(read_fleet(tmp_path / "fleet.yaml"), place)
    said = json.loads((tmp_path / "plans" / "1" / "plan.json").read_text())["provenance"]
    assert said["fingerprints"] == sorted(said["fingerprints"])
    assert str(probed) in said["fingerprints"]
    assert said["corrections"] == [str(bench)]
    plain = plan_night(read_fleet(tmp_path / "fleet.yaml"), site(tmp_path / "plain"))
    assert night.plan.digest != plain.plan.digest


def _slower(points: pl.DataFrame) -> pl.DataFrame:
    return points.with_columns(time_s=2 * pl.col("time_s"))
