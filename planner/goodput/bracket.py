"""The bracket: from the closed form's guess to the highest rate at which simulations keep an SLO."""

from __future__ import annotations

import math
from collections.abc import Callable

from planner.intents import SLO
from planner.queueing.queue import Queue, residents_in
from planner.simulate.simulation import Simulation

#: First step of the bracket around the closed form, and halvings of the bracket found.
BRACKET, HALVINGS = 0.06, 3
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
