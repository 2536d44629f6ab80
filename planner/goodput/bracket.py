"""The bracket: from the closed form's guess to the highest rate at which simulations keep an SLO."""

from __future__ import annotations

import math
from collections.abc import Callable

from planner.intents import SLO
from planner.queueing.queue import Queue, residents_in
from planner.simulate.simulation import Simulation

#: First step of the bracket around the closed form, and the farthest.
BRACKET, FARTHEST = 0.06, 2.0
#: A bracket so narrow that a chord through its log-odds errs by little (0.2 % in the median of the example fleet's 330,
#: 1 % in nine of ten), and log-odds so near to each other that the requests of a simulation do not tell them apart.
CLOSE, SAME = 0.065, 0.1
#: Requests of one simulation: a P99 needs more.
SIMULATED, SIMULATED_TAIL = 3000, 10_000
#: Shares nearer than this to 0 or 1 count as this near; an SLO asks for 0.999 at most.
SURE = 1e-4


def enough(queue: Queue, slo: SLO | None, rate: float, cycle_s: float = 0.0) -> int:
    """Requests that a simulation needs: many times those that reside at once, 20 cycles of bursts, more for a P99."""
    servers = int(queue.pair.tokens.servers)
    resident = residents_in(queue, rate) * servers if rate > 0 else 0.0
    least = SIMULATED if slo is None or slo.attainment <= 0.95 else SIMULATED_TAIL
    # the noise of counts grows with the arrivals' squared coefficient of variation
    noisy = least * max(1.0, queue.ca2)
    return int(min(max(noisy, 400 * servers, 15 * resident, 20 * cycle_s * rate), 60_000))


def margin_of(simulation: Simulation, slo: SLO) -> float:
    """Log-odds of the attainment beyond those that the SLO asks for: of all measures the nearest to a straight line."""
    marginal, joint = simulation.attained(slo)
    return _log_odds(joint if slo.joint else marginal) - _log_odds(slo.attainment)


def _log_odds(share: float) -> float:
    within = min(max(share, SURE), 1.0 - SURE)
    return math.log(within / (1.0 - within))


def highest_within(
    margin: Callable[[float], float], guess: float, bound: float, *, step: float = BRACKET, rate: float | None = None
) -> tuple[float, int]:
    """Highest rate with a margin >= 0: steps of at least `step` from the guess across the root, then cuts near it.

    The last bracket is cut by its chord: one that is narrow, or whose ends attain as good as the same. Where a `rate`
    is given, what is returned covers it exactly if its own margin is >= 0, however uneven margins are: nothing on the
    other side of it is looked at. Returns (rate, evaluations); rate 0 where not even 0.2 % of `bound` holds. The
    simulator may exceed a bound that KV space sets, but never by half.
    """
    floor, ceiling = 0.0, 1.5 * bound
    start = min(max(guess, 0.02 * bound), bound)
    if rate is not None and rate < ceiling:
        floor, ceiling = (rate, ceiling) if margin(rate) >= 0 else (0.0, rate)
        start = min(max(start, floor), ceiling)
    tried = [(start, margin(start))]  # rates, and their margins
    up, times = tried[0][1] >= 0, 1.0 + step
    while up == (tried[-1][1] >= 0):
        last = tried[-1][0]
        if last >= 1.5 * bound:
            return last, len(tried)
        further = min(last * times, ceiling) if up else max(last / times, floor)
        if further < 0.002 * bound:
            return 0.0, len(tried)
        tried.append((further, margin(further)))
        times = _further(tried, times)
    low, high = sorted(tried[-2:])
    while high[0] > (1.0 + CLOSE) * low[0] and low[1] - high[1] > SAME:
        between = _between(low, high)
        tried.append((between, margin(between)))
        low, high = (tried[-1], high) if tried[-1][1] >= 0 else (low, tried[-1])
    return _crossed(low, high), len(tried)


def _crossed(low: tuple[float, float], high: tuple[float, float]) -> float:
    """Where the chord through two rates and their margins crosses zero."""
    return low[0] + (high[0] - low[0]) * min(low[1] / max(low[1] - high[1], 1e-12), 1.0)


def _between(low: tuple[float, float], high: tuple[float, float]) -> float:
    """The next rate in a wide bracket: beside the chord's root, towards the farther end, but never past its middle."""
    root, middle = _crossed(low, high), 0.5 * (low[0] + high[0])
    if root < middle:
        return min(root * (1.0 + 0.45 * CLOSE), middle)
    return max(root * (1.0 - 0.45 * CLOSE), middle)


def _further(tried: list[tuple[float, float]], times: float) -> float:
    """The next factor between rates: more than before, and beyond where the last two margins point, at most 2."""
    (before, was), (rate, now) = tried[-2:]
    least = times * (1.0 + BRACKET)
    if was == now:
        return least
    pointed = rate + (before - rate) * now / (now - was)
    ahead = pointed / rate if rate > before else rate / max(pointed, 1e-12)
    return min(max(least, 1.0 + 1.3 * (ahead - 1.0)), max(least, FARTHEST))
