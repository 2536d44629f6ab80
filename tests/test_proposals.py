"""Laws of a review: a proposal is published once, by whoever says so in time, and never over a newer plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_fleet import FLEET

from catalog.errors import BadInput, StalePlan
from catalog.store import Plans, Store
from flows.fleet import read_fleet
from flows.night import Night, plan_night
from flows.proposals import review
from flows.publish import Ending, read_plan
from flows.site import Site
from planner.roofline import op_time
from probes.fake import FakeRunner


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Stores below a folder, with a fake runner."""
    return Site(
        store=Store(tmp_path / "catalog"), plans=Plans(tmp_path / "plans"), proposals=Plans(tmp_path / "proposals"),
        shadows=Plans(tmp_path / "shadows"), measured_by="fake", runner=FakeRunner(bound=op_time),
    )  # fmt: skip


def night(site: Site, folder: Path, ending: Ending, rate: str = "4 /s") -> Night:
    """One night with an ending."""
    (folder / "fleet.yaml").write_text(FLEET.replace("4 /s", rate))
    return plan_night(read_fleet(folder / "fleet.yaml"), site, ending=ending)


def test_a_proposal_is_looked_at_and_published(site: Site, tmp_path: Path) -> None:
    """Looking changes nothing; publishing puts the very plan in force, with its files rendered anew."""
    done = night(site, tmp_path, "review")
    assert (done.folder, site.plans.serials()) == (str(tmp_path / "proposals" / "1"), ())
    seen = review(site, 0, "look")
    assert (seen.number, seen.plan, seen.folder, site.plans.serials()) == (1, done.plan, None, ())
    assert seen.difference.changes
    manifest = next((tmp_path / "proposals" / "1" / "manifests").rglob("*.yaml"))
    manifest.write_text("slipped: in\n")
    put = review(site, 1, "publish")
    assert put.folder == str(tmp_path / "plans" / "1")
    assert read_plan(site.plans, 1) == done.plan
    published = tmp_path / "plans" / "1" / manifest.relative_to(tmp_path / "proposals" / "1")
    assert "slipped" not in published.read_text()


def test_a_superseded_proposal_is_refused(site: Site, tmp_path: Path) -> None:
    """A proposal whose serial another plan took is never published, however late it is asked for."""
    night(site, tmp_path, "review")
    night(site, tmp_path, "publish", rate="9 /s")
    with pytest.raises(StalePlan, match="plan 1 was published meanwhile"):
        review(site, 1, "publish")
    assert site.plans.serials() == (1,)


def test_of_two_proposals_one_is_published(site: Site, tmp_path: Path) -> None:
    """Two nights propose for the same serial; the first that is published wins, the other is refused."""
    night(site, tmp_path, "review")
    night(site, tmp_path, "review", rate="9 /s")
    review(site, 2, "publish")
    with pytest.raises(StalePlan):
        review(site, 1, "publish")
    assert site.plans.serials() == (1,)


def test_a_rejected_proposal_stays_rejected(site: Site, tmp_path: Path) -> None:
    """Rejecting ends the matter; the reason is kept."""
    night(site, tmp_path, "review")
    review(site, 0, "reject", reason="too dear")
    with pytest.raises(BadInput, match="was rejected"):
        review(site, 1, "publish")
    (name,) = site.store.newest("review").values()
    assert site.store.read(name).note["reason"] == "too dear"
    assert site.plans.serials() == ()


def test_the_window_closes(site: Site, tmp_path: Path) -> None:
    """A proposal that is older than the window is not published; it can still be looked at and rejected."""
    night(replace(site, clock=lambda: 1000.0), tmp_path, "review")
    with pytest.raises(BadInput, match="window of 2 h is over"):
        review(site, 1, "publish", window_hours=2.0, now=1000.0 + 2 * 3600 + 1)
    assert review(site, 1, "look", now=1e9).folder is None
    assert review(site, 1, "publish", window_hours=2.0, now=1000.0 + 2 * 3600 - 1).folder is not None


def test_nothing_to_review_is_said(site: Site) -> None:
    """Without a proposal the answer says how to get one."""
    with pytest.raises(BadInput, match="no plan waits for a review"):
        review(site, 0, "look")


def test_a_tampered_proposal_is_refused(site: Site, tmp_path: Path) -> None:
    """A plan.json whose content is not what its digest says is never published."""
    night(site, tmp_path, "review")
    path = tmp_path / "proposals" / "1" / "plan.json"
    path.write_text(path.read_text().replace('"replicas": 1', '"replicas": 2').replace('"replicas":1', '"replicas":2'))
    with pytest.raises(Exception, match="digest"):
        review(site, 1, "publish")
    assert site.plans.serials() == ()


def test_a_shadow_night_only_reports(site: Site, tmp_path: Path) -> None:
    """A shadow night keeps its whole report apart and leaves plans and proposals as they were, night after night."""
    night(site, tmp_path, "publish")
    shadows = [night(site, tmp_path, "shadow", rate=rate) for rate in ("9 /s", "12 /s")]
    assert [done.folder for done in shadows] == [str(tmp_path / "shadows" / number) for number in "12"]
    assert {done.plan.serial for done in shadows} == {2}
    assert (tmp_path / "shadows" / "2" / "report.html").is_file()
    assert (site.plans.serials(), Plans(tmp_path / "proposals").serials()) == ((1,), ())
