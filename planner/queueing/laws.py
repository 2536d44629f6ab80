"""Laws of TTFT, TPOT and the whole request, given a settled side.

TTFT is the wait of `prompts` plus the prompt's own work, over the quantiles of N and the bins of prompts; some wait
for a slot first. TPOT of a request of d iterations is a time average of T(N): its mean is E[N]/(λE[it]) (Little), its
variance comes from Var N, damped over the time that d iterations take, and from the prompts met. Sums are fitted by
gamma laws.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from planner.predict import kernel
from planner.queueing.clumps import around
from planner.queueing.pace import MATES
from planner.queueing.side import (
    AT,
    BASE,
    CALM_S,
    CALM_VAR,
    COLUMN,
    FIXED_S,
    FLOOR_S,
    FULL_S,
    LATER_S,
    LATER_VAR,
    LEFT_S,
    N2,
    PER_TOKEN_S,
    PRESENT,
    RATE,
    RHO,
    ROW,
    SLOPE,
    SLOT,
    SLOT_S,
    STIRRED,
    TPOT1,
    TURN_S,
    WAIT_S,
    WAIT_VAR,
    WORK1,
    WORK2,
    Side,
)  # fmt: skip

Floats = NDArray[np.float64]


@kernel
def gamma_cdf(x: float, mean: float, variance: float) -> float:
    """P(X <= x) of a gamma law (Wilson and Hilferty: the cube root is nearly normal)."""
    if x <= 0:
        return 0.0
    if variance <= 1e-10 * mean * mean:
        return 1.0 if x >= mean else 0.0
    far = x - mean
    if far > 0 and far * far > 400.0 * variance:
        return 1.0
    shape = mean * mean / variance
    deviate = ((x / mean) ** (1.0 / 3.0) - (1.0 - 1.0 / (9.0 * shape))) * 3.0 * math.sqrt(shape)
    return 0.5 * math.erfc(-deviate * 0.7071067811865476)


@kernel
def own(side: Side, j: int, i: int) -> float:
    """Seconds from the start of a bin's first chunk to its first token: its work and the iterations it is in."""
    row, column = side.states[j, ROW], side.states[j, COLUMN]
    a, b = int(row), min(int(column), len(MATES) - 2)
    u, v = row - a, column - b
    s = side.pace.work[a, b, i] + (side.pace.work[a, b + 1, i] - side.pace.work[a, b, i]) * v
    if u > 0.0:
        s += (side.pace.work[a + 1, b, i] + (side.pace.work[a + 1, b + 1, i] - side.pace.work[a + 1, b, i]) * v - s) * u
    return float(s + side.states[j, BASE] * max(1.0, side.summary.new[i] / max(side.budget - side.states[j, AT], 1.0)))


@kernel
def ttft_cdf(x: float, side: Side, after: Floats) -> float:
    """P(TTFT <= x); `after` (see `AFTER`) follows the prompt: transfer and the decode side's first step."""
    share, later, later_var = 0.0, after[LATER_S], after[LATER_VAR]
    for j in range(len(side.states)):
        present = side.states[j, PRESENT]
        wait, variance = side.states[j, WAIT_S] + later, side.states[j, WAIT_VAR] + later_var
        calm, calm_var = side.states[j, CALM_S] + later, side.states[j, CALM_VAR] + later_var
        for i in range(len(side.summary.share)):
            left = x - own(side, j, i) - after[FIXED_S] - after[PER_TOKEN_S] * side.summary.prompt[i]
            if left < 0:
                continue
            met = present * gamma_cdf(left, wait + 1e-12, variance)
            if present < 1.0:
                met += (1.0 - present) * (gamma_cdf(left, calm, calm_var) if calm > 0 else 1.0)
            share += side.summary.share[i] * met
    share /= len(side.states)
    if side.mean[SLOT] > 1e-6:
        share *= 1.0 - side.mean[SLOT] * math.exp(-x / side.mean[SLOT_S])
    return share


@kernel
def ttft_moments(side: Side) -> tuple[float, float]:
    """Mean and variance of the TTFT at this side."""
    first, second, rows = 0.0, 0.0, len(side.states)
    for j in range(rows):
        u, w, c = side.states[j, PRESENT], side.states[j, WAIT_S], side.states[j, CALM_S]
        wait = u * w + (1.0 - u) * c
        square = u * (side.states[j, WAIT_VAR] + w * w) + (1.0 - u) * (side.states[j, CALM_VAR] + c * c)
        for i in range(len(side.summary.share)):
            o, share = own(side, j, i), side.summary.share[i] / rows
            first += share * (o + wait)
            second += share * (o * o + 2 * o * wait + square)
    p, w = side.mean[SLOT], side.mean[SLOT_S]
    return first + p * w, max(second - first * first, 0.0) + 2 * p * w * w - p * p * w * w


@kernel
def tpot_moments(d: float, side: Side) -> tuple[float, float]:
    """Mean and variance of the TPOT of a request of `d` decode iterations."""
    tau, rho = d * side.mean[TPOT1], side.mean[RHO]
    x = tau / max(side.mean[TURN_S], 1e-12)
    damped = 2.0 * (x - 1.0 + math.exp(-x)) / (x * x) if x > 1e-3 else 1.0
    extra = min(side.mean[LEFT_S] / d, max(side.mean[FULL_S] - side.mean[TPOT1], 0.0))
    slope = side.mean[SLOPE] / (1.0 - rho)
    by_size = slope * slope * side.mean[N2] * damped
    # prompts met: as many as come in tau, clumped or spread, and the mates that follow one's own
    met = side.mean[RATE] * tau
    s1, s2 = side.mean[WORK1], side.mean[WORK2]
    s2 += max(2.0 * around(side.near.mean_extra, met), -0.95) * s1 * s1
    by_prompts = met * s2 / (d * d) / ((1.0 - rho) * (1.0 - rho))
    # prompts raise N while they delay: the two move together in that share
    together = 2.0 * side.mean[STIRRED] * math.sqrt(by_size * by_prompts)
    variance = by_size + by_prompts + together + extra * extra
    mates = max(around(side.near.extra, met), -met) * s1 / (1.0 - rho) / d
    return side.mean[TPOT1] + extra + mates, variance


@kernel
def tpot_cdf(y: float, side: Side) -> float:
    """P(TPOT <= y) over the requests that have one.

    No iteration takes more than the token budget, so beyond such a one's time nearly all are below: what is left is the
    variation of its decodes.
    """
    share, beyond = 0.0, y - side.mean[FULL_S]
    full = 0.0
    if beyond > 0:
        full = 1.0 - 0.5 * math.erfc(beyond / (side.mean[SLOPE] * math.sqrt(2.0 * side.mean[N2]) + 1e-12))
    for i in range(len(side.summary.decodes)):
        m, v = tpot_moments(side.summary.decodes[i], side)
        floor = min(side.mean[FLOOR_S], 0.999 * m)
        share += side.summary.decode_share[i] * max(full, gamma_cdf(y - floor, m - floor, v))
    return share


@kernel
def e2e_cdf(z: float, side: Side, first: float, spread: float) -> float:
    """P(TTFT + d·TPOT <= z) for a TTFT of mean `first` and variance `spread`, independent of the TPOT given d."""
    share = side.summary.single * gamma_cdf(z, first, spread)
    for i in range(len(side.summary.decodes)):
        d = side.summary.decodes[i]
        m, v = tpot_moments(d, side)
        share += (
            (1.0 - side.summary.single) * side.summary.decode_share[i] * gamma_cdf(z, first + d * m, spread + d * d * v)
        )
    return share
