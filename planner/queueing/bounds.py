"""The highest stable rate of one engine, by each of its limits.

Where n residents are always there, each for E[it] iterations of T(n) = D(n)/(1 - λE[s]) seconds, departures balance
arrivals: n = λE[it]·T(n), so λ = n / (E[it]·D(n) + n·E[s]). With n = max_num_seqs this is one limit, with n = the
average requests that the KV space holds another. The third: every iteration uses the whole token budget, λ = B /
(E[tokens]·T_full).
"""

from __future__ import annotations

import math

from planner.predict import kernel
from planner.queueing.pace import ALONE, HELD1, ITERATIONS, MATES, PROMPT1, Pace, column_of, load_of, mates_of, read
from planner.queueing.side import BY_BUDGET, BY_KV, BY_SEQS, CAPACITY, KV_SLOTS, SLOTS, Side


@kernel
def decode_at_size(pace: Pace, n: float) -> float:
    """D(n) for a real n."""
    size = len(pace.decode) - 1
    i = min(max(int(n), 0), size - 1)
    return float(pace.decode[i] + (pace.decode[i + 1] - pace.decode[i]) * (min(n, float(size)) - i))


@kernel
def saturated(pace: Pace, n: float) -> float:
    """Rate at which n residents are always there: n = λE[it]·D(n)/(1 - λE[s]) solved for λ, mates by iteration."""
    seqs, means = len(pace.decode) - 1.0, pace.workload
    base, row, column, rate = decode_at_size(pace, n), load_of(n, seqs), 0.0, 0.0
    for _ in range(3):
        rate = n / (means[ITERATIONS] * base + n * read(pace.moment1, row, column))
        column = column_of(mates_of(n / means[ITERATIONS]))
    return rate


@kernel
def limit(side: Side) -> None:
    """Fill `bound`: the highest stable rate by max_num_seqs, by KV space, by token budget, and the least of them."""
    seqs, means = len(side.pace.decode) - 1.0, side.pace.workload
    held = means[HELD1] / means[ITERATIONS]  # tokens that a resident holds on average
    side.bound[BY_BUDGET] = side.budget / ((means[PROMPT1] + side.summary.d1) * side.pace.full[0])
    if side.summary.d1 <= 0:  # prompts alone: as many as run in one iteration share its cost
        most = min(seqs, max(1.0, side.budget / means[PROMPT1]), max(1.0, side.tokens / max(held, 1.0)))
        side.bound[BY_SEQS] = 1.0 / read(side.pace.moment1, float(ALONE), column_of(min(most, MATES[-1])))
        side.bound[BY_KV], side.bound[KV_SLOTS], side.bound[SLOTS] = math.inf, side.tokens / max(held, 1.0), seqs
    else:
        # a newcomer needs its whole prompt at once, the residents hold their mean
        side.bound[KV_SLOTS] = max((side.tokens - means[PROMPT1]) / held, 1.0)
        side.bound[BY_SEQS] = saturated(side.pace, seqs)
        room = side.tokens / held
        side.bound[BY_KV] = saturated(side.pace, room) if room < seqs else math.inf
        side.bound[SLOTS] = max(min(seqs, side.bound[KV_SLOTS]), 1.0)
    side.bound[CAPACITY] = min(side.bound[BY_SEQS], side.bound[BY_KV], side.bound[BY_BUDGET])
