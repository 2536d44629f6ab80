"""`Clumps`: how gamma arrivals crowd around an arrival, or keep away from it.

For a renewal stream with gamma gaps of mean 1 and shape k = 1/c², the arrivals expected within x after an arrival are
M(x) = Σ_j P(j·k, k·x) with P the regularised lower incomplete gamma function. Poisson has M(x) = x; bursty streams (c
> 1) exceed it, by (c² - 1)/2 in the long run and by (k·x)^k / Γ(k+1) at once, however small x; smooth ones (a round
robin's share: c² / R) stay below. What the closed form reads, on a logarithmic grid of x:

    extra(x) = M(x) - x,   mean_extra(x) = 1/x ∫ extra over (0, x),   soon(x) = P(gap <= x) = P(k, k·x).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.predict import kernel

Floats = NDArray[np.float64]

#: Grid of x = rate times a window.
LOW, HIGH, POINTS = -7.0, 5.0, 61
STEP = (HIGH - LOW) / (POINTS - 1)


class Clumps(NamedTuple):
    """Values at x = exp(LOW + i·STEP)."""

    extra: Floats
    mean_extra: Floats
    soon: Floats


@lru_cache(maxsize=256)
def clumps(ca2: float) -> Clumps:
    """Tabulate a stream of squared coefficient of variation `ca2`; what is smoother than 1/100 counts as 1/100."""
    shape = 1.0 / max(ca2, 0.01)
    x = np.exp(LOW + STEP * np.arange(POINTS))
    soon = np.array([lower_gamma(shape, shape * each) for each in x])
    extra = np.array([_renewals(shape, each) for each in x]) - x
    # trapezoids in x; below the grid extra behaves as x^min(k, 1)
    first = extra[0] * x[0] / (1.0 + min(shape, 1.0))
    area = first + np.concatenate([[0.0], np.cumsum(0.5 * (extra[1:] + extra[:-1]) * np.diff(x))])
    return Clumps(extra, area / x, soon)


def _renewals(shape: float, x: float) -> float:
    """M(x), by its asymptote M(x) = x + (c² - 1)/2 once the stream has forgotten its start."""
    if x > 12.0 * max(1.0 / shape, 1.0):
        return x + 0.5 * (1.0 / shape - 1.0)
    total, j = 0.0, 1
    while True:
        term = lower_gamma(j * shape, shape * x)
        total += term
        j += 1
        if term < 1e-7 and j * shape > shape * x:
            return total


def lower_gamma(a: float, z: float) -> float:
    """Regularised lower incomplete gamma function P(a, z), by its series (z < a + 1) or continued fraction."""
    if z <= 0:
        return 0.0
    scale = math.exp(a * math.log(z) - z - math.lgamma(a))
    if z < a + 1.0:
        term = total = 1.0 / a
        n = a
        while abs(term) > 1e-12 * total:
            n += 1.0
            term *= z / n
            total += term
        return min(total * scale, 1.0)
    # Lentz: Q(a, z) = scale / (z + 1 - a - 1(1 - a)/(z + 3 - a - ...))
    b = z + 1.0 - a
    c, d = 1e300, 1.0 / b
    h = d
    for i in range(1, 500):
        step = -i * (i - a)
        b += 2.0
        d = 1.0 / (step * d + b)
        c = b + step / c
        h *= d * c
        if abs(d * c - 1.0) < 1e-12:
            break
    return min(max(1.0 - scale * h, 0.0), 1.0)


@kernel
def around(table: Floats, x: float) -> float:
    """Read a clump table at x."""
    if x <= 0:
        return 0.0
    place = min(max((math.log(x) - LOW) / STEP, 0.0), POINTS - 1.001)
    i = int(place)
    return float(table[i] + (table[i + 1] - table[i]) * (place - i))
