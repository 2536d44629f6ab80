"""Calibrating a fleet: nights whose services are measured, compared and corrected, from Prometheus to the next plan."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fake_prometheus import Vllm, serving
from test_flows import Counted

from catalog.errors import FleetplanError
from catalog.store import Plans, Store
from flows.calibrating import COMPARISON, WANTED, calibrate_fleet, comparisons
from flows.corrections import CORRECTION, Production
from flows.fleet import read_fleet
from flows.night import Night, plan_night
from flows.prometheus import Prometheus
from flows.site import Site
from planner.calibrate import markdown, rows
from planner.workload import Telemetry

HOUR_S, DAY_S = 3600, 86400
NOW = 20_000 * DAY_S + 2 * HOUR_S
FLEET = """
cluster:
  pools:
    - {{name: one, gpu: h100_sxm, gpus_per_node: 8, nodes: 2, price: 2.29 USD/GPU/h}}
prometheus: {{url: '{url}', days: 3}}
intents:
  - name: chat
    model: meta-llama/Llama-3.1-8B-Instruct
    workload: {{prometheus: {{select: {{model_name: org/chat}}}}}}
    slo: {{ttft: 1 s, tpot: 60 ms}}
    quantizations: [bf16]
    kv_dtypes: [bf16]
    disaggregated: forbidden
"""


class World:
    """A fleet, its stores, its clock, and what its service really does."""

    def __init__(self, folder: Path, url: str, vllm: Vllm) -> None:
        path = folder / "fleet.yaml"
        path.write_text(FLEET.format(url=url))
        self.loaded = read_fleet(path)
        self.vllm = vllm
        self.now = float(NOW)
        self.truth = (vllm.ttft, vllm.tpot)
        self.site = Site(
            store=Store(folder / "var" / "catalog"), plans=Plans(folder / "plans"), measured_by="fake",
            runner=Counted(), clock=lambda: self.now,
        )  # fmt: skip

    def night(self) -> Night:
        """Plan and publish."""
        return plan_night(self.loaded, self.site)

    def calibrate(self):
        """Compare what runs."""
        return calibrate_fleet(self.loaded, self.site, client=hasty)

    def behave(self, factor: float) -> None:
        """Let the service take `factor` times what is predicted of it."""
        self.vllm.ttft, self.vllm.tpot = (each * factor for each in self.truth)


def hasty(telemetry: Telemetry) -> Prometheus:
    """A client without patience."""
    return Prometheus(telemetry, sleep=lambda _: None, read_s=2.0)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, float]:
    """Mean TTFT and TPOT that are predicted of the service, seconds, found on a fleet of their own."""
    vllm = Vllm(rate=4.0)
    with serving(vllm) as fake:
        world = World(tmp_path_factory.mktemp("truth"), fake.url, vllm)
        world.night()
        for _ in range(2):  # TTFT is predicted at the pace that was observed: once more when that is right
            world.now += DAY_S
            (found,) = world.calibrate().comparisons
            assert found.ttft is not None
            assert found.tpot is not None
            vllm.ttft, vllm.tpot = (each.observed / each.raw_ratio for each in (found.ttft, found.tpot))
    return vllm.ttft, vllm.tpot


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, truth: tuple[float, float]) -> Path:
    """A folder with a plan in force and one comparison, of a service that behaves as predicted."""
    folder, vllm = tmp_path_factory.mktemp("planned"), Vllm(rate=4.0)
    with serving(vllm) as fake:
        made = World(folder, fake.url, vllm)
        made.truth = truth
        made.behave(1.0)
        made.night()
        made.now += DAY_S
        made.calibrate()
    return folder


@pytest.fixture
def world(tmp_path: Path, planned: Path, truth: tuple[float, float]):
    """The same folder, copied, the next day."""
    shutil.copytree(planned, tmp_path, dirs_exist_ok=True)
    vllm = Vllm(rate=4.0)
    with serving(vllm) as fake:
        made = World(tmp_path, fake.url, vllm)
        made.truth = truth
        made.behave(1.0)
        made.now += 2 * DAY_S
        yield made


def test_predicted_is_compared_with_observed(world: World) -> None:
    """A service that does what was predicted: both ratios near 1, inside the interval, no breaker, no drift."""
    found = world.calibrate()
    (row,) = found.comparisons
    assert (row.intent, row.serial) == ("chat", 1)
    assert row.tpot is not None
    assert row.ttft is not None
    assert row.tpot.raw_ratio == pytest.approx(1.0, abs=0.02)
    assert row.ttft.raw_ratio == pytest.approx(1.0, abs=0.05)
    assert row.rate == pytest.approx(4.0, rel=0.01)
    assert row.planned_rate > row.rate
    assert (found.calibration.breakers, found.new_drifts, found.notes) == ({}, (), ())
    assert "as predicted" in markdown(rows([row]))


def test_comparisons_are_records_that_read_back(world: World) -> None:
    """Each comparison is kept under its service and hour; calibrating twice in one night keeps one of them."""
    first = world.calibrate()
    again = world.calibrate()
    assert first.comparisons == again.comparisons
    assert comparisons(world.site.store) == first.history
    hours = [row.at_hour for row in first.history]
    assert len(hours) == len(set(hours)) == 2
    assert world.site.store.verify() == {}


def test_the_next_night_applies_and_cites_the_correction(world: World) -> None:
    """Ten nights 15 % slow: the night predicts TPOT slower than before, and its plan names the correction record."""
    before = world.night().plan
    world.behave(1.15)
    for _ in range(10):
        world.now += DAY_S
        found = world.calibrate()
    after = world.night().plan
    assert after.provenance.corrections == (found.record,)
    assert found.record.startswith(CORRECTION)
    slower = _tpot(after) / _tpot(before)
    assert 1.05 < slower < 1.2


def test_the_correction_closes_the_gap(world: World) -> None:
    """What was 15 % off is predicted within 6 % once it has been seen for ten nights; ratios do not pile up."""
    world.behave(1.15)
    for _ in range(10):
        world.now += DAY_S
        world.calibrate()
    world.night()
    (row,) = world.calibrate().comparisons
    assert row.tpot is not None
    assert row.tpot.ratio == pytest.approx(1.0, abs=0.06)
    assert row.tpot.raw_ratio == pytest.approx(1.15, abs=0.03)


def test_optimism_trips_the_breaker_within_a_night_and_keeps_the_engine(world: World) -> None:
    """A service half again as slow as predicted: the next plan says so, and gives it no fewer and no other engines."""
    before = world.night().plan
    world.behave(1.6)
    world.now += DAY_S
    found = world.calibrate()
    assert set(found.calibration.breakers) == {"chat"}
    after = world.night().plan
    assert any("BREAKER OPEN" in note and "keeps its engine" in note for note in after.provenance.notes)
    assert _engines(after) == _engines(before)
    assert _replicas(after) >= _replicas(before)


def test_the_breaker_closes_when_predictions_hold_again(world: World) -> None:
    """Once a comparison is as predicted, corrections included, the note is gone."""
    world.behave(1.6)
    world.now += DAY_S
    assert world.calibrate().calibration.breakers
    world.behave(1.0)
    world.now += DAY_S
    assert not world.calibrate().calibration.breakers
    assert not any("BREAKER" in note for note in world.night().plan.provenance.notes)


def test_an_old_breaker_says_nothing(world: World) -> None:
    """Where nobody calibrated for days, an open breaker no longer holds a service."""
    world.behave(1.6)
    world.now += DAY_S
    assert world.calibrate().calibration.breakers
    world.now += 4 * DAY_S
    assert not any("BREAKER" in note for note in world.night().plan.provenance.notes)


def test_a_drift_asks_for_a_probe_once(world: World) -> None:
    """Five usual nights, then 40 % slower: a wish for a probe is kept, and told once."""
    told = []
    for day in range(12):
        world.behave(1.0 if day < 5 else 1.4)
        world.now += DAY_S
        told += world.calibrate().new_drifts
    assert {drift.phase for drift in told} >= {"decode"}
    assert len(told) == len({drift.phase for drift in told})
    assert len(world.site.store.names(WANTED)) == len(told)
    assert all(drift.shift > 0.1 for drift in told)


def test_without_a_plan_nothing_is_compared(tmp_path: Path) -> None:
    """Before the first plan there was no prediction: that is said, and an empty correction is kept."""
    vllm = Vllm()
    with serving(vllm) as fake:
        found = World(tmp_path, fake.url, vllm).calibrate()
    assert found.comparisons == ()
    assert "no plan is in force" in " ".join(found.notes)


def test_missing_telemetry_is_no_comparison(world: World) -> None:
    """A service whose telemetry is missing is named with the reason, and its earlier comparisons still count."""
    world.vllm.hours = lambda _: "NaN"
    world.now += DAY_S
    found = world.calibrate()
    assert found.comparisons == ()
    assert "chat is not compared: its telemetry is missing" in found.notes
    assert found.history


def test_a_damaged_correction_gives_way_to_the_one_before(world: World) -> None:
    """The newest correction that can be read is applied."""
    world.calibrate()
    first = Production.of(world.site.store)
    world.now += DAY_S
    world.calibrate()
    newest = max(world.site.store.names(CORRECTION))
    (Path(world.site.store.root) / str(newest)).write_text("{}")
    found = Production.of(Store(world.site.store.root))
    assert found is not None
    assert first is not None
    assert found.record == first.record
    (said,) = Production.damaged(Store(world.site.store.root))
    assert said.startswith(str(newest))
    assert Production.damaged(Store(world.site.store.root + "-none")) == ()


def test_a_damaged_comparison_is_left_out_and_said(world: World) -> None:
    """A comparison that cannot be read teaches nothing, and the next calibration says so."""
    world.calibrate()
    name = world.site.store.names(COMPARISON)[0]
    (Path(world.site.store.root) / str(name)).write_text("{}")
    world.now += DAY_S
    found = world.calibrate()
    assert found.notes == ("1 of 3 comparisons cannot be read: left out",)
    assert len(found.history) == 2


def test_the_night_says_what_telemetry_it_lacked(tmp_path: Path) -> None:
    """A good night, then Prometheus is gone: the second plan serves the same load and its notes say since when."""
    vllm = Vllm()
    with serving(vllm) as fake:
        world = World(tmp_path, fake.url, vllm)
        first = world.night()
    world.now += DAY_S
    world.loaded = replace(world.loaded)
    second = world.night()
    assert second.plan.intents[0].rate == first.plan.intents[0].rate
    (note,) = second.plan.provenance.notes
    assert "last good load" in note
    assert note in second.notes
    assert (
        "last good load" in json.loads((tmp_path / "plans" / "2" / "plan.json").read_text())["provenance"]["notes"][0]
    )


def test_a_service_without_any_load_is_without_data(tmp_path: Path) -> None:
    """On a first night without telemetry the service is reported as without data, with the reason."""
    vllm = Vllm()
    with serving(vllm) as fake:
        fake.fault = "not json"
        night = World(tmp_path, fake.url, vllm).night()
    (decision,) = night.plan.intents
    assert decision.status == "no_data"
    assert "never observed" in decision.reason


def test_a_service_that_runs_is_not_switched_off_for_lack_of_telemetry(world: World) -> None:
    """The records of its loads are lost and Prometheus is down: the night ends and the plan in force stays."""
    for name in world.site.store.names("observed"):
        (Path(world.site.store.root) / str(name)).unlink()
    world.vllm.hours = lambda _: "NaN"
    with pytest.raises(FleetplanError, match="switched off"):
        world.night()
    assert world.site.plans.serials() == (1,) or list(world.site.plans.serials()) == [1]
    assert COMPARISON in {name.kind for name in world.site.store.names()}


def _tpot(plan) -> float:
    return plan.intents[0].chosen[0].tpot.high_s


def _engines(plan) -> set[tuple[str, int, str]]:
    return {(group.gpu, group.tp, group.quantization) for group in plan.placements}


def _replicas(plan) -> int:
    return sum(group.replicas for group in plan.placements)
