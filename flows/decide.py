"""The stage place: the placement of all intents and the plan that states it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from catalog.prices import price
from flows.fit import Predictors
from flows.publish import InForce
from flows.relax import relaxed
from flows.search import Facts
from planner.candidates.options import engine_for, typical_tokens
from planner.intents import Intent
from planner.memory import Memory
from planner.outlook import look_ahead
from planner.placement import Placed, place
from planner.plan import Facts as Stated
from planner.plan import Plan, Provenance, Search, assemble, seal
from planner.predict import step_time
from planner.queueing import Engine
from planner.strategies import Configuration
from planner.workload import lawful

#: Endings in which no solver's own answer stands.
UNSOLVED = ("rounded", "greedy", "kept_last")


def decide(facts: Facts, searches: Mapping[str, Search], base: InForce) -> Plan:
    """Place the candidates next to what runs now, and state the decision as a sealed plan.

    A night that comes to the decision in force restates it word for word, so that nothing is to be reviewed; but one
    whose solver found nothing says so in a plan of its own, though it decides the same.
    """
    fleet = facts.loaded.fleet
    candidates = {name: search.candidates for name, search in searches.items()}
    placed = place(fleet, candidates, incumbent=base.plan, gpus=facts.gpus)
    stated = Stated(
        models=facts.models,
        gpus=facts.gpus,
        prices=facts.prices,
        kv_bytes=lambda configuration: _kv_bytes(facts, configuration),
        provenance=_provenance(facts, placed),
        changed_from="" if base.plan is None else base.plan.digest,
        prefill_rate=None if facts.predictors is None else partial(_prefill_rate, facts.predictors),
    )
    plan = assemble(fleet, placed, relaxed(facts, searches, placed, facts.predictors), stated, serial=base.serial)
    if facts.predictors is not None:
        engines_of = partial(_engines_of, facts, facts.predictors)
        plan = look_ahead(plan, fleet, placed, requests=facts.requests, engines_of=engines_of, candidates=candidates)
    plan = seal(plan.model_copy(update={"fleet_digest": facts.loaded.digest}))
    same = base.plan is not None and _decided(plan) == _decided(base.plan)
    if base.plan is not None and same and plan.solved.status not in UNSOLVED:
        return base.plan.model_copy(update={"serial": base.serial})
    return plan


def _decided(plan: Plan) -> Plan:
    """The plan without what depends on how it was reached: the solver's account, the waves, and what a change costs."""
    second: dict[str, Any] = {"runner_up": None, "runner_up_extra_per_hour": None}
    return plan.model_copy(
        update={
            "serial": 0,
            "digest": "",
            "solved": None,
            "waves": (),
            "changed_from": "",
            "movement": None,
            "intents": tuple(decision.model_copy(update=second) for decision in plan.intents),
            "pools": tuple(pool.model_copy(update={"shadow_price": None}) for pool in plan.pools),
        }
    )


def _kv_bytes(facts: Facts, configuration: Configuration) -> int:
    return int(_held(facts, configuration).kv_bytes)


def _held(facts: Facts, configuration: Configuration) -> Memory:
    held = facts.memory_of(configuration)
    if not isinstance(held, Memory):
        msg = f"{configuration} was placed though it does not fit: {held.detail}"
        raise TypeError(msg)
    return held


def _engines_of(facts: Facts, predictors: Predictors, intent: Intent) -> Callable[[Configuration], Engine]:
    """Engines under one intent's load, at the middle of their predictions."""
    typical, predictor_of = typical_tokens(lawful(facts.requests[intent.name])), predictors.of(intent.name)

    def engine_of(configuration: Configuration) -> Engine:
        return engine_for(configuration, predictor_of(configuration), _held(facts, configuration), typical)

    return engine_of


def _prefill_rate(predictors: Predictors, configuration: Configuration) -> float:
    """Prompt tokens per second of one replica whose steps are full of prefill, at the middle of the interval."""
    budget = configuration.max_num_batched_tokens
    return configuration.engines * budget / float(step_time(predictors(configuration), chunks=1, chunk=budget))


def _provenance(facts: Facts, placed: Placed) -> Provenance:
    chosen = {seats.pool.configuration for served in placed.served for seats in served.seats}
    predictors = facts.predictors
    return Provenance(
        fingerprints=() if predictors is None else _cited(predictors.records, chosen),
        tables=_tables(facts, chosen),
        constants=facts.constants.digest,
        prices={pool.name: _price_source(facts, pool.name) for pool in facts.loaded.fleet.cluster.pools},
        corrections=() if predictors is None else _cited(predictors.corrected_by, chosen),
        notes=facts.notes,
    )


def _cited(records_of: Callable[[Configuration], tuple[str, ...]], chosen: Iterable[Configuration]) -> tuple[str, ...]:
    return tuple(sorted({record for configuration in chosen for record in records_of(configuration)}))


def _tables(facts: Facts, chosen: Iterable[Configuration]) -> str:
    found = (facts.fingerprints[facts.pair_of(configuration).key] for configuration in chosen)
    return "; ".join(sorted({fingerprint.provenance for fingerprint in found if fingerprint is not None}))


def _price_source(facts: Facts, name: str) -> str:
    pool = facts.loaded.fleet.cluster.pool(name)
    if pool.purchase is not None:
        return f"fleet.yaml, a node bought for {pool.purchase.price:,.0f} USD over {pool.purchase.years:g} years"
    if pool.price is not None:
        return "fleet.yaml"
    known = price(pool.gpu, pool.tier)
    return f"{known.source}, {known.date}"
