"""The bracket: from the closed form's guess to the highest rate at which simulations keep an SLO."""

from __future__ import annotations

from collections.abc import Callable

from planner.intents import SLO
from planner.queueing.queue import Queue, residents_in
from planner.simulate.simulation import Simulation

#: First step of the bracket around the closed form; and a bracket so narrow that a chord through it errs by less than
#: 1 % (0.1 % in the median, over logistic attainments), which is within the simulator's own noise.
BRACKET, CLOSE = 0.06, 0.031
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
    """Highest rate with a margin >= 0: relative steps of `step` around the guess, growing, then halvings and a chord.

    Returns (rate, evaluations); rate 0 where not even 0.2 % of `bound` holds. The simulator may exceed a bound that KV
    space sets, but never by half.
    """
    tried: list[tuple[float, float]] = []  # rates, and their margins

    def holds(rate: float) -> bool:
        tried.append((rate, margin(rate)))
        return tried[-1][1] >= 0

    rate, times = min(max(guess, 0.02 * bound), bound), 1.0 + step
    up = holds(rate)
    while up == (tried[-1][1] >= 0):
        if rate >= 1.5 * bound:
            return rate, len(tried)
        rate = min(rate * times, 1.5 * bound) if up else rate / times
        if rate < 0.002 * bound:
            return 0.0, len(tried)
        holds(rate)
        times *= 1.0 + BRACKET
    low, high = sorted(tried[-2:])
    while high[0] > (1.0 + CLOSE) * low[0]:
        middle = holds(0.5 * (low[0] + high[0]))
        low, high = (tried[-1], high) if middle else (low, tried[-1])
    share = low[1] / max(low[1] - high[1], 1e-12)
    return low[0] + (high[0] - low[0]) * min(share, 1.0), len(tried)
