"""Hand a `Program` to a solver through PuLP, and believe only what can be believed.

PuLP's `sol_status` alone says whether there is a point (1 proven within the gap, 2 found in time); values are read for
those two only, and every point is checked against the rows before it is called an answer: HiGHS without a point leaves
zeros, CBC leaves fractions, an infeasible model still returns values. One thread, names by number, rows and columns in
the program's order: the same program gives the same answer unless the time limit cut it short.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import highspy
import numpy as np
import pulp
from numpy.typing import NDArray

from planner.placement.cbc import CBC
from planner.placement.program import Program

Floats = NDArray[np.float64]
Outcome = Literal["proven", "time_limit", "infeasible", "nothing", "crashed", "lied"]
#: A solver that overruns its own limit by this factor (and a second) is stopped from outside.
PATIENCE = 1.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What a solver found. `values` is None unless the point keeps every row."""

    outcome: Outcome
    values: Floats | None = None
    value: float = float("inf")
    bound: float = float("-inf")
    duals: Floats | None = None
    """Per row, for a relaxation."""
    reduced: Floats | None = None
    """Reduced cost per variable, for a relaxation."""
    seconds: float = 0.0
    """As the solver reports it."""
    note: str = ""

    @property
    def gap(self) -> float:
        """(value - bound) / value, 0 where both are 0, 1 where nothing is proven."""
        if self.values is None or not np.isfinite(self.bound):
            return 1.0
        return 0.0 if abs(self.value) < 1e-9 else max(0.0, (self.value - self.bound) / abs(self.value))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """One stage for a solver: minimise `objective` over the program."""

    program: Program
    objective: Floats
    relax: bool = False
    start: Floats | None = None
    time_limit_s: float = 60.0
    gap: float = 1e-3


class Solver(Protocol):
    """What answers a question: `highs` and `cbc` below, or a double in a test."""

    def __call__(self, question: Question) -> Answer:
        """Answer, and never raise."""
        ...


def highs(question: Question) -> Answer:
    """Solve with HiGHS."""
    return checked(_through_pulp(question, _Highs(question)), question)


def cbc(question: Question) -> Answer:
    """Solve with CBC in a child process that is killed when it overruns."""
    limit = max(1.0, question.time_limit_s)
    solver = CBC(
        mip=not question.relax, timeLimit=limit, gapRel=question.gap, threads=1, patience_s=PATIENCE * limit + 1
    )
    return checked(_through_pulp(question, solver), question)


SOLVERS: dict[str, Solver] = {"highs": highs, "cbc": cbc}


def checked(answer: Answer, question: Question) -> Answer:
    """Call an answer whose point breaks a row a lie, whoever gave it."""
    if answer.values is None:
        return answer
    program = question.program
    if question.relax:
        program = program if not program.integer.any() else _relaxed(program)
    broken = program.breaks(answer.values, 1e-5)
    if broken:
        return Answer(outcome="lied", seconds=answer.seconds, note=f"the solver's point was refused: {broken}")
    return answer


def _relaxed(program: Program) -> Program:
    return Program(
        columns=program.columns,
        upper=program.upper,
        integer=np.zeros_like(program.integer),
        rows=program.rows,
        overflow=program.overflow,
    )


def _through_pulp(question: Question, solver: Any) -> Answer:  # noqa: ANN401 - pulp is untyped
    program = question.program
    active = np.flatnonzero(program.upper > 0)
    problem, variables, rows = _problem(question, active)
    solver.rows = rows
    failed = _guarded(lambda: problem.solve(solver), solver, PATIENCE * question.time_limit_s + 1)
    seconds = float(getattr(solver, "seconds", 0.0))
    if failed:
        return Answer(outcome="crashed", note=failed, seconds=seconds)
    if problem.sol_status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
        infeasible = problem.sol_status == pulp.LpSolutionInfeasible
        return Answer(outcome="infeasible" if infeasible else "nothing", seconds=seconds)
    values = np.zeros(program.variables)
    values[active] = [variable.varValue if variable.varValue is not None else np.nan for variable in variables]
    duals = reduced = None
    if question.relax:
        duals = np.array([constraint.pi or 0.0 for constraint in rows], dtype=float)
        reduced = np.zeros(program.variables)
        reduced[active] = [variable.dj or 0.0 for variable in variables]
    else:
        values[program.integer] = np.round(values[program.integer])
    proven = problem.sol_status == pulp.LpSolutionOptimal
    value = float(question.objective @ np.nan_to_num(values))
    bound = getattr(solver, "bound", None)
    if bound is None:  # CBC does not say: within its ratio where it claims to be done
        bound = value - question.gap * abs(value) if proven else float("-inf")
    return Answer(
        outcome="proven" if proven else "time_limit",
        values=values,
        value=value,
        bound=min(float(bound), value),
        duals=duals,
        reduced=reduced,
        seconds=seconds,
    )


def _problem(
    question: Question, active: NDArray[np.int64]
) -> tuple[pulp.LpProblem, list[pulp.LpVariable], list[pulp.LpConstraint]]:
    """Build the PuLP problem over the variables that may be above zero; names are zero-padded numbers, so sorted."""
    program = question.program
    integer, upper = program.integer[active].tolist(), program.upper[active].tolist()
    start = None if question.start is None else question.start[active].tolist()
    problem = pulp.LpProblem("place", pulp.LpMinimize)
    make = getattr(problem, "add_variable", pulp.LpVariable)  # the first since PuLP 3.3.2, the second deprecated then
    variables = [
        make(f"v{j:08d}", 0, None if high == np.inf else high, "Integer" if whole else "Continuous")
        for j, (whole, high) in enumerate(zip(integer, upper, strict=True))
    ]
    if start is not None:
        for variable, value in zip(variables, start, strict=True):
            variable.varValue = value
    costs = question.objective[active].tolist()
    problem.setObjective(pulp.LpAffineExpression(list(zip(variables, costs, strict=True))))
    position = np.full(program.variables, -1, dtype=np.int64)
    position[active] = np.arange(active.size)
    rows = []
    for number, row in enumerate(program.rows):
        where = position[row.index]
        some = where >= 0
        pairs = zip(where[some].tolist(), row.coefficient[some].tolist(), strict=True)
        expression = pulp.LpAffineExpression([(variables[j], weight) for j, weight in pairs])
        sense = pulp.LpConstraintEQ if row.low == row.high else pulp.LpConstraintLE
        rows.append(pulp.LpConstraint(expression, sense, name=f"r{number:08d}", rhs=row.high))
        problem.addConstraint(rows[-1])
    return problem, variables, rows


def _guarded(run: Callable[[], object], solver: Any, patience_s: float) -> str:  # noqa: ANN401 - pulp is untyped
    """Run in a thread of its own; a solver that overruns is cancelled, one that raises is reported, never believed."""
    said: list[str] = []

    def work() -> None:
        try:
            run()
        except Exception as error:  # noqa: BLE001 - whatever a solver throws, the night goes on
            said.append(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(patience_s)
    if thread.is_alive():
        solver.cancel()
        thread.join(10.0)
    if thread.is_alive():
        said.append("the solver did not stop when told to")
    return said[0] if said else ""


class _Highs(pulp.HiGHS):  # type: ignore[misc]  # pulp is untyped
    """PuLP's HiGHS with one hand-over by arrays, a start point, and the bound kept."""

    def __init__(self, question: Question) -> None:
        limit = max(0.1, question.time_limit_s)
        super().__init__(mip=not question.relax, msg=False, gapRel=question.gap, threads=1, timeLimit=limit)
        self.start = question.start
        self.rows: list[pulp.LpConstraint] = []
        self.model: highspy.Highs | None = None
        self.bound: float | None = None
        self.seconds = 0.0

    def cancel(self) -> None:
        """Tell a running solve to stop; it keeps the best point found so far."""
        if self.model is not None:
            self.model.cancelSolve()  # type: ignore[no-untyped-call]

    def buildSolverModel(self, lp: pulp.LpProblem) -> None:  # noqa: N802 - PuLP's name
        """Pass the whole model at once: rows by compressed sparse arrays."""
        variables = lp.variables()
        for index, variable in enumerate(variables):
            variable.index = index
        constraints = self.rows
        starts, indices, weights = np.zeros(len(constraints) + 1, dtype=np.int32), [], []
        low, high = np.empty(len(constraints)), np.empty(len(constraints))
        for number, constraint in enumerate(constraints):
            constraint.index = number
            indices += [variable.index for variable in constraint]
            weights += constraint.values()
            starts[number + 1] = len(indices)
            high[number] = -constraint.constant
            low[number] = high[number] if constraint.sense == pulp.LpConstraintEQ else -highspy.kHighsInf
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = len(variables), len(constraints)
        model.col_cost_ = np.array([lp.objective.get(variable, 0.0) for variable in variables], dtype=float)
        model.col_lower_ = np.zeros(len(variables))
        model.col_upper_ = np.array([_infinite(variable.upBound) for variable in variables], dtype=float)
        model.row_lower_, model.row_upper_ = low, high
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = starts
        model.a_matrix_.index_ = np.array(indices, dtype=np.int32)
        model.a_matrix_.value_ = np.array(weights, dtype=float)
        if self.mip:
            kinds = {"Integer": highspy.HighsVarType.kInteger, "Continuous": highspy.HighsVarType.kContinuous}
            model.integrality_ = [kinds[variable.cat] for variable in variables]
        lp.solverModel.passModel(model)

    def callSolver(self, lp: pulp.LpProblem) -> None:  # noqa: N802 - PuLP's name
        """Run, from the start point if there is one."""
        model = self.model = lp.solverModel
        if self.mip:
            model.HandleUserInterrupt = True
            if self.start is not None:
                point = np.array([variable.varValue for variable in lp.variables()], dtype=float)
                model.setSolution(point.size, np.arange(point.size, dtype=np.int32), point)
        model.run()
        self.seconds = float(model.getRunTime())
        info = model.getInfo()
        self.bound = float(info.mip_dual_bound if self.mip else info.objective_function_value)


def _infinite(bound: float | None) -> float:
    return highspy.kHighsInf if bound is None else float(bound)
