"""`size`: how many nodes of each pool to prepare: the cheapest fleet that serves every intent whole.

Notation    as in `program`; y_b nodes of pool b, at most what may be asked for; P_b dollars per hour of one node
Minimise    sum_b P_b y_b  +  sum_p e_p u_p            (e: energy of owned hardware, paid for what runs)
Rows  (1)   pick       sum_p u_p = 1                                      every i; only columns that serve most
      (2)   capacity   sum_p GPUs_pbs u_p  <=  floor(node_b / s) s y_b    every b and slot size s
      (3,4) quotas and budgets as they are

A whole node is paid for, used or not: that is what rent and purchase mean. The counts are then placed as any fleet is:
seats, survivors and spread are checked by the validator. Counts for which there are no seats are cut off, with all that
are nowhere larger, and the next cheapest are tried; the bound is the last program's, so it stays a bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from planner.placement.bins import BinClass, bin_classes
from planner.placement.columns import LATENCY_GOALS, Columns, build
from planner.placement.decide import place
from planner.placement.legal import Ground
from planner.placement.placed import Placed
from planner.placement.program import Floats, Program, Row, at_most, program
from planner.placement.rules import Rules
from planner.placement.running import Running
from planner.placement.solve import SOLVERS, Answer, Solver
from planner.placement.spelling import check, gpu_names
from planner.placement.stages import Asking, shortfall

if TYPE_CHECKING:
    from catalog.cluster import NodePool
    from catalog.gpus import GPU
    from planner.intents import Fleet
    from planner.strategies import Candidate

#: How many counts without seats are cut off before the last ones stand as they are.
CUTS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """Nodes to prepare, what they cost, and how good that provably is."""

    nodes: dict[str, int]
    """By node pool, those kept as spares left out."""
    spares: dict[str, int]
    """Nodes of each pool in use on top, that nothing is planned on."""
    cost_per_hour: float
    """Dollars of all nodes, spares and energy included."""
    energy_per_hour: float
    bound: float | None
    """No fleet within the limits serves as much for less, spares apart; None where nothing is proven."""
    gap: float
    """(cost without spares - bound) / cost without spares."""
    placed: Placed
    """The intents on exactly these nodes."""
    short: tuple[str, ...]
    """Intents that no fleet within the limits serves whole."""
    notes: tuple[str, ...]


def opened(fleet: Fleet, *, limits: Mapping[str, int] | None = None, everywhere: int | None = None) -> Fleet:
    """The fleet with as many nodes as each pool may get, none of them lost or held by others."""
    limits = limits or {}

    def most(pool: NodePool) -> int:
        return limits.get(pool.name, pool.at_most or max(pool.nodes, everywhere or 0))

    return _with_nodes(fleet, {pool.name: most(pool) for pool in fleet.cluster.pools})


def size(  # noqa: PLR0913 - the inputs of the whole problem
    fleet: Fleet,
    candidates: Mapping[str, Sequence[Candidate]],
    *,
    prices: Mapping[str, float],
    gpus: Mapping[str, GPU] | None = None,
    spare: int = 0,
    solver: str | Solver = "highs",
    rules: Rules | None = None,
) -> Sized:
    """Choose node counts for an `opened` fleet.

    `candidates` were searched on it; `prices` are dollars per GPU and hour by node pool. `spare` nodes are added to
    every pool in use. Raises BadInput as `place` does.
    """
    rules = rules or Rules()
    check(fleet, gpus)
    classes = bin_classes(fleet.cluster, gpus)
    ground = Ground(classes=classes, gpu_names=gpu_names(gpus))
    columns = build(fleet, candidates, ground=ground, now=Running(), rules=rules, standing={})
    chosen = SOLVERS[solver] if isinstance(solver, str) else solver
    asking = Asking(solver=chosen, seconds=rules.time_limit_s, rules=rules)
    market = _Market(fleet=fleet, candidates=candidates, prices=prices, columns=columns, gpus=gpus, solver=solver)
    cuts: list[dict[str, int]] = []
    while True:
        answer = _counts(market, ground, asking, cuts)
        nodes = _whole_numbers(market, answer)
        placed = place(_with_nodes(fleet, nodes), candidates, gpus=gpus, solver=solver)
        if answer.values is None or len(cuts) >= CUTS or _keeps(market, answer, placed):
            return _sized(market, nodes, answer, placed, spare=spare, notes=[*asking.notes, *_cut_off(cuts)])
        cuts.append(nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Market:
    """What is asked for and what it costs."""

    fleet: Fleet
    candidates: Mapping[str, Sequence[Candidate]]
    prices: Mapping[str, float]
    columns: Columns
    gpus: Mapping[str, GPU] | None
    solver: str | Solver

    @property
    def node_prices(self) -> dict[str, float]:
        """Dollars per hour of one node, by pool; infinite where no price is known, which then is never asked for."""
        pools = self.fleet.cluster.pools
        return {pool.name: self.prices.get(pool.name, np.inf) * pool.gpus_per_node for pool in pools}

    def energy(self, members: Sequence[Candidate]) -> float:
        """Dollars per hour of candidates beyond the price of the GPUs that they hold."""
        parts = {pool.name: pool.engines_per_gpu for pool in self.fleet.cluster.pools}
        held = sum(self.prices.get(name, 0.0) * count / parts[name] for one in members for name, count in one.gpus)
        return max(0.0, sum(one.cost_per_hour for one in members) - held)


def _counts(market: _Market, ground: Ground, asking: Asking, cuts: Sequence[Mapping[str, int]]) -> Answer:
    """The cheapest counts, every intent at its best column; where limits forbid that, the least shortfall first."""
    fleet, columns = market.fleet, market.columns
    problem = _open(fleet, columns, ground, program(fleet, columns, ground, movement_gpus=None), market.node_prices)
    for cut in cuts:
        problem = _beyond(problem, [cut[name] for name in market.node_prices])
    energy = np.array([market.energy(columns.members(column)) for column in range(columns.count)])
    nodes = [price if np.isfinite(price) else 0.0 for price in market.node_prices.values()]
    money = np.concatenate((energy, nodes, np.zeros(problem.variables - energy.size - len(nodes))))
    ideal = problem.upper.copy()
    ideal[: columns.count][columns.deficit > 0.0] = 0.0
    answer = asking.ask(problem.with_upper(ideal), money, share=0.6)
    if answer.values is not None or answer.outcome != "infeasible":
        return answer
    for priority, weights in shortfall(fleet, columns):
        padded = np.concatenate((weights, np.zeros(problem.variables - weights.size)))
        least = asking.ask(problem, padded, share=0.4)
        if least.values is not None:
            row = at_most("stage", f"priority {priority}", least.value + 1e-6, padded)
            problem = problem.with_row(row)
    return asking.ask(problem, money, share=0.9)


def _open(fleet: Fleet, columns: Columns, ground: Ground, closed: Program, node_prices: Mapping[str, float]) -> Program:
    """The program with a whole number of nodes per pool in the place of its capacities."""
    pools = fleet.cluster.pools
    number = {pool.name: columns.count + at for at, pool in enumerate(pools)}
    rows = [row for row in closed.rows if row.kind != "capacity"]
    for at, row in enumerate(columns.rows):
        room = _one_node(ground.classes[row.pool]).capacity(row.size)
        used = np.flatnonzero(columns.load[:, at])
        index = np.append(used, number[row.pool])
        weights = np.append(columns.load[used, at], -float(room))
        name = f"{row.pool}/{row.size}"
        rows.append(Row(kind="capacity", name=name, low=-np.inf, high=0.0, index=index, coefficient=weights))
    most: Floats = np.array([pool.nodes if np.isfinite(node_prices[pool.name]) else 0 for pool in pools], dtype=float)
    return Program(
        columns=columns.count,
        upper=np.concatenate((closed.upper, most)),
        integer=np.concatenate((closed.integer, np.ones(most.size, dtype=bool))),
        rows=tuple(rows),
    )


def _beyond(problem: Program, nodes: Sequence[int]) -> Program:
    """The program with more nodes of at least one pool than `nodes`, where no seats were found; fewer would not do.

    y_b >= (nodes_b + 1) z_b for a switch z_b per pool, and one switch at least is on.
    """
    first, rows = problem.variables, list(problem.rows)
    for at, count in enumerate(nodes):
        index, weights = np.array([problem.columns + at, first + at]), np.array([-1.0, count + 1.0])
        rows.append(Row(kind="cut", name=str(at), low=-np.inf, high=0.0, index=index, coefficient=weights))
    index, weights = np.arange(first, first + len(nodes)), -np.ones(len(nodes))
    rows.append(Row(kind="cut", name="one", low=-np.inf, high=-1.0, index=index, coefficient=weights))
    switches = np.ones(len(nodes))
    return Program(
        columns=problem.columns,
        upper=np.concatenate((problem.upper, switches)),
        integer=np.concatenate((problem.integer, switches.astype(bool))),
        rows=tuple(rows),
    )


def _cut_off(cuts: Sequence[Mapping[str, int]]) -> list[str]:
    """What was tried first: on it the proof rests that nothing cheaper would do."""
    if not cuts:
        return []
    told = ", ".join(f"{count} of {name}" for name, count in cuts[0].items() if count)
    return [f"{len(cuts)} cheaper counts have the GPUs and no seats that survive and fit, such as {told}"]


def _one_node(bins: BinClass) -> BinClass:
    return replace(bins, free=bins.free[:1])


def _whole_numbers(market: _Market, answer: Answer) -> dict[str, int]:
    """Nodes by pool; as many as may be had where no solver answered."""
    pools = market.fleet.cluster.pools
    if answer.values is None:
        return {pool.name: pool.nodes for pool in pools}
    counts = answer.values[market.columns.count : market.columns.count + len(pools)]
    return {pool.name: round(float(count)) for pool, count in zip(pools, counts, strict=True)}


def _keeps(market: _Market, answer: Answer, placed: Placed) -> bool:
    """Whether every intent is served as much as the counts promised."""
    columns = market.columns
    assert answer.values is not None  # noqa: S101 - the caller has looked
    for i, name in enumerate(columns.names):
        mine = columns.of(i)
        promised = float(columns.share[mine] @ answer.values[mine])
        if placed[name].share < promised - 1e-6:
            return False
    return True


def _sized(  # noqa: PLR0913 - what was found, and what to say of it
    market: _Market, nodes: dict[str, int], answer: Answer, placed: Placed, *, spare: int, notes: Sequence[str]
) -> Sized:
    said = list(notes)
    if answer.values is None:
        said.append(f"the solver found no counts ({answer.outcome}): every pool at its most, unproven")
    fast = [intent.name for intent in market.fleet.intents if intent.goal in LATENCY_GOALS]
    if fast:
        said.append(f"at least cost: {', '.join(fast)} keep their limits, and might be faster on more or other nodes")
    rent = sum(market.node_prices[name] * count for name, count in nodes.items() if count)
    energy = sum(market.energy(served.candidates) for served in placed.served)
    spares = {name: spare for name, count in nodes.items() if count and spare}
    held = sum(market.node_prices[name] * count for name, count in spares.items())
    proven = answer.values is not None and np.isfinite(answer.bound)
    bound = float(answer.bound) if proven else None
    total = rent + energy
    return Sized(
        nodes=nodes,
        spares=spares,
        cost_per_hour=total + held,
        energy_per_hour=energy,
        bound=bound,
        gap=1.0 if bound is None else 0.0 if total <= 0 else max(0.0, (total - bound) / total),
        placed=placed,
        short=tuple(served.intent for served in placed.served if served.share < 1.0 - 1e-9),
        notes=tuple(dict.fromkeys(note for note in said if note)),
    )


def _with_nodes(fleet: Fleet, nodes: Mapping[str, int]) -> Fleet:
    """The fleet with these node counts, all of them whole and free."""
    pools = tuple(
        pool.model_copy(update={"nodes": nodes[pool.name], "lost": 0, "reserved_gpus": 0, "at_most": None})
        for pool in fleet.cluster.pools
    )
    return fleet.model_copy(update={"cluster": fleet.cluster.model_copy(update={"pools": pools})})
