"""`estimate`: what a strategy does under a workload, in closed form or simulated, with the ends of its intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog.fingerprints import weakest
from planner.goodput.bracket import BRACKET, enough, highest_within, margin_of
from planner.goodput.ends import END, Ends, probability, slowdowns
from planner.goodput.pooled import Method
from planner.intents import SLO
from planner.queueing.engine import RULES, Engine, EngineRules
from planner.queueing.queue import (
    Latencies,
    Queue,
    capacity_of,
    goodput_in,
    latencies_in,
    level_of,
    stable_rate,
    tail_in,
)
from planner.simulate.disaggregated import rigs, simulate_pair
from planner.simulate.run import rig, simulate_rig
from planner.simulate.simulation import Simulation
from planner.strategies import Estimate, Quantiles, Strategy
from planner.workload import Requests

Floats = NDArray[np.float64]
Shown = Literal["closed_form", "simulated", "replayed"]
Serve = Callable[[float], Simulation]
#: First step of a bracket around a guess that was corrected by how much the closed form erred in the middle.
NEAR = 0.03


def estimate(  # noqa: PLR0913 - keywords
    strategy: Strategy,
    engines: tuple[Engine, ...],
    requests: Requests,
    slo: SLO | None,
    *,
    method: Method = "closed_form",
    seed: int = 0,
    rules: EngineRules = RULES,
    n: int | None = None,
) -> Estimate:
    """What a strategy does at the workload's rate, with the ends of the predictors' intervals.

    `engines` are those of the pools, prefill first. A diurnal or bursty workload (`peak_rate`) is judged at its peak in
    closed form, and its goodput is given as a mean rate. Where the rate is beyond capacity latencies are infinite and
    `notes` says "unstable at this load".

    Raises:
        BadInput: engines that do not match the pools, or a disaggregated pair without `kv_bytes_per_token`.
    """
    ends = Ends.of(strategy, engines, requests, rules)
    if method == "simulated":
        return _simulated(ends, requests, slo, seed=seed, n=n)
    surge = ends.surge
    middle, slow = ends.queue(0.0), ends.queue(END)
    found = {0.0: goodput_in(middle, slo) / surge, END: goodput_in(slow, slo) / surge}
    if requests.rate > found[0.0]:
        found[-END] = goodput_in(ends.queue(-END), slo) / surge
    at, high = latencies_in(middle, requests.rate * surge, slo), tail_in(slow, requests.rate * surge, slo)[:2]
    bound = capacity_of(middle)
    return _estimate(ends, at, high, found, bound.rate / surge, bound.binding, "closed_form", requests.rate)


UNSTABLE = Quantiles(mean=math.inf, p50=math.inf, p90=math.inf, p99=math.inf)


def _estimate(  # noqa: PLR0913, PLR0917 - one call site gathers them
    ends: Ends,
    at: Latencies,
    high: tuple[float, float],
    found: dict[float, float],
    bound: float,
    binding: str,
    method: Shown,
    rate: float,
) -> Estimate:
    notes = () if at.stable else (f"unstable at this load: {rate:.3g} requests/s against {bound:.3g} by {binding}",)
    return Estimate(
        ttft=at.ttft if at.stable else UNSTABLE, tpot=at.tpot if at.stable else UNSTABLE,
        e2e=at.e2e if at.stable else UNSTABLE,
        ttft_high=high[0], tpot_high=high[1],
        attainment=at.joint, goodput=found[0.0], goodput_low=found[END], slo_probability=probability(found, rate),
        utilisation=min(rate / bound, 1.0), kv_utilisation=at.kv_utilisation if at.stable else 1.0, watts_per_gpu=None,
        method=method, source=weakest(*(engine.predictor.source for engine in ends.engines)), notes=notes,
    )  # fmt: skip


def _simulated(ends: Ends, requests: Requests, slo: SLO | None, *, seed: int, n: int | None) -> Estimate:
    """`estimate` by simulation: goodputs in brackets around the closed form, latencies at the workload's rate."""
    # measured arrivals carry their own peaks
    surge = 1.0 if requests.arrival_s is not None else ends.surge
    middle, slow_end = ends.queue(0.0), ends.queue(END)
    bound, guess = capacity_of(middle), goodput_in(middle, slo)
    count = n or (len(requests.arrival_s) if requests.arrival_s is not None else enough(middle, slo, guess))
    rate = requests.rate * surge
    simulations = _Simulations(ends, requests, slo, count, seed)
    runners = {deviations: simulations.runner(deviations) for deviations in (0.0, END)}
    at = simulations.goodput(middle, runners[0.0], guess, rate=rate)
    # the closed form errs about as much at the ends as in the middle
    erred = at / guess if at > 0 and guess > 0 else 1.0
    guessed = erred * goodput_in(slow_end, slo)
    found = {0.0: at / surge, END: simulations.goodput(slow_end, runners[END], guessed, rate=rate, step=NEAR) / surge}
    if requests.rate > found[0.0]:
        fast = ends.queue(-END)
        guessed = erred * goodput_in(fast, slo)
        found[-END] = simulations.goodput(fast, simulations.runner(-END), guessed, rate=rate, step=NEAR) / surge
    seen = {}
    for deviations, queue in ((0.0, middle), (END, slow_end)):
        # where KV space binds the bound errs: what the simulator serves within the SLO is stable too
        stable = rate < max(stable_rate(queue), found[deviations] * surge)
        seen[deviations] = _seen(runners[deviations](rate), slo, stable=stable)
    slow, beside = seen[END], slow_end.beside
    high = (slow.ttft_at, slow.tpot_at) if slow.stable else (math.inf, math.inf)
    if beside is not None:
        calm = seen[0.0]
        if ends.engines[0].middle is not None:
            calm = _seen(simulations.calm()(rate), slo, stable=True)
        high = (max(high[0], beside.ttft * calm.ttft_at), high[1])
    method: Shown = "simulated" if requests.arrival_s is None else "replayed"
    return _estimate(ends, seen[0.0], high, found, bound.rate / surge, bound.binding, method, requests.rate)


class _Simulations(NamedTuple):
    """Simulations of a strategy at several places of its intervals, with equal requests."""

    ends: Ends
    requests: Requests
    slo: SLO | None
    n: int
    seed: int

    def runner(self, deviations: float) -> Serve:
        """A simulation as a function of the rate, `deviations` from the middle of the intervals; remembers each."""
        ends, requests, n, seed = self.ends, self.requests, self.n, self.seed
        engines = []
        for engine in ends.engines:
            decode, prefill = slowdowns(engine, deviations)
            engines.append(engine.paced(engine.predictor.scaled(decode=decode, prefill=prefill)))
        if ends.transfer is None:
            prepared = rig(engines[0], replicas=ends.replicas[0], router=ends.router, rules=ends.rules)
            return lru_cache(lambda rate: simulate_rig(prepared, requests, rate=rate, n=n, seed=seed))
        pair = (ends.replicas[0], ends.replicas[1])
        sides = rigs(engines[0], engines[1], replicas=pair, router=ends.router, rules=ends.rules)
        transfer = ends.transfer
        return lru_cache(lambda rate: simulate_pair(*sides, requests, transfer=transfer, rate=rate, n=n, seed=seed))

    def calm(self) -> Serve:
        """A simulation of the strategy whose TTFT the slow end is bound to (`Ends.calm`)."""
        return self._replace(ends=self.ends.calm()).runner(0.0)

    def goodput(self, queue: Queue, serve: Serve, guess: float, *, rate: float, step: float = BRACKET) -> float:
        """The highest rate at which simulations keep the SLO; it covers `rate` exactly if the simulation there does.

        Without an SLO it is the capacity, which needs no simulation.
        """
        if self.slo is None:
            return guess
        slo, bound = self.slo, stable_rate(queue)
        found = highest_within(lambda rate: margin_of(serve(rate), slo), guess, bound, step=step, rate=rate)[0]
        if queue.beside is None or slo.ttft is None or found == 0:
            return found
        calm, eased = self.calm(), queue.beside.eased(slo)
        if margin_of(calm(found), eased) >= 0:
            return found
        return min(
            found, highest_within(lambda rate: margin_of(calm(rate), eased), guess, bound, step=step, rate=rate)[0]
        )


def _seen(simulation: Simulation, slo: SLO | None, *, stable: bool) -> Latencies:
    """A simulation as the closed form reports."""
    level = level_of(slo)
    marginal, joint = (1.0, 1.0) if slo is None else simulation.attained(slo)

    def quantile(values: Floats) -> float:
        known = values[simulation.steady]
        known = known[np.isfinite(known)]
        return float(np.quantile(known, level)) if len(known) else math.nan

    return Latencies(
        stable=stable, ttft=simulation.quantiles(simulation.ttft_s), tpot=simulation.quantiles(simulation.tpot_s),
        e2e=simulation.quantiles(simulation.e2e_s), ttft_at=quantile(simulation.ttft_s),
        tpot_at=quantile(simulation.tpot_s),
        attainment=joint if slo is not None and slo.joint else marginal, joint=joint, kv_utilisation=simulation.kv_peak,
    )  # fmt: skip
