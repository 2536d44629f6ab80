"""The objectives, one after the other, and what stands when a solver does not deliver.

    S1..Sk     shortfall of each priority class, 0 first: sum of size * (d + d^2), d = share below the intent's best;
               convex, so that a shortage is shared rather than one intent starved
    movement   GPUs started beyond tonight's limit: only what service forces
    latency    of intents whose goal it is, relative to their fastest column, in steps of 1 %
    money      running cost plus start cost spread over the horizon, dollars per hour
    starts     replicas started, intents touched, within `Rules.churn` of the money

A stage whose optimum is zero *fixes* its columns; one above zero becomes a row. When every intent can have its best
column at once, the shortfall stages are zero by construction and only those columns enter: that is the usual night.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.placement.fallback import Fallback, greedy, kept_last, rounded
from planner.placement.placed import Ending, Stage
from planner.placement.program import Program, at_most
from planner.placement.solve import SOLVERS, Answer, Question, Solver, checked

if TYPE_CHECKING:
    from planner.intents import Fleet
    from planner.placement.columns import Columns
    from planner.placement.rules import Rules

Floats = NDArray[np.float64]
ZERO = 1e-9
LAST = ("money", "starts")
#: Share of the time left that a stage may take.
SHARES = {"money": 0.8, "starts": 0.3}
#: A relative gap this small is rounding.
PROVEN = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """A point that keeps every row, and how good it provably is."""

    values: Floats
    stages: tuple[Stage, ...]
    ending: Ending
    gap: float
    bound: float | None
    prices: Floats
    """Dollars per hour that one more GPU would save, per class row."""
    ideal: bool
    """Every intent has its best column."""
    notes: tuple[str, ...]


@dataclass(slots=True)
class Asking:
    """A solver with the time that is left, and everything that went wrong on the way."""

    solver: Solver
    seconds: float
    rules: Rules
    notes: list[str] = field(default_factory=list)
    failed: bool = False
    """A solver crashed or lied: its silence is then no sign of a hard problem."""

    def ask(self, program: Program, objective: Floats, *, share: float, **how: object) -> Answer:
        """Ask one question with `share` of the time left."""
        limit = max(0.5, self.seconds * share)
        question = Question(program=program, objective=objective, time_limit_s=limit, gap=self.rules.gap, **how)  # type: ignore[arg-type]  # relax and start only
        answer = checked(self.solver(question), question)
        if answer.outcome == "crashed" and self.solver is SOLVERS["highs"]:
            self.notes.append(f"HiGHS failed ({answer.note}); asked CBC instead")
            answer = checked(SOLVERS["cbc"](question), question)
        self.seconds = max(0.0, self.seconds - answer.seconds)
        if answer.outcome in ("crashed", "lied"):
            self.failed = True
            self.notes.append(answer.note)
        return answer

    def compare(self, program: Program, objective: Floats, answer: Answer) -> None:
        """Ask the other solver the same and note whether it comes to the same dollars within the gap."""
        if answer.values is None:
            return
        name = "HiGHS" if self.solver is SOLVERS["cbc"] else "CBC"
        limit = max(0.5, self.seconds)
        question = Question(program=program, objective=objective, time_limit_s=limit, gap=self.rules.gap)
        other = checked(SOLVERS[name.lower()](question), question)
        self.seconds = max(0.0, self.seconds - other.seconds)
        close = abs(other.value - answer.value) <= 2 * self.rules.gap * abs(answer.value) + ZERO
        told = f"{other.value:,.4f} USD/h" if other.values is not None else other.outcome.replace("_", " ")
        agrees = "agrees" if close else f"does not agree with {answer.value:,.4f}"
        self.notes.append(f"second opinion: {name} {agrees} ({told})")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Goal:
    name: str
    unit: str
    weights: Floats


def optimise(fleet: Fleet, columns: Columns, program: Program, asking: Asking) -> Outcome:
    """Find the best point: first with every intent at its best column, else by classes of priority."""
    money = _padded(columns.money, program)
    for narrow, goals in _attempts(fleet, columns, program):
        relaxation = asking.ask(narrow, money, share=0.3, relax=True)
        if relaxation.outcome == "infeasible" and narrow is not program:
            continue
        stand_ins = _stand_ins(fleet, columns, narrow, relaxation)
        found = _lexicographic(narrow, goals, stand_ins, relaxation, asking)
        if found is not None:
            return _outcome(columns, program, found, asking)
    # Unreachable while the empty columns keep every row; said rather than assumed.
    empty = np.zeros(program.variables)
    empty[columns.first[:-1]] = 1.0
    asking.notes.append("no point was found: the empty plan stands")
    return _outcome(columns, program, _Found(values=empty, stages=(), ending="greedy", relaxation=None), asking)


def shortfall(fleet: Fleet, columns: Columns) -> tuple[tuple[int, Floats], ...]:
    """(priority, weight per column) of each class that can fall short."""
    first = columns.first[:-1]
    size = np.array([_gpus_of_best(columns, i) for i in range(first.size)])
    weight = size[columns.intent] * (columns.deficit + columns.deficit**2)
    priority = np.array([intent.priority for intent in fleet.intents])[columns.intent]
    return tuple((int(p), weight * (priority == p)) for p in np.unique(priority) if (weight * (priority == p)).any())


def _gpus_of_best(columns: Columns, intent: int) -> float:
    mine = columns.of(intent)
    gpus = columns.nominal[mine].sum(axis=1)
    best = gpus[columns.deficit[mine] == 0.0]
    return float(best.min()) if best.size else 0.0


def _padded(weights: Floats, program: Program) -> Floats:
    return np.concatenate((weights, np.zeros(program.variables - weights.size)))


def _attempts(fleet: Fleet, columns: Columns, program: Program) -> list[tuple[Program, list[_Goal]]]:
    """Programs to try, narrow ones first, each with the goals that are not settled by its narrowness."""
    late = _late_goals(columns, program)
    best = program.upper.copy()
    best[: columns.count][columns.deficit > 0.0] = 0.0
    attempts: list[tuple[Program, list[_Goal]]] = []
    overflow: list[_Goal] = []
    if program.overflow >= 0:
        still = best.copy()
        still[program.overflow] = 0.0
        attempts.append((program.with_upper(still), late))
        excess = np.zeros(program.variables)
        excess[program.overflow] = 1.0
        overflow = [_Goal(name="movement", unit="GPUs beyond the limit", weights=excess)]
    attempts.append((program.with_upper(best), [*overflow, *late]))
    classes = [
        _Goal(name=f"shortfall of priority {priority}", unit="GPU-weighted", weights=_padded(weight, program))
        for priority, weight in shortfall(fleet, columns)
    ]
    attempts.append((program, [*classes, *overflow, *late]))
    return attempts


def _late_goals(columns: Columns, program: Program) -> list[_Goal]:
    goals = []
    if columns.latency.any():
        goals.append(_Goal(name="latency", unit="relative", weights=_padded(columns.latency, program)))
    goals.append(_Goal(name="money", unit="USD/h", weights=_padded(columns.money, program)))
    if columns.standing.any():
        runs = np.zeros(columns.first.size - 1, dtype=bool)
        runs[columns.intent[columns.standing]] = True
        touched = runs[columns.intent] & ~columns.standing
        goals.append(_Goal(name="starts", unit="replicas", weights=_padded(columns.starts + 0.5 * touched, program)))
    return goals


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    values: Floats
    stages: tuple[Stage, ...]
    ending: Ending
    relaxation: Answer | None


def _lexicographic(
    program: Program, goals: Sequence[_Goal], stand_ins: Sequence[Fallback], relaxation: Answer, asking: Asking
) -> _Found | None:
    """Run the stages; None where the first one finds the program infeasible and nothing stands in."""
    best = _choose(stand_ins, goals, asking, solved=relaxation.outcome == "proven")
    point = best.values if best else None
    ending: Ending = best.how if best else "greedy"
    stages: list[Stage] = []
    money = next(goal for goal in goals if goal.name == "money")
    for goal in goals:
        if point is not None and goal is not money and float(goal.weights @ point) <= ZERO:
            stages.append(Stage(name=goal.name, value=0.0, unit=goal.unit, bound=0.0))
            program = _settle(program, goal, 0.0, asking)
            continue
        share = SHARES.get(goal.name, 0.5)
        answer = asking.ask(program, goal.weights, share=share, start=point)
        if goal is money and asking.rules.second_opinion:
            asking.compare(program, goal.weights, answer)
        if answer.values is None and point is None:
            return None
        if answer.values is not None and (point is None or goal.weights @ answer.values <= goal.weights @ point + ZERO):
            point = answer.values
            if goal is money or ending not in ("proven", "within_gap"):
                ending = _ending(answer)
        elif goal is money and best is not None and point is best.values:
            ending = best.how
        elif goal is money:
            ending = "time_limit"
        assert point is not None  # noqa: S101 - either the answer or a stand-in
        value = float(goal.weights @ point)
        known = [a.bound for a in (answer, relaxation) if np.isfinite(a.bound) and (a is answer or goal is money)]
        stages.append(
            Stage(name=goal.name, value=value, unit=goal.unit, bound=min(max(known), value) if known else None)
        )
        program = _settle(program, goal, value, asking)
    assert point is not None  # noqa: S101 - there is always the money goal
    return _Found(
        values=point,
        stages=tuple(stages),
        ending=ending,
        relaxation=_final_prices(program, money, relaxation, stages, asking),
    )


def _ending(answer: Answer) -> Ending:
    if answer.outcome != "proven":
        return "time_limit"
    return "proven" if answer.gap <= PROVEN else "within_gap"


def _settle(program: Program, goal: _Goal, value: float, asking: Asking) -> Program:
    """Hold a stage's value for the stages after it."""
    if value <= ZERO:
        return program.with_upper(np.where(goal.weights > 0, 0.0, program.upper))
    slack = asking.rules.churn * value if goal.name == "money" else max(1e-6, 1e-6 * value)
    return program.with_row(at_most("stage", goal.name, value + slack, goal.weights))


def _choose(stand_ins: Sequence[Fallback], goals: Sequence[_Goal], asking: Asking, *, solved: bool) -> Fallback | None:
    """The stand-in to start from: best in service; then, with a working solver, in money, else the least change."""
    if not stand_ins:
        return None
    service = [goal for goal in goals if goal.name.startswith("shortfall")]
    rest = [goal for goal in goals if not goal.name.startswith("shortfall")]
    calm = asking.failed or not solved

    def key(fallback: Fallback) -> tuple[float, ...]:
        served = [round(float(goal.weights @ fallback.values), 6) for goal in service]
        cost = [float(goal.weights @ fallback.values) for goal in rest]
        return (*served, float(calm and fallback.how != "kept_last"), *cost)

    return min(stand_ins, key=key)


def _stand_ins(fleet: Fleet, columns: Columns, program: Program, relaxation: Answer) -> list[Fallback]:
    """Feasible points of the narrow program itself, found without integer programming."""
    priority = np.array([float(intent.priority) for intent in fleet.intents])
    prices = np.zeros(len(columns.rows))
    found: list[Fallback | None] = [kept_last(columns, program, priority)]
    if relaxation.values is not None and relaxation.reduced is not None:
        prices = class_prices(columns, program, relaxation)
        found.append(rounded(columns, program, priority, relaxation.values, relaxation.reduced))
    found.append(greedy(columns, program, priority, prices))
    return [fallback for fallback in found if fallback is not None]


def class_prices(columns: Columns, program: Program, relaxation: Answer) -> Floats:
    """Shadow price of each class row: minus the dual of its capacity row, never below zero."""
    prices = np.zeros(len(columns.rows))
    if relaxation.duals is None:
        return prices
    capacity = [index for index, row in enumerate(program.rows) if row.kind == "capacity"]
    prices[:] = np.maximum(0.0, -relaxation.duals[capacity])
    return prices


def _final_prices(
    program: Program, money: _Goal, relaxation: Answer, stages: Sequence[Stage], asking: Asking
) -> Answer | None:
    """The relaxation that prices belong to: the first one, or where earlier stages bound, one more."""
    if all(stage.value <= ZERO for stage in stages if stage.name not in LAST):
        return relaxation
    rows = tuple(row for row in program.rows if not (row.kind == "stage" and row.name == "money"))
    bare = Program(
        columns=program.columns, upper=program.upper, integer=program.integer, rows=rows, overflow=program.overflow
    )
    again = asking.ask(bare, money.weights, share=0.5, relax=True)
    return again if again.duals is not None else relaxation


def _outcome(columns: Columns, program: Program, found: _Found, asking: Asking) -> Outcome:
    money = float(columns.money @ found.values[: columns.count])
    bounds = [stage.bound for stage in found.stages if stage.name == "money"]
    bound = bounds[0] if bounds else None
    gap = 1.0 if bound is None else 0.0 if money <= ZERO else max(0.0, (money - bound) / money)
    prices = np.zeros(len(columns.rows))
    if found.relaxation is not None and found.relaxation.duals is not None:
        prices = np.maximum(0.0, -found.relaxation.duals[: len(program.rows)][_capacity(program)])
    return Outcome(
        values=found.values,
        stages=found.stages,
        ending="within_gap" if found.ending == "proven" and gap > PROVEN else found.ending,
        gap=gap,
        bound=bound,
        prices=prices,
        ideal=bool((columns.deficit @ found.values[: columns.count]) <= ZERO),
        notes=tuple(asking.notes),
    )


def _capacity(program: Program) -> list[int]:
    return [index for index, row in enumerate(program.rows) if row.kind == "capacity"]
