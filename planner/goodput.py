"""Goodput: the highest request rate at which an SLO holds, and `estimate`, what a strategy does under a workload.

Goodput belongs to (configuration, replicas, router, arrival law): it is not additive in replicas. The closed form takes
0.1 ms; the simulator, bracketed around it with common random numbers, about 10 ms and errs by 2-4 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from catalog.errors import BadInput
from catalog.fingerprints import weakest
from planner.intents import SLO
from planner.predict import Tables, pack
from planner.queueing.engine import RULES, Engine, EngineRules
from planner.queueing.queue import (
    COARSE,
    Beside,
    Latencies,
    Queue,
    Transfer,
    capacity_of,
    goodput_in,
    latencies_in,
    level_of,
    middle_of,
    ready,
    residents_in,
    tail_in,
)  # fmt: skip
from planner.simulate.arrivals import Burst
from planner.simulate.disaggregated import rigs, simulate_pair
from planner.simulate.run import rig, simulate_rig
from planner.simulate.simulation import Simulation
from planner.strategies import Disaggregated, Estimate, Quantiles, Router, Strategy
from planner.workload import Requests

Floats = NDArray[np.float64]
Method = Literal["closed_form", "simulated"]
Shown = Literal["closed_form", "simulated", "replayed"]

#: A predictor's interval holds 90 %: its ends lie at these deviations of a lognormal law.
END = NormalDist().inv_cdf(0.95)
#: First step of the bracket around the closed form, and halvings of the bracket found.
BRACKET, HALVINGS = 0.06, 4
#: Requests of one simulation: a P99 needs more.
SIMULATED, SIMULATED_TAIL = 3000, 10_000


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
        burst: MMPP arrivals instead of `requests.arrival_cv`; the closed form then answers for the peak rate.
    """
    queue = ready((engine,), requests, replicas=(replicas,), router=router, rules=rules)
    surge = 1.0 if burst is None else burst.ratio
    bound, guess = capacity_of(queue).rate, goodput_in(queue, slo) / surge
    if method == "closed_form":
        return Goodput(rate=guess, capacity=bound, method=method, evaluations=0)
    count = n or enough(queue, slo, guess, 0.0 if burst is None else burst.high_s + burst.low_s)
    prepared = rig(engine, replicas=replicas, router=router, rules=rules)

    def margin(rate: float) -> float:
        return margin_of(simulate_rig(prepared, requests, rate=rate, n=count, seed=seed, burst=burst), slo)

    rate, evaluations = highest_within(margin, guess, bound)
    return Goodput(rate=rate, capacity=bound, method=method, evaluations=evaluations)


def enough(queue: Queue, slo: SLO | None, rate: float, cycle_s: float = 0.0) -> int:
    """Requests that a simulation needs: many times those that reside at once, 20 cycles of bursts, more for a P99."""
    servers = int(queue.pair.tokens.servers)
    resident = residents_in(queue, rate) * servers if rate > 0 else 0.0
    least = SIMULATED if slo is None or slo.attainment <= 0.95 else SIMULATED_TAIL
    # the noise of counts grows with the arrivals' squared coefficient of variation
    noisy = least * max(1.0, queue.ca2)
    return int(min(max(noisy, 400 * servers, 15 * resident, 20 * cycle_s * rate), 60_000))


def margin_of(simulation: Simulation, slo: SLO) -> float:
    """Attainment beyond what the SLO asks for."""
    marginal, joint = simulation.attained(slo)
    return (joint if slo.joint else marginal) - slo.attainment


def highest_within(margin: Callable[[float], float], guess: float, bound: float) -> tuple[float, int]:
    """Highest rate with a margin >= 0: steps of 6 % around the guess, growing, then halvings and a chord.

    Returns (rate, evaluations); rate 0 where not even 0.2 % of `bound` holds. The simulator may exceed a bound that KV
    space sets, but never by half.
    """
    rate, step = min(max(guess, 0.02 * bound), bound), 1.0 + BRACKET
    at = margin(rate)
    evaluations, up = 1, at >= 0
    low, high, at_low, at_high = (rate, math.inf, at, -1.0) if up else (0.0, rate, 1.0, at)
    while (up and low < 1.5 * bound and high == math.inf) or (not up and low == 0.0):
        rate = min(rate * step, 1.5 * bound) if up else rate / step
        step *= 1.0 + BRACKET
        if rate < 0.002 * bound:
            return 0.0, evaluations
        at = margin(rate)
        evaluations += 1
        if at >= 0:
            low, at_low = rate, at
        else:
            high, at_high = rate, at
    if high == math.inf:
        return low, evaluations
    for _ in range(HALVINGS):
        if high < 1.005 * low:
            break
        rate = 0.5 * (low + high)
        at = margin(rate)
        evaluations += 1
        if at >= 0:
            low, at_low = rate, at
        else:
            high, at_high = rate, at
    return low + (high - low) * at_low / max(at_low - at_high, 1e-12) if at_low > at_high else low, evaluations


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ends:
    """A strategy under a workload, at any place in its predictors' intervals."""

    engines: tuple[Engine, ...]
    packed: tuple[Tables, ...]
    requests: Requests
    replicas: tuple[int, ...]
    router: Router
    transfer: Transfer | None
    rules: EngineRules
    surge: float
    """Busiest rate over mean rate."""

    @classmethod
    def of(cls, strategy: Strategy, engines: tuple[Engine, ...], requests: Requests, rules: EngineRules) -> Ends:
        """Check that engines and pools match."""
        if len(engines) != len(strategy.pools):
            what = f"{len(engines)} engines for the {len(strategy.pools)} pools of {strategy}"
            raise BadInput(what, mend="give one engine per pool, prefill first")
        transfer = None
        if isinstance(strategy, Disaggregated):
            each = engines[0].kv_bytes_per_token
            if each is None:
                what = f"the prefill engine of {strategy} has no kv_bytes_per_token"
                raise BadInput(what, mend="give the bytes of one token's KV over all GPUs of the engine")
            transfer = Transfer(
                bandwidth=strategy.transfer_bandwidth, latency_s=strategy.transfer_latency, kv_bytes_per_token=each
            )
        return cls(
            engines=engines, packed=tuple(pack(engine.predictor) for engine in engines), requests=requests,
            replicas=tuple(pool.replicas for pool in strategy.pools), router=strategy.router, transfer=transfer,
            rules=rules, surge=max(1.0, (requests.peak_rate or 0.0) / requests.rate),
        )  # fmt: skip

    def queue(self, deviations: float, quantiles: int = COARSE) -> Queue:
        """The closed form `deviations` from the middle of the predictors' intervals: END is the slow end.

        Towards the slow end TTFT is at least what its own interval says of the middle's; the fast end keeps to the
        steps, which is the safe side.
        """
        both = zip(self.packed, self.engines, strict=True)
        queue = ready(
            self.engines, self.requests, replicas=self.replicas, router=self.router, transfer=self.transfer,
            tables=tuple(slowed(tables, engine, deviations) for tables, engine in both), quantiles=quantiles,
            rules=self.rules,
        )  # fmt: skip
        queue, first = replace(queue, door_s=queue.door_s * slowdowns(self.engines[0], deviations)[1]), self.engines[0]
        if deviations <= 0 or first.middle is not None or first.predictor.ttft_interval is None:
            return queue
        ttft, steps = first.predictor.ttft_ends[1] ** (deviations / END), slowdowns(first, deviations)[0]
        return replace(queue, beside=Beside(queue=self.queue(0.0, quantiles), ttft=ttft, steps=steps))

    def calm(self) -> Ends:
        """The strategy whose TTFT `queue(...).beside` speaks of: of engines at their slow end the middle ones."""
        engines = middle_of(self.engines)
        return replace(self, engines=engines, packed=tuple(pack(engine.predictor) for engine in engines))


def slowdowns(engine: Engine, deviations: float) -> tuple[float, float]:
    """Multipliers of decode and prefill times `deviations` from the middle, lognormal through the interval's ends."""
    end = 1 if deviations >= 0 else 0
    share = abs(deviations) / END
    predictor = engine.predictor
    return predictor.decode_interval[end] ** share, predictor.prefill_interval[end] ** share


def slowed(tables: Tables, engine: Engine, deviations: float) -> Tables:
    """`Predictor.scaled` on packed tables."""
    if deviations == 0:
        return tables
    decode, prefill = slowdowns(engine, deviations)
    return tables._replace(
        token_s=tables.token_s * decode, sequence_s=tables.sequence_s * decode, decode_s=tables.decode_s * decode,
        prefill_s=tables.prefill_s * prefill, decode_overhead_s=tables.decode_overhead_s * decode,
        mixed_overhead_s=tables.mixed_overhead_s * prefill,
    )  # fmt: skip


def probability(found: dict[float, float], rate: float) -> float:
    """Probability that the goodput is at least `rate`, from goodputs at some deviations from the middle.

    Their logarithm is read between by straight lines; where the slow one is 0, the middle of the two is taken.
    """
    marks = sorted(found)
    for fast, slow in pairwise(marks):
        if found[fast] >= rate > found[slow]:
            if found[slow] <= 0:
                return NormalDist().cdf(0.5 * (fast + slow))
            reach = math.log(found[fast] / rate) / math.log(found[fast] / found[slow])
            return NormalDist().cdf(fast + (slow - fast) * reach)
    # outside of the interval: no more is known than its end
    return NormalDist().cdf(END) if found[marks[-1]] >= rate else NormalDist().cdf(marks[0])


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
