"""A solver may be slow, killed, silent or lying: the plan stays valid, or last night's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from small_fleets import candidate, fleet, intent, pool

from benchmarks.synthetic import candidates as offers_of
from benchmarks.synthetic import world
from planner.placement import Rules, place, validate
from planner.placement.cbc import CBC
from planner.placement.solve import Answer, highs
from planner.plan import from_json

ROOT = Path(__file__).parent.parent

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


@pytest.fixture(scope="module")
def large():
    """A fleet on which cbc works for a second or more, what it is offered, last night's placement and tonight's offer.

    Tonight half the services need 1 % more: what runs covers that, though the best plan is another.
    """
    night = world(150, 300, load=0.6, seed=3)
    last = place(night.fleet, offers_of(night))
    return night.fleet, offers_of(night, night.demand * np.where(np.arange(150) % 2, 1.0, 1.01)), last


class Children:
    """Every child that is started, met by a blow while it runs."""

    def __init__(self, blow, after):
        self.popen, self.blow, self.after = subprocess.Popen, blow, after
        self.running: list[bool] = []

    def __call__(self, command, **how):
        """Start the child, and a timer that strikes it."""
        child = self.popen(command, **how)

        def strike():
            self.running.append(child.poll() is None)
            if self.running[-1]:
                os.kill(child.pid, self.blow)

        threading.Timer(self.after, strike).start()
        return child


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_the_real_cbc_killed_or_hung_in_mid_run_leaves_last_nights_plan(large, monkeypatch, blow):
    """The cbc of this installation, at work on the night's own problem, is shot or stopped: what runs stays."""
    fleet_, offers, last = large
    children = Children(blow, after=0.02)
    monkeypatch.setattr("planner.placement.cbc.subprocess.Popen", children)
    monkeypatch.setattr("planner.placement.solve.PATIENCE", 0.0)
    placed = place(fleet_, offers, incumbent=last, solver="cbc", time_limit_s=1.0)
    assert any(children.running)
    assert placed.solved.status == "kept_last"
    assert any("cbc died with code -9" in note or "cbc ran past" in note for note in placed.solved.notes)
    assert any(note.startswith("THE SOLVER FOUND NO PLAN: last night's stays") for note in placed.solved.notes)
    assert placed.starts == 0
    assert [one.seats for one in placed.served] == [tuple(_kept(seats) for seats in one.seats) for one in last.served]
    assert validate(placed, fleet_, candidates=offers, incumbent=last) == []


def _kept(seats):
    return type(seats)(role=seats.role, pool=seats.pool, nodes=seats.nodes, kept=len(seats.nodes))


def test_a_highs_that_is_cut_short_leaves_a_valid_plan_that_says_so(large):
    """HiGHS at work is cancelled from another thread: its best point, or what was found without it, and a gap."""
    fleet_, offers, last = large
    placed = place(fleet_, offers, incumbent=last, time_limit_s=0.05)
    assert validate(placed, fleet_, candidates=offers, incumbent=last) == []
    assert placed.solved.status in {"time_limit", "within_gap", "proven", "rounded", "greedy", "kept_last"}
    if placed.solved.status not in {"proven", "within_gap"}:
        assert any("THE SOLVER FOUND NO PLAN" in note or "time limit" in note for note in placed.solved.notes)


def half_lies(question):
    """A real answer with one intent's column taken out: zeros where a solver ran out of time."""
    answer = highs(question)
    if answer.values is None:
        return answer
    values = answer.values.copy()
    values[np.flatnonzero(values > 0.5)[:1]] = 0.0
    return Answer(outcome=answer.outcome, values=values, value=0.0, bound=0.0, duals=answer.duals)


def overfull(question):
    """Every column at once, called optimal."""
    return Answer(outcome="proven", values=np.ones(question.program.variables), value=-1.0, bound=-1.0)


def not_numbers(question):
    """Values that are no numbers."""
    return Answer(outcome="proven", values=np.full(question.program.variables, np.nan), value=0.0, bound=0.0)


def shorter(question):
    """Fewer values than variables."""
    return Answer(outcome="proven", values=np.zeros(question.program.variables - 1), value=0.0, bound=0.0)


@pytest.mark.parametrize("solver", [half_lies, overfull, not_numbers, shorter])
def test_no_lie_is_believed(solver):
    """Whatever is wrong with the values, the plan is last night's, valid, and the lie is told."""
    last = place(ONE, {"chat": TWO["chat"], "code": TWO["code"][1:]})
    placed = place(ONE, TWO, incumbent=last, solver=solver)
    assert validate(placed, ONE, candidates=TWO, incumbent=last) == []
    assert placed.solved.status == "kept_last"
    assert placed.starts == 0
    assert any("the solver's point was refused" in note for note in placed.solved.notes)


FLEET = """
cluster:
  pools:
    - {name: one, gpu: h100_sxm, gpus_per_node: 8, nodes: 1, price: 2.29 USD/GPU/h}
intents:
  - name: chat
    model: meta-llama/Llama-3.1-8B-Instruct
    workload: {rate: RATE /s, prompt: {mean: 500}, output: {mean: 100}}
"""
#: The command line, with a word on standard output when HiGHS starts on a program; then HiGHS itself goes on.
COMMAND = """
import sys
from flows.cli.main import main
from planner.placement import solve
run = solve._Highs.callSolver
def told(self, lp):
    print("HiGHS starts", flush=True)
    run(self, lp)
    {after}
solve._Highs.callSolver = told
sys.argv = ["fleetplan", "plan", "fleet.yaml"]
main()
"""


def _plan(folder, after="pass"):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", COMMAND.format(after=after)]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _published(folder):
    return {path.relative_to(folder): path.read_bytes() for path in (folder / "plans").rglob("*") if path.is_file()}


def test_a_night_killed_while_highs_runs_leaves_last_nights_plan_in_force(tmp_path):
    """SIGKILL to the process that HiGHS runs in: not a byte of what is published changes, and the next night plans."""
    (tmp_path / "fleet.yaml").write_text(FLEET.replace("RATE", "2"))
    with _plan(tmp_path) as first:
        first.communicate()
    before = _published(tmp_path)
    assert first.returncode == 0
    assert before
    (tmp_path / "fleet.yaml").write_text(FLEET.replace("RATE", "40"))
    with _plan(tmp_path, after="import time; time.sleep(60)") as second:
        assert second.stdout is not None
        assert any(b"HiGHS starts" in line for line in iter(second.stdout.readline, b""))
        time.sleep(0.02)
        second.kill()
    assert second.returncode == -signal.SIGKILL
    assert _published(tmp_path) == before
    with _plan(tmp_path) as third:
        third.communicate()
    after = _published(tmp_path)
    assert third.returncode == 0
    assert {path: after[path] for path in before} == before
    serials = [from_json(text).serial for path, text in sorted(after.items()) if path.name == "plan.json"]
    assert serials == [1, 2]


@pytest.mark.parametrize("solver", ["highs", "cbc"])
def test_both_solvers_agree(solver):
    """HiGHS and CBC find the same least cost."""
    placed = place(ONE, TWO, solver=solver, rules=EXACT)
    assert placed.cost_per_hour == 12.0
    assert placed.solved.status == "proven"


def dear(question):
    """A point that keeps every row, the dearest of all."""
    if question.relax:
        return highs(question)
    turned = highs(replace(question, objective=-question.objective))
    return replace(turned, value=float(question.objective @ turned.values), bound=0.0)


@pytest.mark.parametrize(("solver", "said"), [("highs", "CBC agrees (12.0000 USD/h)"), ("cbc", "HiGHS agrees (12.0")])
def test_a_second_opinion_agrees(solver, said):
    """On request the other solver is asked for the same cost, and the plan notes that it finds it too."""
    placed = place(ONE, TWO, solver=solver, rules=replace(EXACT, second_opinion=True))
    assert any(said in note for note in placed.solved.notes)
    assert not any("second opinion" in note for note in place(ONE, TWO, solver=solver, rules=EXACT).solved.notes)


def test_a_second_opinion_that_differs_is_said():
    """A solver whose answer is far from the best is found out by the other one."""
    wishes = fleet([pool(), pool("b", "l40s")], [intent()])
    offers = {"chat": [candidate(cost=12.0), candidate("b", gpu="l40s", cost=20.0)]}
    placed = place(wishes, offers, solver=dear, rules=replace(EXACT, second_opinion=True))
    (note,) = [note for note in placed.solved.notes if "second opinion" in note]
    assert note.startswith("second opinion: CBC does not agree with ")
    assert "(12.0000 USD/h)" in note


def test_names_that_differ_in_slash_and_underscore_do_not_collide():
    """Models org/m-a and org/m_a, intents a-b and a_b: solver names are numbers."""
    wishes = fleet([pool(nodes=1)], [intent("a-b"), intent("a_b"), intent("a.b")])
    offers = {name: [candidate(of=name, tp=2)] for name in ("a-b", "a_b", "a.b")}
    for solver in ("highs", "cbc"):
        placed = place(wishes, offers, solver=solver)
        assert [one.status for one in placed.served] == ["met"] * 3
