"""`plan_night`: the stages in order, from a checked fleet to a published plan; the same with and without Prefect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from catalog.fitted import load_constants
from catalog.gpus import load_gpus
from flows.breakers import with_breakers
from flows.corrections import Production
from flows.decide import UNSOLVED, decide
from flows.fit import Predictors
from flows.fleet import LoadedFleet
from flows.observe import observe
from flows.observe.stage import Sighting, refuse_blind, sight
from flows.predict import predicted_with
from flows.probe import Fingerprints, batches, distinct, probe, reference_runner
from flows.proposals import open_proposal
from flows.publish import Ending, InForce, files_of, in_force
from flows.search import Facts, pairs, refusals, search
from flows.searched import Searched
from flows.site import Site
from flows.steps import Perform, Step, in_process
from planner.plan import Plan, Search
from planner.workload import Requests

IO_RETRIES = 3
#: Statuses of an intent whose whole load is served within its SLO.
MET = ("met", "margin_consumed")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Night:
    """What a night came to."""

    plan: Plan
    in_force: InForce
    """Before the night."""
    files: Mapping[str, bytes]
    folder: str | None
    """Where the plan was published, or kept for a review or as a shadow; None after a dry run."""
    searches: Mapping[str, Search]
    notes: tuple[str, ...]
    """What a reader should know: damaged records that were measured anew, plans that were passed over."""
    ending: Ending = "publish"

    @property
    def met(self) -> bool:
        """Whether every intent is met, with or without its margin."""
        return all(decision.status in MET for decision in self.plan.intents)


def plan_night(
    loaded: LoadedFleet,
    site: Site,
    *,
    perform: Perform = in_process,
    dry_run: bool = False,
    ending: Ending = "publish",
) -> Night:
    """Observe, probe what is new, search every intent, place, render, publish (or what `ending` says instead).

    Raises StalePlan when another night published meanwhile. Nothing but what was measured and searched is written
    before publishing.
    """
    ending = "show" if dry_run else ending
    base = in_force(site.plans)
    facts, searches = search_fleet(loaded, site, perform=perform)
    refuse_blind(facts.missing, base.plan)
    searches = with_breakers(searches, facts, base.plan, at_s=site.clock(), perform=perform)
    (plan,) = perform([Step(stage="place", label="ILP", call=partial(decide, facts, searches, base))])
    (files,) = perform(
        [Step(stage="render", label="files", call=partial(files_of, plan, previous=_before(plan, base)))]
    )
    folder = None
    if ending != "show":
        call = partial(put, site, ending, plan, files)
        (folder,) = perform([Step(stage="publish", label=f"plan {plan.serial}", call=call, retries=IO_RETRIES)])
    unsolved = plan.solved.notes if plan.solved.status in UNSOLVED else ()
    notes = (*base.notes, *facts.notes, *facts.fingerprints.damaged, *unsolved)
    return Night(plan=plan, in_force=base, files=files, folder=folder, searches=searches, notes=notes, ending=ending)


def put(site: Site, ending: Ending, plan: Plan, files: Mapping[str, bytes]) -> str:
    """Publish the plan under its serial, or keep it among the proposals or shadows under the next number of those."""
    beside = {"review": site.proposals, "shadow": site.shadows}.get(ending)
    if beside is None:
        return site.plans.publish(plan.serial, files)
    number = beside.next_serial()
    folder = beside.publish(number, files)
    if ending == "review":
        open_proposal(site.store, number, plan, at=site.clock())
    return folder


def _before(plan: Plan, base: InForce) -> Plan | None:
    """The plan to compare with in the report: the one in force, or if nothing changed the last one that differs.

    So an unchanged input gives an identical report, whatever its serial.
    """
    return base.plan if base.plan is None or base.plan.digest != plan.digest else base.other


def search_fleet(
    loaded: LoadedFleet, site: Site, *, perform: Perform = in_process, only: str | None = None
) -> tuple[Facts, dict[str, Search]]:
    """Observe, probe and search all intents, or one; return the facts and what was found by intent."""
    if only is not None:
        loaded = loaded.only(only)
    facts, predictors = fitted(loaded, site, perform=perform)
    searched = Searched(site.store, facts)
    intents = facts.loaded.fleet.intents
    found = {
        each.name: search(each, facts, predictors) if each.name in facts.missing else searched.find(each)
        for each in intents
    }
    asked = [intent for intent in intents if found[intent.name] is None]
    steps = [
        Step(
            stage="search",
            label=intent.name,
            call=partial(search, intent, facts, predictors),
            keep=partial(searched.keep, intent),
        )
        for intent in asked
    ]
    new = dict(zip([intent.name for intent in asked], perform(steps), strict=True))
    return facts, {name: new[name] if before is None else before for name, before in found.items()}


def fitted(loaded: LoadedFleet, site: Site, *, perform: Perform = in_process) -> tuple[Facts, Predictors]:
    """Observe, probe what is new, and hold the predictors of every pair that the fleet's searches ask for."""
    sighting, requests = _observe(loaded, site, perform)
    facts = Facts(
        loaded=sighting.loaded,
        gpus=load_gpus(),
        requests=requests,
        notes=sighting.notes,
        missing=sighting.missing,
        constants=load_constants(),
        fingerprints=Fingerprints(site.store),
        measured_by=site.measured_by,
    )
    facts.notes = (*facts.notes, *refusals(facts), *Production.damaged(site.store))
    _probe(facts, site, perform)
    brought = predicted_with(site.store)
    predictors = Predictors(
        facts.fingerprints,
        facts.pair_of,
        gpus=facts.gpus,
        constants=facts.constants,
        own=brought.own,
        corrections=brought.corrections,
        production=Production.of(site.store),
    )
    facts.predictors = predictors
    return facts, predictors


def _observe(loaded: LoadedFleet, site: Site, perform: Perform) -> tuple[Sighting, dict[str, Requests]]:
    def all_of_them() -> tuple[Sighting, dict[str, Requests]]:
        seen = sight(loaded, site.store, at_s=site.clock())
        known = [intent for intent in seen.loaded.fleet.intents if intent.name not in seen.missing]
        return seen, {intent.name: observe(intent, loaded.trace_path(intent)) for intent in known}

    label = f"{len(loaded.fleet.intents)} intents"
    return perform([Step(stage="observe", label=label, call=all_of_them, retries=IO_RETRIES)])[0]


def _probe(facts: Facts, site: Site, perform: Perform) -> None:
    wanted = [pair for intent in facts.loaded.fleet.intents for pair in pairs(intent, facts)]
    missing = facts.fingerprints.missing(distinct(wanted))
    if not missing:
        return
    runner = site.runner or reference_runner(facts.gpus)
    steps = [
        Step(
            stage="probe", label=label, call=partial(probe, batch, store=site.store, runner=runner), retries=IO_RETRIES
        )
        for label, batch in batches(missing)
    ]
    for probed in perform(steps):
        facts.fingerprints.add(probed)
