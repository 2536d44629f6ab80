"""`place`: from candidates to a validated placement, whatever the solver does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from planner.placement.bins import bin_classes
from planner.placement.columns import Columns, build
from planner.placement.legal import Ground
from planner.placement.patterns import patterns
from planner.placement.placed import Placed, Served
from planner.placement.program import Patterns, Program, counted_starts, program
from planner.placement.reasons import binding, market, missing_gpus, runner_up, verdict
from planner.placement.rules import Rules
from planner.placement.running import Running, running
from planner.placement.seating import Seating, seat
from planner.placement.solve import SOLVERS, Solver
from planner.placement.spelling import check, gpu_names
from planner.placement.stages import Asking, Outcome, optimise
from planner.placement.validate import Fault, faults
from planner.placement.waves import change, started, waves
from planner.plan import Solved

if TYPE_CHECKING:
    from catalog.gpus import GPU
    from planner.intents import Fleet
    from planner.plan import Plan
    from planner.strategies import Candidate


def place(  # noqa: PLR0913 - the night's inputs, all but two with a default
    fleet: Fleet,
    candidates: Mapping[str, Sequence[Candidate]],
    *,
    incumbent: Plan | Placed | None = None,
    standing: Mapping[str, Sequence[Candidate]] | None = None,
    gpus: Mapping[str, GPU] | None = None,
    time_limit_s: float = 60.0,
    solver: str | Solver = "highs",
    rules: Rules | None = None,
) -> Placed:
    """Choose a column for every intent and a place for every replica.

    Args:
        fleet: cluster, teams, intents, movement limit.
        candidates: by intent name, each with the share of the load that it serves; an intent may have none.
        incumbent: the plan in force. What it runs is kept while that covers `Rules.coverage` of the demand, unless a
            change pays for its starts.
        standing: what runs, valued under tonight's load, by intent name; without it tonight's candidates of the same
            configuration are scaled.
        gpus: the catalog, for link domains and the spelling of names.
        time_limit_s: solver time of all stages together, seconds.
        solver: "highs", "cbc", or a callable for tests.
        rules: start costs, hysteresis, gap, waves.

    Raises:
        BadInput: a team, node pool or GPU is named that does not exist. Nothing else: an intent that cannot be served
            is in the result with its reason, a solver that fails is in `solved.notes`.
    """
    rules = replace(rules or Rules(), time_limit_s=time_limit_s)
    check(fleet, gpus)
    classes = bin_classes(fleet.cluster, gpus)
    ground = Ground(classes=classes, gpu_names=gpu_names(gpus))
    now = running(incumbent, classes)
    columns = build(fleet, candidates, ground=ground, now=now, rules=rules, standing=standing or {})
    night = _Night(
        fleet=fleet,
        candidates=candidates,
        columns=columns,
        ground=ground,
        now=now,
        rules=rules,
        gpus=gpus,
        incumbent=incumbent,
        asking=Asking(solver=SOLVERS[solver] if isinstance(solver, str) else solver, seconds=time_limit_s, rules=rules),
        movement_gpus=math.floor(fleet.movement * now.gpus + 1e-9) if now.replicas else None,
        solver_name=solver if isinstance(solver, str) else getattr(solver, "__name__", "solver"),
    )
    return _solve_and_repair(night)


@dataclass(slots=True, kw_only=True)
class _Night:
    """The inputs of one placement, and what repairs have added."""

    fleet: Fleet
    candidates: Mapping[str, Sequence[Candidate]]
    columns: Columns
    ground: Ground
    now: Running
    rules: Rules
    gpus: Mapping[str, GPU] | None
    incumbent: Plan | Placed | None
    asking: Asking
    movement_gpus: int | None
    solver_name: str
    patterns: list[Patterns] = field(default_factory=list)
    cuts: dict[str, int] = field(default_factory=dict)
    banned: set[int] = field(default_factory=set)
    refusals: dict[int, int] = field(default_factory=dict)
    """How often the validator refused what was chosen for an intent."""


def _solve_and_repair(night: _Night) -> Placed:
    """Solve, seat, validate; what does not fit or breaks a rule goes back as a row, a cut or a banned column."""
    columns = night.columns
    for _ in range(night.rules.repairs + 1):
        problem = _program(night)
        outcome = optimise(night.fleet, columns, problem, night.asking)
        chosen = _members(columns, outcome)
        seating = seat(night.fleet, chosen, night.ground, night.now, night.asking.solver)
        if seating.unplaced:
            _tighten(night, seating)
            continue
        placed = _placed(night, problem, outcome, seating)
        found = _faults(night, placed)
        if not found:
            return placed
        if not _ban(night, outcome, found):
            break
    return _last_resort(night)


def _program(night: _Night) -> Program:
    problem = program(
        night.fleet,
        night.columns,
        night.ground,
        movement_gpus=night.movement_gpus,
        patterns=night.patterns,
        cuts=night.cuts,
    )
    if night.banned:
        upper = problem.upper.copy()
        upper[sorted(night.banned)] = 0.0
        problem = problem.with_upper(upper)
    return problem


def _members(columns: Columns, outcome: Outcome) -> dict[str, tuple[Candidate, ...]]:
    chosen = np.flatnonzero(outcome.values[: columns.count] > 0.5)
    return {columns.names[columns.intent[column]]: columns.members(int(column)) for column in chosen}


def _tighten(night: _Night, seating: Seating) -> None:
    """Answer a class that did not pack: pattern rows the first time, then fewer GPUs."""
    known = {pattern.pool for pattern in night.patterns}
    for pool, gpus in seating.unplaced.items():
        fresh = None if pool in known else patterns(night.columns, night.ground, pool)
        if fresh is not None:
            night.patterns.append(fresh)
            night.asking.notes.append(f"node pool {pool}: counts fit and pieces did not, solved again with patterns")
        else:
            night.cuts[pool] = night.cuts.get(pool, 0) + gpus
            night.asking.notes.append(f"node pool {pool}: {gpus} GPUs would not pack, solved again without them")


def _ban(night: _Night, outcome: Outcome, found: Sequence[Fault]) -> bool:
    """Forbid the columns of intents with a fault; False where the fault is nobody's.

    The first time the chosen column, the second time all that use the same node pools, the third time all.
    """
    names = {fault.intent for fault in found}
    night.asking.notes += [f"refused by the validator: {fault}" for fault in found[:5]]
    columns = night.columns
    chosen = [int(c) for c in np.flatnonzero(outcome.values[: columns.count] > 0.5) if columns.one[c] >= 0]
    fresh: set[int] = set()
    for column in chosen:
        i = int(columns.intent[column])
        if columns.names[i] not in names:
            continue
        night.refusals[i] = night.refusals.get(i, 0) + 1
        mine = np.arange(columns.first[i] + 1, columns.first[i + 1])
        alike = ((columns.nominal[mine] > 0) == (columns.nominal[column] > 0)).all(axis=1)
        more = {1: [column], 2: mine[alike].tolist()}.get(night.refusals[i], mine.tolist())
        fresh |= set(more)
    night.banned |= fresh
    return bool(fresh)


def _faults(night: _Night, placed: Placed) -> list[Fault]:
    return faults(
        placed,
        night.fleet,
        candidates=night.candidates,
        incumbent=night.incumbent,
        gpus=night.gpus,
        rules=night.rules,
    )


def _last_resort(night: _Night) -> Placed:
    """What runs now, else nothing, lowest priority dropped first until the validator agrees; said loudly."""
    columns, fleet = night.columns, night.fleet
    night.patterns, night.cuts = [], {}
    night.asking.notes.append("no solution passed the validator: what runs now stays, as far as it may")
    problem = _program(night)
    values = np.zeros(problem.variables)
    values[columns.first[:-1]] = 1.0
    order = sorted(range(len(fleet.intents)), key=lambda i: (fleet.intents[i].priority, i))
    for i in order:
        runs = [
            c for c in range(columns.first[i], columns.first[i + 1]) if columns.standing[c] and c not in night.banned
        ]
        if not runs:
            continue
        values[columns.first[i]], values[runs[0]] = 0.0, 1.0
        if problem.breaks(values):
            values[columns.first[i]], values[runs[0]] = 1.0, 0.0
    for drop in (*reversed(order), -1):
        outcome = Outcome(
            values=values, stages=(), ending="kept_last", gap=1.0, bound=None,
            prices=np.zeros(len(columns.rows)), ideal=False, notes=tuple(night.asking.notes),
        )  # fmt: skip
        seating = seat(fleet, _members(columns, outcome), night.ground, night.now, night.asking.solver)
        if not seating.unplaced:
            placed = _placed(night, problem, outcome, seating)
            if drop < 0 or not _faults(night, placed):
                return placed
        values[columns.of(drop)] = 0.0
        values[columns.first[drop]] = 1.0
    msg = "the empty placement did not seat"  # cannot be: it has no replica
    raise AssertionError(msg)


def _placed(night: _Night, problem: Program, outcome: Outcome, seating: Seating) -> Placed:
    columns, fleet, now, rules = night.columns, night.fleet, night.now, night.rules
    state = market(columns, problem, outcome.values, outcome.prices)
    served = []
    for i, intent in enumerate(fleet.intents):
        members = columns.members(int(state.chosen[i]))
        status, reason = verdict(
            i, intent, state, offered=len(night.candidates.get(intent.name, ())), coverage=rules.coverage
        )
        other, extra = runner_up(i, state)
        served.append(
            Served(
                intent=intent.name,
                candidates=members,
                share=min(1.0, math.fsum(candidate.share for candidate in members)),
                seats=seating.seats[intent.name],
                status=status,
                reason=reason,
                binding=binding(i, intent, state) if members else "",
                cost_per_hour=math.fsum(candidate.cost_per_hour for candidate in members),
                runner_up=other,
                runner_up_extra=extra,
            )
        )
    begun = started(change(fleet, served, now))
    served = [
        replace(one, starts=begun.get(one.intent, (0, 0.0))[0], started_gpus=begun.get(one.intent, (0, 0.0))[1])
        for one in served
    ]
    known = {columns.names[i]: columns.standing_of(i) for i in range(len(fleet.intents))}
    counted = float(counted_starts(columns)[state.chosen].sum())
    missing = {} if outcome.ideal else missing_gpus(fleet, columns, problem, night.asking)
    order = (
        waves(fleet, served, now, standing=known, classes=night.ground.classes, wave_share=rules.wave_share)
        if now.replicas
        else ()
    )
    return Placed(
        served=tuple(served),
        solved=_solved(night, outcome, missing),
        stages=outcome.stages,
        shadow_prices=_shadow_prices(night, outcome),
        missing_gpus=missing,
        cost_per_hour=math.fsum(one.cost_per_hour for one in served),
        starts=sum(one.starts for one in served),
        started_gpus=math.fsum(one.started_gpus for one in served),
        movement_gpus=night.movement_gpus,
        forced_gpus=max(0, math.ceil(counted - night.movement_gpus - 1e-6)) if night.movement_gpus is not None else 0,
        settled=tuple(columns.names[i] for i in range(len(fleet.intents)) if columns.settled(i))
        if now.replicas
        else (),
        waves=order,
    )


def _solved(night: _Night, outcome: Outcome, missing: Mapping[str, int]) -> Solved:
    notes = [*outcome.notes, *night.now.gone]
    if missing:
        short = ", ".join(f"{gpus} of {pool}" for pool, gpus in missing.items())
        notes.append(f"not everything fits: the cheapest way to serve all would take {short} GPUs more")
    said = {
        "rounded": "THE SOLVER FOUND NO PLAN: this one is the rounded LP relaxation, validated",
        "greedy": "THE SOLVER FOUND NO PLAN: this one was filled greedily by price, validated",
        "kept_last": "THE SOLVER FOUND NO PLAN: last night's stays, validated",
        "time_limit": "the time limit cut the proof short: the plan is valid, see its gap",
    }
    notes += [said[outcome.ending]] if outcome.ending in said else []
    shared = [
        f"up to {bins.parts} on each GPU of {bins.name}" for bins in night.ground.classes.values() if bins.parts > 1
    ]
    said_of = "; ".join(shared) or "off, every replica has GPUs of its own"
    notes.append(f"several models on one GPU: {said_of}")
    return Solved(
        solver=night.solver_name,
        status=outcome.ending,
        gap=outcome.gap,
        bound=outcome.bound,
        columns=night.columns.count,
        notes=tuple(dict.fromkeys(notes)),
    )


def _shadow_prices(night: _Night, outcome: Outcome) -> dict[str, float | None]:
    """Value of one more whole node of each pool, per GPU: every class row of the pool grows by what a node adds."""
    prices: dict[str, float | None] = dict.fromkeys(night.columns.pools, 0.0)
    for row, price in zip(night.columns.rows, outcome.prices.tolist(), strict=True):
        bins = night.ground.classes[row.pool]
        whole = bins.domain * (bins.node // bins.domain)
        slots = whole // row.size * row.size if row.size > 1 else bins.node
        prices[row.pool] = (prices[row.pool] or 0.0) + price * slots / bins.pool.gpus_per_node
    return {name: None if outcome.bound is None else price for name, price in prices.items()}
