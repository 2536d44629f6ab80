"""Calibrate: compare the plan in force with what its services measured, and keep what that teaches.

Each comparison is a record; one further record, the correction, condenses them for the nights to come: biases, drifts,
open breakers. A drift is also kept as a wish for a new probe of its model on its GPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pydantic import ValidationError

from catalog.errors import CorruptRecord
from catalog.fitted import load_constants
from catalog.gpus import load_gpus
from catalog.predictors import Predictor
from catalog.store import Store
from catalog.store.records import canonical_json, digest, key_digest
from flows.corrections import CORRECTION, Production
from flows.fit import Predictors
from flows.fleet import LoadedFleet
from flows.observe import SEED
from flows.observe.stage import Client, Seen, sight
from flows.predict import predicted_with
from flows.probe import Fingerprints
from flows.prometheus import Prometheus
from flows.publish import in_force
from flows.search import Facts
from flows.site import Site
from planner.calibrate import Calibration, Comparison, Drift, calibrate, enough, limits, reading, strategy_in_force
from planner.candidates.options import engine_for, typical_tokens
from planner.goodput import estimate
from planner.intents import Intent
from planner.memory import Memory
from planner.plan import IntentDecision, Plan
from planner.queueing import rules_for
from planner.strategies import Configuration, Quantiles, Strategy
from planner.workload import Requests, realize
from planner.workload.observed import Attained

#: Kinds of records.
COMPARISON, WANTED = "comparison", "probe-wanted"
PredictorOf = Callable[[Configuration], Predictor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """What a calibration came to."""

    comparisons: tuple[Comparison, ...]
    """Of this time."""
    history: tuple[Comparison, ...]
    """All that the store holds, these included."""
    calibration: Calibration
    record: str
    new_drifts: tuple[Drift, ...]
    """That no probe was asked for yet."""
    notes: tuple[str, ...]
    """What could not be compared, with the reason."""


def calibrate_fleet(loaded: LoadedFleet, site: Site, *, client: Client = Prometheus) -> Calibrated:
    """Compare every watched service of the plan in force over the busiest hours of the last day."""
    sighting = sight(loaded, site.store, at_s=site.clock(), client=client)
    base = in_force(site.plans)
    notes = [*base.notes, *sighting.notes]
    found: list[Comparison] = []
    if base.plan is None:
        notes.append("no plan is in force: nothing was predicted yet")
    else:
        compared = _Compare(sighting.loaded, site, base.plan)
        for name, seen in sighting.services.items():
            answer = compared(name, seen)
            if isinstance(answer, str):
                notes.append(f"{name} is not compared: {answer}")
            else:
                found.append(answer)
    for row in found:
        site.store.put(COMPARISON, {"intent": row.intent, "at_hour": row.at_hour}, note=_json(row))
    history = comparisons(site.store)
    kept = len(site.store.newest(COMPARISON))
    notes += [f"{kept - len(history)} of {kept} comparisons cannot be read: left out"] * (kept > len(history))
    calibration = calibrate(history, sighting.at_hour)
    record = site.store.put(CORRECTION, {"of": "production"}, note=_json(calibration))
    return Calibrated(
        comparisons=tuple(found), history=history, calibration=calibration, record=str(record),
        new_drifts=_asked_for(calibration, site.store), notes=tuple(notes),
    )  # fmt: skip


def comparisons(store: Store) -> tuple[Comparison, ...]:
    """Every comparison of a store, by service and time; damaged records are passed over."""
    found = []
    for name in store.newest(COMPARISON).values():
        try:
            found.append(Comparison.model_validate_json(canonical_json(store.read(name).note)))
        except (CorruptRecord, ValidationError):
            continue
    return tuple(sorted(found, key=lambda row: (row.intent, row.at_hour)))


def _json(value: Comparison | Calibration | Drift) -> dict[str, object]:
    found: dict[str, object] = json.loads(value.model_dump_json())
    return found


def _asked_for(calibration: Calibration, store: Store) -> tuple[Drift, ...]:
    """Ask for a probe of what drifts, once per engine and basis; return the drifts that are new."""
    known = store.newest(WANTED)
    new = []
    for drift in calibration.drifting:
        key = {"model": drift.model, "gpu": drift.gpu, "basis": drift.basis, "intent": drift.intent}
        key |= {"phase": drift.phase}
        if key_digest(key) not in known:
            store.put(WANTED, key, note=_json(drift))
            new.append(drift)
    return tuple(new)


class _Compare:
    """Predicts the strategies in force under the load that was observed."""

    def __init__(self, loaded: LoadedFleet, site: Site, plan: Plan) -> None:
        self._plan = plan
        self._intents: Mapping[str, Intent] = {intent.name: intent for intent in loaded.fleet.intents}
        self._decisions: Mapping[str, IntentDecision] = {decision.name: decision for decision in plan.intents}
        self._facts = Facts(
            loaded=loaded, gpus=load_gpus(), requests={}, constants=load_constants(),
            fingerprints=Fingerprints(site.store), measured_by=site.measured_by,
        )  # fmt: skip
        brought = predicted_with(site.store)
        self._predictors = Predictors(
            self._facts.fingerprints, self._facts.pair_of, gpus=self._facts.gpus, constants=self._facts.constants,
            own=brought.own, corrections=brought.corrections, production=Production.cited(site.store, plan),
        )  # fmt: skip

    def __call__(self, name: str, seen: Seen) -> Comparison | str:
        """The comparison of one service, or why there is none."""
        attained = None if seen.observed is None else seen.observed.busiest
        if attained is None or seen.workload is None:
            return "its telemetry is missing"
        if not enough(attained):
            return "too few requests were measured in its busiest hours"
        groups = [group for group in self._plan.placements if group.intent == name]
        strategy = strategy_in_force(groups, self._facts.loaded.fleet.cluster) if groups else None
        if strategy is None:
            return "nothing of it runs" if not groups else "it is served by a mix of strategies"
        if any(pool.configuration.model not in self._facts.models for pool in strategy.pools):
            return "the plan in force serves another model than the fleet file says"
        workload = seen.workload.model_copy(update={"rate": attained.rate, "diurnal": None})
        return self._compared(name, attained, strategy, realize(workload, seed=SEED))

    def _compared(self, name: str, attained: Attained, strategy: Strategy, requests: Requests) -> Comparison | str:
        ttft, tpot, attainment = limits(self._intents[name].slo)
        promised = self._means(strategy, requests, self._predictors.of(name))
        raw = self._means(strategy, requests, self._predictors.unlearned)
        if isinstance(promised, str) or isinstance(raw, str):
            return promised if isinstance(promised, str) else str(raw)
        decoding = strategy.pools[-1].configuration
        predictor = self._predictors.of(name)(decoding)
        token = reading(attained.tpot, predicted=promised[1].mean, raw=raw[1].mean,
                        interval=predictor.decode_interval, limit=tpot)  # fmt: skip
        paced = self._paced(strategy, requests, 1.0 if token is None else token.raw_ratio)
        first = reading(attained.ttft, predicted=promised[0].mean, raw=raw[0].mean if isinstance(paced, str) else
                        paced[0].mean, interval=predictor.ttft_ends, limit=ttft)  # fmt: skip
        pair = self._facts.pair_of(decoding)
        basis = [self._facts.fingerprints.record(pair.key) or "", self._facts.constants.digest]
        return Comparison(
            intent=name, strategy=str(strategy), model=pair.model.digest, gpu=decoding.gpu,
            basis=digest(basis)[:32], serial=self._plan.serial, at_hour=attained.start_hour, rate=attained.rate,
            planned_rate=self._decisions[name].rate, attainment=attainment, ttft=first, tpot=token,
        )  # fmt: skip

    def _paced(self, strategy: Strategy, requests: Requests, decode: float) -> tuple[Quantiles, Quantiles] | str:
        """What is predicted when decode steps take as long as they were observed to: the rest of TTFT is prefill's."""
        return self._means(strategy, requests, lambda each: self._predictors.unlearned(each).scaled(
            decode=decode, prefill=1.0))  # fmt: skip

    def _means(
        self, strategy: Strategy, requests: Requests, predictor_of: PredictorOf
    ) -> tuple[Quantiles, Quantiles] | str:
        """(TTFT, TPOT) of the strategy under these requests, simulated."""
        engines = []
        for pool in strategy.pools:
            held = self._facts.memory_of(pool.configuration)
            if not isinstance(held, Memory):
                return f"its configuration no longer fits: {held.detail}"
            typical = typical_tokens(requests)
            engines.append(engine_for(pool.configuration, predictor_of(pool.configuration), held, typical))
        rules = rules_for(self._facts.loaded.fleet.vllm_version)
        found = estimate(strategy, tuple(engines), replace(requests, peak_rate=None), None, method="simulated",
                         seed=SEED, rules=rules)  # fmt: skip
        return found.ttft, found.tpot
