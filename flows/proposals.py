"""Review: a proposed plan is looked at, published or rejected, hours later and in another process if need be.

A proposal is a whole plan in a folder of its own, so a review survives restarts of server, worker and machine. Its
serial is the one after the plan that it was computed from: whoever takes that serial first wins, and a proposal whose
serial is taken (a later night, a paused one that went on) is refused. What is published is rendered anew from the
sealed plan.json, so nothing that was changed beside it can slip in.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from catalog.errors import BadInput, StalePlan
from catalog.store import Plans, Store
from catalog.store.records import key_digest
from flows.publish import InForce, files_of, in_force, read_plan
from flows.site import Site
from planner.diff import Difference, diff
from planner.plan import Plan

KIND = "review"
Verdict = Literal["look", "publish", "reject"]
SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reviewed:
    """A proposal beside the plan in force, and what became of it."""

    number: int
    plan: Plan
    in_force: InForce
    verdict: Verdict
    folder: str | None
    """Where it was published."""

    @property
    def difference(self) -> Difference:
        """What it changes."""
        return diff(self.in_force.plan, self.plan)


def open_proposal(store: Store, number: int, plan: Plan, *, at: float) -> None:
    """Note when a proposal was made: the review window starts then."""
    store.put(KIND, _key(number, plan), note={"verdict": "proposed", "at": at})


def review(  # noqa: PLR0913 - a form
    site: Site, number: int, verdict: Verdict, *, reason: str = "", window_hours: float = 24.0, now: float | None = None
) -> Reviewed:
    """Look at a proposal (0: the newest), publish it, or reject it.

    Raises:
        BadInput: there is no such proposal, it was rejected, or its window is over.
        StalePlan: another plan took its serial meanwhile; the proposal is superseded.
    """
    proposals = _proposals(site)
    number = number or proposals.latest() or 0
    if not number:
        raise BadInput("no plan waits for a review", place=proposals.root, mend="run a night with ending review")
    plan = read_plan(proposals, number)
    base = in_force(site.plans)
    folder = None
    if verdict != "look":
        folder = _decide(site, number, plan, base, verdict, reason=reason, window_hours=window_hours, now=now)
    return Reviewed(number=number, plan=plan, in_force=base, verdict=verdict, folder=folder)


def _decide(  # noqa: PLR0913 - a decision is made of these
    site: Site,
    number: int,
    plan: Plan,
    base: InForce,
    verdict: Verdict,
    *,
    reason: str,
    window_hours: float,
    now: float | None,
) -> str | None:
    place, clock = f"{_proposals(site).folder(number)}", time.time() if now is None else now
    past = _history(site.store, number, plan)
    if past.get("verdict") == "rejected":
        raise BadInput("the proposal was rejected", place=place, mend="plan anew with ending review")
    opened = past.get("at")
    if verdict == "publish" and isinstance(opened, float) and clock - opened > window_hours * SECONDS_PER_HOUR:
        what = f"the review window of {window_hours:g} h is over"
        raise BadInput(what, place=place, mend="plan anew with ending review, or give a longer window_hours")
    if verdict == "reject":
        site.store.put(KIND, _key(number, plan), note={"verdict": "rejected", "at": clock, "reason": reason[:2000]})
        return None
    if plan.serial != base.serial:
        msg = f"{place}: plan {base.serial - 1} was published meanwhile; this proposal is superseded, plan anew"
        raise StalePlan(msg)
    return site.plans.publish(plan.serial, files_of(plan, previous=base.plan))


def _history(store: Store, number: int, plan: Plan) -> Mapping[str, Any]:
    name = store.newest(KIND).get(key_digest(_key(number, plan)))
    return {} if name is None else store.read(name).note


def _key(number: int, plan: Plan) -> dict[str, Any]:
    return {"proposal": number, "serial": plan.serial, "digest": plan.digest}


def _proposals(site: Site) -> Plans:
    if site.proposals is None:
        raise BadInput("this site keeps no proposals", mend="open it with site_at(root, out)")
    return site.proposals
