"""Thirty simulated nights, a failure audit, and what predictions that err do to a plan.

`python -m benchmarks nights [--json] [--nights 30] [--services 100] [--nodes 200] [--seed 0]`

Nights: demand and every predicted goodput are off by up to 5 % (uniform), anew each night. The same nights are placed
with hysteresis, and without: each night from nothing, counting as a start what was not there in the same
configuration on the same node pool the night before (whichever node). A planner without memory takes each night's
luckiest predictions and is cheaper by what it will not deliver; so costs are those of delivering what was promised,
the cost of each service times promised over true goodput (`cost_of_hysteresis_as_planned` leaves that out). Audit:
services with one spare each; every node, and every rack of four, is lost once, and a service is out when none of its
replicas is left. Truth: 40 % of the options are probed (predicted within 5 %, one standard deviation of the
logarithm), the others not (25 %); the planner sees the prediction, or its 5 % quantile, and the fleet behaves as the
truth.

Keys: nights, starts_saved (share), cost_of_hysteresis (share of the cost), short_over_10pct_point and _quantile (share
of services whose true goodput is more than 10 % below demand), out_on_single_loss (share), promised_over_true (goodput
of what was chosen, predicted quantile over truth); further ones for context.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.synthetic import World, candidates, scaled, standing, world
from planner.placement import Placed, place, validate
from planner.placement.availability import share_after_loss
from planner.placement.placed import Key
from planner.strategies import Candidate, Configuration

NOISE = 0.05
PROBED = 0.4
SIGMA = {True: 0.05, False: 0.25}
QUANTILE = 1.645  # standard normal, 5 %
RACK = 4


def main(as_json: bool, arguments: list[str]) -> int:  # noqa: FBT001 - the benchmarks' common form
    """Print one line; 1 if any night's placement is invalid."""
    parser = argparse.ArgumentParser(prog="benchmarks nights", description=__doc__)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--load", type=float, default=0.75)
    parser.add_argument("--draws", type=int, default=4, help="draws of predictions against truth")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    fleet = world(chosen.services, chosen.nodes, load=chosen.load, seed=chosen.seed)
    row: dict[str, object] = {"nights": chosen.nights, "services": chosen.services, "nodes": chosen.nodes}
    row |= churn(fleet, nights=chosen.nights, seed=chosen.seed)
    row |= truth(fleet, draws=chosen.draws, seed=chosen.seed)
    row |= audit(chosen.services, chosen.nodes, seed=chosen.seed)
    print(json.dumps(row) if as_json else "\n".join(f"{key:28}{value}" for key, value in row.items()), flush=True)
    return 0 if row["valid"] else 1


def churn(fleet: World, *, nights: int, seed: int) -> dict[str, object]:
    """Starts and cost of the same nights with and without hysteresis."""
    calm, restless = (_live(fleet, nights=nights, seed=seed, memory=memory) for memory in (True, False))
    cost = [float(np.mean([night.cost for night in lived[1:]])) for lived in (calm, restless)]
    planned = [float(np.mean([night.planned for night in lived[1:]])) for lived in (calm, restless)]
    starts = [float(np.mean([night.starts for night in lived[1:]])) for lived in (calm, restless)]
    return {
        "starts_saved": round(1 - starts[0] / max(1.0, starts[1]), 4),
        "cost_of_hysteresis": round(cost[0] / cost[1] - 1, 5),
        "cost_of_hysteresis_as_planned": round(planned[0] / planned[1] - 1, 5),
        "starts_per_night": round(starts[0], 2),
        "starts_per_night_without": round(starts[1], 2),
        "unmet_per_night": round(float(np.mean([night.unmet for night in calm])), 2),
        "valid": all(night.valid for night in (*calm, *restless)),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What one night came to."""

    starts: int
    planned: float
    """Dollars per hour."""
    cost: float
    """Dollars per hour of delivering what was promised."""
    unmet: int
    valid: bool


def _live(fleet: World, *, nights: int, seed: int, memory: bool) -> list[Night]:
    random = np.random.default_rng(seed + 1)
    real = _goodputs(fleet)
    last: Placed | None = None
    lived: list[Night] = []
    for _ in range(nights):
        demand = fleet.demand * random.uniform(1 - NOISE, 1 + NOISE, fleet.demand.size)
        seen = [scaled(mine, random.uniform(1 - NOISE, 1 + NOISE, len(mine)).tolist()) for mine in fleet.options]
        tonight = replace(fleet, options=tuple(seen))
        offers = candidates(tonight, demand)
        before = last if memory else None
        worth = standing(tonight, {one.intent: one.candidates for one in before.served}, demand) if before else None
        placed = place(fleet.fleet, offers, incumbent=before, standing=worth)
        true, promised = _served(placed, real)
        costs = np.array([one.cost_per_hour for one in placed.served])
        lived.append(
            Night(
                starts=sum((_counts(placed) - _counts(last)).values()) if last else 0,
                planned=placed.cost_per_hour,
                cost=float((costs * promised / np.maximum(true, 1e-12)).sum()),
                unmet=sum(one.status == "unmet" for one in placed.served),
                valid=not validate(placed, fleet.fleet, candidates=offers, incumbent=before),
            )
        )
        last = placed
    return lived


def _counts(placed: Placed) -> Counter[tuple[str, Key]]:
    counts: Counter[tuple[str, Key]] = Counter()
    for one in placed.served:
        for seats in one.seats:
            counts[one.intent, seats.key] += len(seats.nodes)
    return counts


def _goodputs(fleet: World) -> dict[str, dict[Configuration, float]]:
    return {
        intent.name: {option.configuration: option.goodput for option in mine}
        for intent, mine in zip(fleet.fleet.intents, fleet.options, strict=True)
    }


def truth(fleet: World, *, draws: int, seed: int) -> dict[str, object]:
    """Services short of their demand when the goodputs are not what was predicted."""
    random = np.random.default_rng(seed + 2)
    short: dict[str, list[float]] = {"point": [], "quantile": []}
    promised: dict[str, list[float]] = {"point": [], "quantile": []}
    costs: dict[str, list[float]] = {"point": [], "quantile": []}
    real = _goodputs(fleet)
    for _ in range(draws):
        sigma = [np.where(random.random(len(mine)) < PROBED, SIGMA[True], SIGMA[False]) for mine in fleet.options]
        noise = [np.exp(random.normal(0.0, s)) for s in sigma]
        for name, z in (("point", 0.0), ("quantile", QUANTILE)):
            seen = tuple(
                scaled(mine, (off * np.exp(-z * s)).tolist())
                for mine, off, s in zip(fleet.options, noise, sigma, strict=True)
            )
            placed = place(fleet.fleet, candidates(replace(fleet, options=seen)))
            served, said = _served(placed, real)
            short[name].append(float(np.mean(served < 0.9 * fleet.demand)))
            promised[name].append(float(said.sum() / served.sum()))
            costs[name].append(placed.cost_per_hour)
    return {
        "short_over_10pct_point": round(float(np.mean(short["point"])), 4),
        "short_over_10pct_quantile": round(float(np.mean(short["quantile"])), 4),
        "promised_over_true": round(float(np.mean(promised["quantile"])), 4),
        "promised_over_true_point": round(float(np.mean(promised["point"])), 4),
        "cost_of_quantile": round(float(np.mean(costs["quantile"]) / np.mean(costs["point"]) - 1), 4),
    }


def _served(
    placed: Placed, real: Mapping[str, Mapping[Configuration, float]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(true, promised) goodput of each service, requests per second."""
    true = [
        sum(real[one.intent][pool.configuration] * pool.replicas for c in one.candidates for pool in c.strategy.pools)
        for one in placed.served
    ]
    said = [sum(c.estimate.goodput_low for c in one.candidates) for one in placed.served]
    return np.array(true, dtype=float), np.array(said, dtype=float)


def audit(services: int, nodes: int, *, seed: int) -> dict[str, object]:
    """Lose every node and every rack once: the share of services that are out at some loss."""
    fleet = world(services, nodes, load=0.7, seed=seed, spares=1)
    placed = place(fleet.fleet, candidates(fleet, spares=1))
    running = [one for one in placed.served if one.candidates]

    def rack(name: str) -> str:
        pool, _, index = name.rpartition("-")
        return f"{pool}/{int(index) // RACK}"

    def out(candidates_: Sequence[Candidate], losses: dict[str, float]) -> bool:
        return bool(candidates_) and min(losses.values(), default=0.0) <= 1e-9

    node_out = [out(s.candidates, share_after_loss(s.candidates, s.seats, unit_of=str, spares=1)) for s in running]
    rack_out = [out(s.candidates, share_after_loss(s.candidates, s.seats, unit_of=rack, spares=1)) for s in running]
    whole = [min(share_after_loss(s.candidates, s.seats, unit_of=str, spares=1).values(), default=0.0) for s in running]
    return {
        "out_on_single_loss": round(float(np.mean(node_out)), 4),
        "out_on_rack_loss": round(float(np.mean(rack_out)), 4),
        "fully_served_on_single_loss": round(float(np.mean(np.array(whole) >= 1 - 1e-9)), 4),
        "audited": len(running),
    }
