"""Time placement on synthetic fleets up to 1,000 models on 10,000 nodes, and prove the gap.

`python -m benchmarks placement [--json] [--sizes 10x20,100x200] [--load 0.85] [--seed 0] [--teams 10]`

One line per size. CPU seconds of building the columns, solving, seating and validating, search left out; the gap is
proven by the solver's bound; `valid` is what the validator says of the seats; `naive_gap` is what the replica-count
formulation (one whole number per option) reaches in the same time. `gap_to_fractional` is the cost above the least that
any plan could have, fractions of replicas and any mix of options allowed: what the bound of whole plans leaves out.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

import numpy as np

from benchmarks.synthetic import NODE, World, candidates, world
from planner.placement import Rules, place, validate
from planner.placement.bins import bin_classes
from planner.placement.columns import build
from planner.placement.legal import Ground
from planner.placement.program import Program, Row
from planner.placement.running import Running
from planner.placement.solve import Question, highs

SIZES = "10x20,100x200,1000x2000,1000x10000"


def main(as_json: bool, arguments: list[str]) -> int:  # noqa: FBT001 - the benchmarks' common form
    """Print one line per size; 1 if any placement is invalid."""
    parser = argparse.ArgumentParser(prog="benchmarks placement", description=__doc__)
    parser.add_argument("--sizes", default=SIZES, help="models x nodes, comma-separated")
    parser.add_argument("--load", type=float, default=0.85, help="share of the most that the fleet could serve")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--teams", type=int, default=0, help="teams, each with a quota per GPU type and a budget")
    parser.add_argument("--time-limit", type=float, default=120.0, help="solver seconds per size")
    chosen = parser.parse_args(arguments)
    good = True
    for size in chosen.sizes.split(","):
        models, nodes = (int(part) for part in size.split("x"))
        row = measure(models, nodes, load=chosen.load, seed=chosen.seed, teams=chosen.teams, limit=chosen.time_limit)
        good &= bool(row["valid"])
        shown = json.dumps(row) if as_json else "  ".join(f"{key} {value}" for key, value in row.items())
        print(shown, flush=True)
    return 0 if good else 1


def measure(models: int, nodes: int, *, load: float, seed: int, teams: int, limit: float) -> dict[str, object]:
    """Place one synthetic fleet and say what it took."""
    fleet = world(models, nodes, load=load, seed=seed, teams=teams)
    offers = candidates(fleet)
    ground = Ground(classes=bin_classes(fleet.fleet.cluster))
    begun = time.process_time()
    build(fleet.fleet, offers, ground=ground, now=Running(), rules=Rules(), standing={})
    build_s = time.process_time() - begun
    begun, watch = time.process_time(), time.monotonic()
    placed = place(fleet.fleet, offers, time_limit_s=limit)
    broken = validate(placed, fleet.fleet, candidates=offers)
    cpu_s, wall_s = time.process_time() - begun, time.monotonic() - watch
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    return {
        "models": models,
        "nodes": nodes,
        "load": load,
        "columns": placed.solved.columns,
        "build_s": round(build_s, 3),
        "cpu_s": round(cpu_s, 3),
        "gap": placed.solved.gap,
        "valid": not broken,
        "peak_mb": round(peak_mb),
        "naive_gap": naive_gap(fleet, seconds=wall_s),
        "status": placed.solved.status,
        "gap_to_fractional": 1.0 - fractional(fleet) / placed.cost_per_hour,
        "rows_of_teams": sum(len(team.quota) + (team.budget is not None) for team in fleet.fleet.teams),
        "unmet": sum(served.status == "unmet" for served in placed.served),
        "cost_per_hour": round(placed.cost_per_hour, 4),
    }


def naive_gap(fleet: World, *, seconds: float) -> float:
    """Gap of the usual formulation in the same time."""
    program, cost = replica_counts(fleet)
    return highs(Question(program=program, objective=cost, time_limit_s=seconds, gap=1e-6)).gap


def fractional(fleet: World) -> float:
    """Dollars per hour that no plan can undercut: the usual formulation with fractions of replicas."""
    program, cost = replica_counts(fleet)
    return highs(Question(program=program, objective=cost, relax=True)).value


def replica_counts(fleet: World) -> tuple[Program, np.ndarray]:
    """The usual formulation and its cost: replicas of each option, demand covered, GPUs counted by type."""
    flat = [(m, option) for m, mine in enumerate(fleet.options) for option in mine]
    of, kind = np.array([m for m, _ in flat]), np.array([option.kind for _, option in flat])
    goodput = np.array([option.goodput for _, option in flat])
    gpus = np.array([float(option.configuration.gpus) for _, option in flat])
    rows = [
        _at_most(f"serve {m}", -float(rate), np.flatnonzero(of == m), -goodput) for m, rate in enumerate(fleet.demand)
    ]
    rows += [
        _at_most(pool.name, float(NODE * pool.nodes), np.flatnonzero(kind == at), gpus)
        for at, pool in enumerate(fleet.fleet.cluster.pools)
    ]
    upper = np.ceil(fleet.demand[of] / goodput)
    whole = np.ones(len(flat), dtype=bool)
    program = Program(columns=len(flat), upper=upper, integer=whole, rows=tuple(rows))
    return program, np.array([option.cost for _, option in flat])


def _at_most(name: str, high: float, index: np.ndarray, weights: np.ndarray) -> Row:
    return Row(kind="capacity", name=name, low=-np.inf, high=high, index=index, coefficient=weights[index])
