"""Laws of the night: the same with and without Prefect, repeatable to the byte, and nothing lost when it breaks."""

from __future__ import annotations

import filecmp
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from small_fleet import FLEET, UNMEETABLE

from catalog.errors import StalePlan
from catalog.fingerprints import Fingerprint, FingerprintKey, Op
from catalog.gpus import GPU
from catalog.store import Plans, Store
from flows.fleet import read_fleet
from flows.night import Night, plan_night, search_fleet
from flows.probe import KIND, Fingerprints, batches, distinct, probe, shape_of
from flows.publish import in_force
from flows.search import pairs
from flows.site import Site
from flows.steps import Step, in_process
from planner.diff import diff
from planner.plan import from_json
from planner.roofline import op_time
from planner.strategies import Configuration
from probes.fake import FakeRunner

ROOT = Path(__file__).parent.parent


@dataclass
class Counted:
    """A fake runner that remembers what it was asked, and breaks after some calls if told to."""

    breaks_after: int = 10**9
    asked: list[FingerprintKey] = field(default_factory=list)

    def run(self, key: FingerprintKey, ops: Sequence[Op], *, gpu: GPU) -> Fingerprint:
        """Time operators with the fake."""
        if len(self.asked) >= self.breaks_after:
            msg = "the power went out"
            raise KeyboardInterrupt(msg)
        self.asked.append(key)
        return FakeRunner(bound=op_time).run(key, ops, gpu=gpu)


def site(folder: Path, runner: Counted | None = None) -> Site:
    """Stores below a folder, with a fake runner."""
    store, plans = Store(folder / "var" / "catalog"), Plans(folder / "plans")
    return Site(store=store, plans=plans, measured_by="fake", runner=runner or Counted())


def night(folder: Path, text: str = FLEET, *, dry_run: bool = False, runner: Counted | None = None) -> Night:
    """Run one night in a folder."""
    path = folder / "fleet.yaml"
    path.write_text(text)
    return plan_night(read_fleet(path), site(folder, runner), dry_run=dry_run)


@pytest.fixture(scope="module")
def two_nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Night, Night]:
    """A folder in which the same fleet was planned twice."""
    folder = tmp_path_factory.mktemp("nights")
    return folder, night(folder), night(folder)


def test_a_night_writes_a_whole_plan(two_nights: tuple[Path, Night, Night]) -> None:
    """The folder holds plan.json, manifests and the report; the plan reads back with its digest and all are met."""
    folder, first, _ = two_nights
    plan = from_json((folder / "plans" / "1" / "plan.json").read_text())
    assert plan == first.plan
    assert first.met
    assert [decision.status for decision in plan.intents] == ["met"]
    assert sum(pool.used for pool in plan.pools) == sum(group.gpus for group in plan.placements) > 0
    assert (folder / "plans" / "1" / "report.html").read_text().startswith("<!doctype html>")
    assert list((folder / "plans" / "1" / "manifests").rglob("*.yaml"))


def test_the_same_input_gives_the_same_bytes(two_nights: tuple[Path, Night, Night]) -> None:
    """A second night differs from the first in its serial alone: manifests are equal to the byte."""
    folder, first, second = two_nights
    assert (first.plan.serial, second.plan.serial) == (1, 2)
    assert first.plan.digest == second.plan.digest
    assert not diff(first.plan, second.plan)
    one, two = folder / "plans" / "1", folder / "plans" / "2"
    names = sorted(path.relative_to(one).as_posix() for path in one.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(two).as_posix() for path in two.rglob("*") if path.is_file())
    _, differing, broken = filecmp.cmpfiles(one, two, names, shallow=False)
    assert (set(differing), broken) <= ({"plan.json", "report.html"}, [])
    plans = [json.loads((where / "plan.json").read_text()) | {"serial": 0} for where in (one, two)]
    assert plans[0] == plans[1]
    reports = [(where / "report.html").read_text().replace(f"plan {where.name}", "plan") for where in (one, two)]
    assert reports[0] == reports[1]


def test_a_dry_run_publishes_nothing(tmp_path: Path) -> None:
    """A dry run decides the same and leaves no plan; what it measured is kept."""
    done = night(tmp_path, dry_run=True)
    assert done.folder is None
    assert done.files["plan.json"]
    assert not (tmp_path / "plans").exists()
    assert Store(tmp_path / "var" / "catalog").names(KIND)


def test_a_killed_night_repeats_only_what_is_missing(tmp_path: Path) -> None:
    """Probes that were done when the night died are not repeated, and a third night measures nothing."""
    first = Counted(breaks_after=3)
    with pytest.raises(KeyboardInterrupt):
        night(tmp_path, dry_run=True, runner=first)
    second, third = Counted(), Counted()
    night(tmp_path, dry_run=True, runner=second)
    night(tmp_path, dry_run=True, runner=third)
    assert len(first.asked) == 3
    assert not set(first.asked) & set(second.asked)
    assert third.asked == []


def test_a_damaged_fingerprint_is_measured_again_and_said(tmp_path: Path) -> None:
    """A record whose bytes changed never enters a plan: it is named and measured anew."""
    before = night(tmp_path, dry_run=True)
    name = Store(tmp_path / "var" / "catalog").names(KIND)[0]
    path = tmp_path / "var" / "catalog" / str(name)
    path.write_bytes(path.read_bytes()[:-1])
    runner = Counted()
    after = night(tmp_path, dry_run=True, runner=runner)
    assert len(runner.asked) == 1
    assert any(str(name) in note for note in after.notes)
    assert before.plan.intents == after.plan.intents


def test_a_damaged_plan_is_passed_over(tmp_path: Path) -> None:
    """If the newest plan is damaged, the one before it is in force and the damage is said."""
    files = night(tmp_path).files
    plans = Plans(tmp_path / "plans")
    plans.publish(2, {"plan.json": files["plan.json"][:-20]})
    base = in_force(plans)
    assert base.plan is not None
    assert (base.plan.serial, base.serial) == (1, 3)
    assert "plans/2/plan.json" in base.notes[0]


def test_of_two_overlapping_nights_one_publishes(tmp_path: Path) -> None:
    """A night that was overtaken learns it when it publishes; the plan of the other stands."""
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET)
    here = site(tmp_path)

    def overtaken(steps: Sequence[Step[object]]) -> list[object]:
        if steps and steps[0].stage == "publish":
            here.plans.publish(1, {"plan.json": b"{}"})
        return in_process(steps)

    with pytest.raises(StalePlan, match="superseded"):
        plan_night(read_fleet(path), here, perform=overtaken)  # type: ignore[arg-type]
    assert here.plans.read(1) == b"{}"


def test_an_unmeetable_intent_is_unmet_and_the_rest_is_served(tmp_path: Path) -> None:
    """What cannot be met is unmet with its reason, and does not keep the others from being met."""
    done = night(tmp_path, FLEET + UNMEETABLE, dry_run=True)
    statuses = {decision.name: decision.status for decision in done.plan.intents}
    assert statuses == {"chat": "met", "dream": "unmet"}
    assert not done.met
    dream = done.plan.intents[1]
    assert dream.reason
    assert any(family.intent == "dream" for family in done.plan.rejections)


def test_a_search_of_one_intent_is_the_search_of_the_night(tmp_path: Path) -> None:
    """Searching one intent alone finds what the whole night finds for it."""
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET + UNMEETABLE)
    loaded = read_fleet(path)
    whole = search_fleet(loaded, site(tmp_path))[1]
    alone = search_fleet(loaded, site(tmp_path), only="chat")[1]
    assert alone == {"chat": whole["chat"]}


def test_pairs_are_what_the_search_asks_for(tmp_path: Path) -> None:
    """Every fingerprint that a search asks for was probed before: none rests on a roofline for want of a probe."""
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET)
    loaded = read_fleet(path)
    facts, searches = search_fleet(loaded, site(tmp_path))
    probed = {pair.key for pair in pairs(loaded.fleet.intents[0], facts)}
    asked = {facts.pair_of(pool.configuration).key for c in searches["chat"].candidates for pool in c.strategy.pools}
    assert asked <= probed
    assert {candidate.estimate.source for candidate in searches["chat"].candidates} == {"measured"}


def test_batches_hold_each_pair_once(tmp_path: Path) -> None:
    """Pairs are probed in batches of one model and GPU type, each exactly once, in a stable order."""
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET)
    loaded = read_fleet(path)
    facts, _ = search_fleet(loaded, site(tmp_path))
    found = distinct([*pairs(loaded.fleet.intents[0], facts)] * 2)
    split = [pair for _, batch in batches(found) for pair in batch]
    assert sorted(map(str, (pair.key for pair in split))) == sorted(map(str, {pair.key for pair in found}))
    assert [label for label, _ in batches(found)] == sorted(label for label, _ in batches(found))


def test_a_fingerprint_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    """Points, failures and provenance survive the store."""
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET)
    facts, _ = search_fleet(read_fleet(path), site(tmp_path))
    pair = next(pairs(facts.loaded.fleet.intents[0], facts))
    store = Store(tmp_path / "other")
    runner = FakeRunner(bound=op_time, fails=("qkv_proj",))
    probe([pair], store=store, runner=runner)
    found = Fingerprints(store)[pair.key]
    assert found is not None
    assert found.failures == {"qkv_proj": "the fake was told to fail"} or not found.failures
    assert (found.key, found.provenance) == (pair.key, "fake")
    assert found.points.height > 0


def test_fingerprints_travel_compressed_and_arrive_as_they_were(tmp_path: Path) -> None:
    """What a night has read reaches another process equal, at a fraction of its size; what is added later goes too."""
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET)
    facts, _ = search_fleet(read_fleet(path), site(tmp_path))
    keys = [pair.key for pair in pairs(facts.loaded.fleet.intents[0], facts)]
    known, unknown = facts.fingerprints, replace(keys[0], tp=999)
    assert known[unknown] is None
    raw = sum(found.points.estimated_size() for key in keys if (found := known[key]) is not None)
    sent = pickle.dumps(known)
    assert len(sent) < raw / 2
    arrived = pickle.loads(sent)  # noqa: S301 - our own
    assert len(pickle.dumps(known)) == len(sent)
    for key in keys:
        here, there = known[key], arrived[key]
        assert here is not None
        assert there is not None
        assert here.points.equals(there.points)
        assert here.points.schema == there.points.schema
        assert (here.key, here.failures, here.provenance) == (there.key, there.failures, there.provenance)
    assert arrived[unknown] is None
    assert arrived.record(keys[0]) == known.record(keys[0])


def test_a_shape_has_no_batch_limits() -> None:
    """Configurations that differ in batch limits alone share their fingerprint and predictor."""
    plain = Configuration(model="m", gpu="g", tp=2)
    tuned = replace(plain, max_num_seqs=8, max_num_batched_tokens=2048, max_model_len=16)
    assert shape_of(plain) == shape_of(tuned) == plain
    assert shape_of(replace(plain, tp=4)) != plain


@pytest.mark.prefect
def test_the_nightly_flow_publishes_the_same_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: None
) -> None:
    """Prefect's nightly flow decides as the library does, publishes once, and leaves its artifacts."""
    del prefect_server
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.yaml").write_text(FLEET)
    from prefect.client.orchestration import get_client  # noqa: PLC0415 - seconds to import
    from prefect.client.schemas.sorting import ArtifactSort  # noqa: PLC0415

    from flows.nightly import nightly  # noqa: PLC0415
    from flows.replan import replan  # noqa: PLC0415

    done = nightly(fleet="fleet.yaml", root="var", out="plans")
    assert (tmp_path / "plans" / "1" / "plan.json").is_file()
    again = replan(fleet="fleet.yaml", root="var", out="plans")
    assert again.plan.digest == done.plan.digest
    assert again.folder is None
    assert not (tmp_path / "plans" / "2").exists()
    with get_client(sync_client=True) as client:
        found = {artifact.key for artifact in client.read_artifacts(sort=ArtifactSort.KEY_DESC)}
    assert {"decisions", "placements", "difference", "summary", "report", "pareto", "utilisation"} <= found
    assert {f"progress-{stage}" for stage in ("observe", "probe", "search", "place", "render", "publish")} <= found


@pytest.mark.prefect
def test_the_server_makes_the_nights_of_a_schedule(prefect_server: None) -> None:
    """Prefect's server, with the versions that are installed here, makes runs of the nightly schedule in UTC."""
    del prefect_server
    from prefect.client.orchestration import get_client  # noqa: PLC0415
    from prefect.client.schemas.actions import DeploymentScheduleCreate  # noqa: PLC0415
    from prefect.client.schemas.schedules import CronSchedule  # noqa: PLC0415

    written = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"][0]
    (nights,) = written["schedules"]
    cron = CronSchedule(cron=nights["cron"], timezone=nights["timezone"])
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name("nightly")
        deployment = client.create_deployment(
            flow_id=flow_id, name="nightly", schedules=[DeploymentScheduleCreate(schedule=cron, slug=nights["slug"])]
        )
        client.request("POST", "/deployments/{id}/schedule", path_params={"id": deployment}, json={"min_runs": 3})
        runs = [run for run in client.read_flow_runs() if run.deployment_id == deployment]
    times = sorted(run.expected_start_time for run in runs if run.expected_start_time is not None)
    assert len(times) >= 3
    assert {(time.hour, time.minute, time.utcoffset()) for time in times} == {(2, 0, timedelta(0))}
