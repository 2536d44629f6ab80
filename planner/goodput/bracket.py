"""The bracket: from the closed form's guess to the highest rate at which simulations keep an SLO."""

from __future__ import annotations

from collections.abc import Callable

from planner.intents import SLO
from planner.queueing.queue import Queue, residents_in
from planner.simulate.simulation import Simulation

#: First step of the bracket around the closed form, and the farthest.
BRACKET, FARTHEST = 0.06, 2.0
#: A bracket so narrow that a chord through it errs by less than 1 % (0.1 % in the median, over logistic attainments),
#: and attainments so near to each other that the requests of a simulation do not tell them apart.
CLOSE, SAME = 0.031, 2e-3
#: Requests of one simulation: a P99 needs more.
SIMULATED, SIMULATED_TAIL = 3000, 10_000


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


def highest_within(
    margin: Callable[[float], float], guess: float, bound: float, *, step: float = BRACKET
) -> tuple[float, int]:
    """Highest rate with a margin >= 0: steps of at least `step` from the guess across the root, then halvings.

    The last bracket is cut by its chord: one that is narrow, or whose ends attain as good as the same. Returns (rate,
    evaluations); rate 0 where not even 0.2 % of `bound` holds. The simulator may exceed a bound that KV space sets, but
    never by half.
    """
    rate = min(max(guess, 0.02 * bound), bound)
    tried = [(rate, margin(rate))]  # rates, and their margins
    up, times = tried[0][1] >= 0, 1.0 + step
    while up == (tried[-1][1] >= 0):
        if rate >= 1.5 * bound:
            return rate, len(tried)
        rate = min(rate * times, 1.5 * bound) if up else rate / times
        if rate < 0.002 * bound:
            return 0.0, len(tried)
        tried.append((rate, margin(rate)))
        times = _further(tried, times)
    low, high = sorted(tried[-2:])
    while high[0] > (1.0 + CLOSE) * low[0] and low[1] - high[1] > SAME:
        rate = 0.5 * (low[0] + high[0])
        tried.append((rate, margin(rate)))
        low, high = (tried[-1], high) if tried[-1][1] >= 0 else (low, tried[-1])
    share = low[1] / max(low[1] - high[1], 1e-12)
    return low[0] + (high[0] - low[0]) * min(share, 1.0), len(tried)


def _further(tried: list[tuple[float, float]], times: float) -> float:
    """The next factor between rates: more than before, and beyond where the last two margins point, at most 2."""
    (before, was), (rate, now) = tried[-2:]
    least = times * (1.0 + BRACKET)
    if was == now:
        return least
    pointed = rate + (before - rate) * now / (now - was)
    ahead = pointed / rate if rate > before else rate / max(pointed, 1e-12)
    return min(max(least, 1.0 + 1.3 * (ahead - 1.0)), max(least, FARTHEST))
