"""A solver may be slow, killed, silent or lying: the plan stays valid, or last night's."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from small_fleets import candidate, fleet, intent, pool

from planner.placement import Rules, place, validate
from planner.placement.cbc import CBC
from planner.placement.solve import Answer, highs

EXACT = Rules(gap=0.0)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def lying(question):
    """HiGHS without a point: all zeros, called a solution."""
    return Answer(outcome="proven", values=np.zeros(question.program.variables), value=0.0, bound=0.0)


def crashing(question):
    """A solver that dies."""
    del question
    return Answer(outcome="crashed", note="SolverError: killed")


def silent(question):
    """No point within the time limit."""
    return Answer(outcome="nothing", seconds=question.time_limit_s)


ONE = fleet([pool(nodes=1)], [intent("chat"), intent("code")])
TWO = {"chat": [candidate(tp=4)], "code": [candidate(of="code", tp=2), candidate(of="code", tp=1, replicas=3)]}


@pytest.mark.parametrize("solver", [lying, crashing, silent])
def test_a_failing_solver_still_ends_in_a_valid_plan(solver):
    """Zeros, a crash or silence end in a validated plan that says loudly that the solver found none."""
    placed = place(ONE, TWO, solver=solver)
    assert validate(placed, ONE, candidates=TWO) == []
    assert placed.solved.status in {"greedy", "rounded", "kept_last"}
    assert any("THE SOLVER FOUND NO PLAN" in note for note in placed.solved.notes)
    assert [one.status for one in placed.served] == ["met", "met"]


@pytest.mark.parametrize("solver", [lying, crashing])
def test_a_broken_solver_leaves_last_nights_plan(solver):
    """When the solver crashes or lies, what runs and still serves stays, though a cheaper plan exists."""
    last = place(ONE, {"chat": TWO["chat"], "code": TWO["code"][1:]})
    placed = place(ONE, TWO, incumbent=last, solver=solver)
    assert placed.solved.status == "kept_last"
    assert placed.starts == 0
    assert [one.seats for one in placed.served] != []
    assert validate(placed, ONE, candidates=TWO, incumbent=last) == []


def test_a_solver_that_fails_after_the_relaxation_is_rounded():
    """With the relaxation solved and no whole point in time, the plan is the rounded relaxation."""
    placed = place(ONE, TWO, solver=lambda question: highs(question) if question.relax else silent(question))
    assert placed.solved.status == "rounded"
    assert validate(placed, ONE, candidates=TWO) == []


def test_zero_is_not_a_solution_of_a_stopped_highs():
    """HiGHS stopped before its first point leaves zeros; the answer has no values, and the plan is none of it."""
    many = fleet([pool(nodes=40)], [intent(f"i{n}") for n in range(60)])
    random = np.random.default_rng(0)
    offers = {
        f"i{n}": [
            candidate(of=f"i{n}", tp=int(tp), replicas=int(r), cost=float(random.uniform(1, 9)))
            for tp in (1, 2, 4)
            for r in random.integers(1, 5, 3)
        ]
        for n in range(60)
    }
    placed = place(many, offers, time_limit_s=1e-3)
    assert validate(placed, many, candidates=offers) == []
    assert all(one.status == "met" for one in placed.served)


def test_killing_cbc_leaves_last_nights_plan(monkeypatch):
    """A cbc killed in the middle of its run is an error that is caught: what runs stays."""
    last = place(ONE, {"chat": TWO["chat"], "code": TWO["code"][1:]})
    popen = subprocess.Popen

    def killed(_, **how):
        child = popen(["sleep", "30"], **how)
        threading.Timer(0.05, lambda: os.kill(child.pid, signal.SIGKILL)).start()
        return child

    monkeypatch.setattr("planner.placement.cbc.subprocess.Popen", killed)
    placed = place(ONE, TWO, incumbent=last, solver="cbc")
    assert placed.solved.status == "kept_last"
    assert any("cbc died with code -9" in note for note in placed.solved.notes)
    assert placed.starts == 0


def test_a_cbc_that_overruns_is_killed(monkeypatch):
    """A child that does not stop in time is killed by the watchdog and leaves no answer."""
    popen = subprocess.Popen
    monkeypatch.setattr("planner.placement.cbc.subprocess.Popen", lambda _, **how: popen(["sleep", "30"], **how))
    solver = CBC(patience_s=0.1, timeLimit=0.1)
    with pytest.raises(Exception, match="ran past"):
        solver._run(["cbc"])


@pytest.mark.parametrize("solver", ["highs", "cbc"])
def test_both_solvers_agree(solver):
    """HiGHS and CBC find the same least cost."""
    placed = place(ONE, TWO, solver=solver, rules=EXACT)
    assert placed.cost_per_hour == 12.0
    assert placed.solved.status == "proven"


def test_names_that_differ_in_slash_and_underscore_do_not_collide():
    """Models org/m-a and org/m_a, intents a-b and a_b: solver names are numbers."""
    wishes = fleet([pool(nodes=1)], [intent("a-b"), intent("a_b"), intent("a.b")])
    offers = {name: [candidate(of=name, tp=2)] for name in ("a-b", "a_b", "a.b")}
    for solver in ("highs", "cbc"):
        placed = place(wishes, offers, solver=solver)
        assert [one.status for one in placed.served] == ["met"] * 3
