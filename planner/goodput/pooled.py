"""`goodput` of a collocated pool, in closed form or simulated, under any arrival law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planner.goodput.bracket import enough, highest_within, margin_of
from planner.intents import SLO
from planner.queueing.engine import RULES, Engine, EngineRules
from planner.queueing.queue import goodput_in, ready, stable_rate
from planner.queueing.solve import STEADY, Swing
from planner.simulate.arrivals import Burst
from planner.simulate.run import rig, simulate_rig
from planner.strategies import Router
from planner.workload import Requests

Method = Literal["closed_form", "simulated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """Highest rate that meets the SLO, requests per second over all replicas, and how it was found."""

    rate: float
    capacity: float
    method: Method
    evaluations: int
    """Simulations run; 0 in closed form."""


def goodput(  # noqa: PLR0913 - keywords
    engine: Engine,
    requests: Requests,
    slo: SLO,
    *,
    replicas: int = 1,
    router: Router = "least_requests",
    method: Method = "closed_form",
    n: int | None = None,
    seed: int = 0,
    rules: EngineRules = RULES,
    burst: Burst | None = None,
) -> Goodput:
    """Goodput of a collocated pool.

    Args:
        engine: one engine of the configuration.
        requests: lengths and arrival law (or measured arrivals, replayed faster or slower).
        slo: limits and the attainment, marginal (each limit by itself) or joint as `slo.joint` says.
        replicas: of the configuration.
        router: before them.
        method: `closed_form`, or `simulated` in a bracket around it.
        n: requests per simulation; by default 3,000 a replica set, 10,000 for an attainment above 0.95.
        seed: of the traffic, the same at every rate.
        rules: of the vLLM version.
        burst: MMPP arrivals instead of `requests.arrival_cv` (see `planner.queueing.solve.swung`).
    """
    queue = ready((engine,), requests, replicas=(replicas,), router=router, rules=rules)
    swing = STEADY if burst is None else Swing(burst.low_share, burst.ratio, 1.0 / burst.low_s, 1.0 / burst.high_s)
    bound, guess = stable_rate(queue), goodput_in(queue, slo, swing)
    if method == "closed_form":
        return Goodput(rate=guess, capacity=bound, method=method, evaluations=0)
    count = n or enough(queue, slo, guess, 0.0 if burst is None else burst.high_s + burst.low_s)
    prepared = rig(engine, replicas=replicas, router=router, rules=rules)

    def margin(rate: float) -> float:
        return margin_of(simulate_rig(prepared, requests, rate=rate, n=count, seed=seed, burst=burst), slo)

    rate, evaluations = highest_within(margin, guess, bound)
    return Goodput(rate=rate, capacity=bound, method=method, evaluations=evaluations)
