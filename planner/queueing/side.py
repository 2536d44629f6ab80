"""`Side`: equal engines behind one router, measured under a workload, and room to solve their closed form.

Kernels share a side instead of long lists of arguments. Its small arrays are records whose entries have names here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.queueing.clumps import Clumps, clumps
from planner.queueing.pace import Pace, open_pace
from planner.queueing.summary import Summary

Floats = NDArray[np.float64]

# Entries of `bound`: rates of one engine (1/s), and slots.
CAPACITY, BY_SEQS, BY_KV, BY_BUDGET, SLOTS, KV_SLOTS = range(6)
BOUND = 6
# Entries of `mean`.
SLOT = 0  # probability to wait for a slot
SLOT_S = 1  # that wait, of those who have it
TPOT1 = 2  # mean TPOT but for the prompts left behind one's own
N1, N2 = 3, 4  # mean and variance of the residents
RHO = 5  # share of time that prompts take
LEFT_S = 6  # prompt work left behind one's own
FULL_S = 7  # an iteration that uses the whole budget
SLOPE = 8  # dD/dn
FLOOR_S = 9  # the shortest iteration
WORK2 = 10  # E[s²]
TURN_S = 11  # time in which N forgets
RATE = 12
WORK1 = 13  # E[s]
STIRRED = 14  # share of N's variance that prompts cause
MEAN = 15
# Columns of `states`, one row per quantile of N. A prompt meets others with probability PRESENT and then waits WAIT_S
# (variance WAIT_VAR); else CALM_S (CALM_VAR).
AT, BASE, PRESENT, WAIT_S, WAIT_VAR, CALM_S, CALM_VAR, ROW, COLUMN = range(9)
STATE = 9
# Entries of `after`: from a prompt's end on a prefill engine to its first token from a decode engine.
FIXED_S, PER_TOKEN_S, LATER_S, LATER_VAR = range(4)
AFTER = 4

ROUND_ROBIN, LEAST_REQUESTS, RANDOM = 0, 1, 2
#: Stands for 1 where a queue must stay finite.
NEARLY = 0.9995


class Side(NamedTuple):
    """One engine of a side, and how many there are."""

    pace: Pace
    summary: Summary
    near: Clumps
    budget: float
    tokens: float  # that one engine's KV space holds
    servers: float
    ca2: float  # of the arrivals at one engine
    ahead: float  # steps scheduled before a prompt comes, beside the one that runs
    bound: Floats
    states: Floats
    mean: Floats
    chain: Floats


def open_side(  # noqa: PLR0913 - keywords
    summary: Summary,
    *,
    seqs: int,
    budget: int,
    tokens: int,
    servers: int,
    router: int,
    ca2: float,
    ahead: int,
    quantiles: int,
) -> Side:
    """Room for one side; `ca2` is that of the arrivals before the router."""
    seen = seen_ca2(ca2, servers, router)
    return Side(
        open_pace(seqs, len(summary.share)), summary, clumps(seen), float(budget), float(tokens), float(servers), seen,
        float(ahead),
        np.zeros(BOUND), np.zeros((quantiles, STATE)), np.zeros(MEAN), _scratch(seqs),
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _scratch(seqs: int) -> Floats:
    """Room for a chain of up to 2S steps (peakedness is at least a half); no kernel needs it once it is done."""
    return np.zeros(2 * seqs + 2)


def seen_ca2(ca2: float, servers: int, router: int) -> float:
    """Squared coefficient of variation of the arrivals at one of `servers`.

    Random thinning brings any renewal stream nearer to Poisson: 1 + (c² - 1)/R. Round robin sums R gaps: c²/R. Least
    requests evens the servers out as well.
    """
    return 1.0 + (ca2 - 1.0) / servers if router == RANDOM else ca2 / servers
