"""`estimate`: what a strategy does under a workload, in closed form or simulated, with the ends of its intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from catalog.fingerprints import weakest
from planner.goodput.bracket import enough, highest_within, margin_of
from planner.goodput.ends import END, Ends, probability, slowdowns
from planner.goodput.pooled import Method
from planner.intents import SLO
from planner.queueing.engine import RULES, Engine, EngineRules
from planner.queueing.queue import Latencies, capacity_of, goodput_in, latencies_in, level_of, tail_in
from planner.simulate.disaggregated import rigs, simulate_pair
from planner.simulate.run import rig, simulate_rig
from planner.simulate.simulation import Simulation
from planner.strategies import Estimate, Quantiles, Strategy
from planner.workload import Requests

Floats = NDArray[np.float64]
Shown = Literal["closed_form", "simulated", "replayed"]


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
    at, high = latencies_in(middle, requests.rate * surge, slo), tail_in(slow, requests.rate * surge, slo)
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
    middle = ends.queue(0.0)
    bound = capacity_of(middle)
    guesses = {0.0: goodput_in(middle, slo), END: goodput_in(ends.queue(END), slo)}
    count = n or (len(requests.arrival_s) if requests.arrival_s is not None else enough(middle, slo, guesses[0.0]))
    found = {}
    for deviations, guess in guesses.items():
        found[deviations] = _simulated_goodput(ends, deviations, requests, slo, guess, count, seed) / surge
    if requests.rate > found[0.0]:
        guess = goodput_in(ends.queue(-END), slo)
        found[-END] = _simulated_goodput(ends, -END, requests, slo, guess, count, seed) / surge
    rate = requests.rate * surge
    seen = {}
    for deviations in guesses:
        # where KV space binds the bound errs: what the simulator serves within the SLO is stable too
        stable = rate < max(capacity_of(ends.queue(deviations)).rate, found[deviations] * surge)
        served = _runner(ends, deviations, requests, count, seed)(rate)
        seen[deviations] = _seen(served, slo, stable=stable)
    slow, beside = seen[END], ends.queue(END).beside
    high = (slow.ttft_at, slow.tpot_at) if slow.stable else (math.inf, math.inf)
    if beside is not None:
        calm = seen[0.0]
        if ends.engines[0].middle is not None:
            calm = _seen(_runner(ends.calm(), 0.0, requests, count, seed)(rate), slo, stable=True)
        high = (max(high[0], beside.ttft * calm.ttft_at), high[1])
    method: Shown = "simulated" if requests.arrival_s is None else "replayed"
    return _estimate(ends, seen[0.0], high, found, bound.rate / surge, bound.binding, method, requests.rate)


def _runner(ends: Ends, deviations: float, requests: Requests, n: int, seed: int) -> Callable[[float], Simulation]:
    """A simulation of the strategy as a function of the rate."""
    engines = []
    for engine in ends.engines:
        decode, prefill = slowdowns(engine, deviations)
        engines.append(engine.paced(engine.predictor.scaled(decode=decode, prefill=prefill)))
    if ends.transfer is None:
        prepared = rig(engines[0], replicas=ends.replicas[0], router=ends.router, rules=ends.rules)
        return lambda rate: simulate_rig(prepared, requests, rate=rate, n=n, seed=seed)
    pair = (ends.replicas[0], ends.replicas[1])
    sides = rigs(engines[0], engines[1], replicas=pair, router=ends.router, rules=ends.rules)
    transfer = ends.transfer
    return lambda rate: simulate_pair(*sides, requests, transfer=transfer, rate=rate, n=n, seed=seed)


def _simulated_goodput(  # noqa: PLR0913, PLR0917 - one call site gathers them
    ends: Ends,
    deviations: float,
    requests: Requests,
    slo: SLO | None,
    guess: float,
    n: int,
    seed: int,
) -> float:
    if slo is None:
        return guess  # the capacity, which the closed form knows better than a finite run
    serve, queue = _runner(ends, deviations, requests, n, seed), ends.queue(deviations)
    bound = capacity_of(queue).rate
    found = highest_within(lambda rate: margin_of(serve(rate), slo), guess, bound)[0]
    if queue.beside is None or slo.ttft is None or found == 0:
        return found
    calm, eased = _runner(ends.calm(), 0.0, requests, n, seed), queue.beside.eased(slo)
    if margin_of(calm(found), eased) >= 0:
        return found
    return min(found, highest_within(lambda rate: margin_of(calm(rate), eased), guess, bound)[0])


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
