"""`plan_night`: the stages in order, from a checked fleet to a published plan; the same with and without Prefect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from catalog.fitted import load_constants
from catalog.gpus import load_gpus
from flows.decide import decide
from flows.fit import Predictors
from flows.fleet import LoadedFleet
from flows.observe import observe
from flows.predict import predicted_with
from flows.probe import Fingerprints, batches, distinct, probe, reference_runner
from flows.publish import InForce, files_of, in_force
from flows.search import Facts, pairs, search
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
    """Where the plan was published; None after a dry run."""
    searches: Mapping[str, Search]
    notes: tuple[str, ...]
    """What a reader should know: damaged records that were measured anew, plans that were passed over."""

    @property
    def met(self) -> bool:
        """Whether every intent is met, with or without its margin."""
        return all(decision.status in MET for decision in self.plan.intents)


def plan_night(loaded: LoadedFleet, site: Site, *, perform: Perform = in_process, dry_run: bool = False) -> Night:
    """Observe, probe what is new, search every intent, place, render, publish.

    Raises StalePlan when another night published meanwhile. Nothing but fingerprints is written before publishing.
    """
    base = in_force(site.plans)
    facts, searches = search_fleet(loaded, site, perform=perform)
    (plan,) = perform([Step(stage="place", label="ILP", call=partial(decide, facts, searches, base))])
    (files,) = perform(
        [Step(stage="render", label="files", call=partial(files_of, plan, previous=_before(plan, base)))]
    )
    folder = None
    if not dry_run:
        publish = partial(site.plans.publish, plan.serial, files)
        (folder,) = perform([Step(stage="publish", label=f"plan {plan.serial}", call=publish, retries=IO_RETRIES)])
    notes = (*base.notes, *facts.fingerprints.damaged)
    return Night(plan=plan, in_force=base, files=files, folder=folder, searches=searches, notes=notes)


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
        chosen = tuple(intent for intent in loaded.fleet.intents if intent.name == only)
        loaded = replace(loaded, fleet=loaded.fleet.model_copy(update={"intents": chosen}))
    facts = Facts(
        loaded=loaded,
        gpus=load_gpus(),
        requests=_observe(loaded, perform),
        constants=load_constants(),
        fingerprints=Fingerprints(site.store),
        measured_by=site.measured_by,
    )
    _probe(facts, site, perform)
    brought = predicted_with(site.store)
    predictors = Predictors(
        facts.fingerprints,
        facts.pair_of,
        gpus=facts.gpus,
        constants=facts.constants,
        own=brought.own,
        corrections=brought.corrections,
    )
    facts.predictors = predictors
    steps = [
        Step(stage="search", label=intent.name, call=partial(search, intent, facts, predictors))
        for intent in loaded.fleet.intents
    ]
    names = [intent.name for intent in loaded.fleet.intents]
    return facts, dict(zip(names, perform(steps), strict=True))


def _observe(loaded: LoadedFleet, perform: Perform) -> dict[str, Requests]:
    def all_of_them() -> dict[str, Requests]:
        return {intent.name: observe(intent, loaded.trace_path(intent)) for intent in loaded.fleet.intents}

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
    for names in perform(steps):
        facts.fingerprints.add(names)
