"""Arrivals and lengths with common random numbers: what a simulation is fed.

Gaps are drawn by strata (one uniform number per n-th of the unit interval, shuffled) and rescaled to their exact
mean, so that runs at two rates see the same traffic, faster or slower. Stratified lengths and gaps cut the sampling
error of means and medians by a quarter to a third at no cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from catalog.errors import BadInput
from planner.workload import Requests

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Draws per gap from which the quantiles of gamma gaps are read.
OVERSAMPLE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """A two-state Markov-modulated Poisson process (MMPP): `ratio` times the mean rate, then little, in turns."""

    ratio: float = 2.5
    high_s: float = 20.0
    """Mean time at the high rate."""
    low_s: float = 60.0
    """Mean time at the low rate, which follows from the mean: a negative one is refused."""

    def __post_init__(self) -> None:
        if not (self.ratio >= 1 and self.high_s > 0 and self.low_s > 0 and self.low_share >= 0):
            what = (
                f"burst of {self.ratio!r} times the mean rate for {self.high_s!r} s of {self.high_s + self.low_s!r} s"
            )
            raise BadInput(what, mend="the high phases alone must not exceed the mean rate")

    @property
    def low_share(self) -> float:
        """Low rate over mean rate: high_s·ratio + low_s·low = high_s + low_s."""
        return (self.high_s + self.low_s - self.high_s * self.ratio) / self.low_s


def strata(n: int, rng: np.random.Generator) -> Floats:
    """`n` numbers in (0, 1), one in each n-th, shuffled."""
    return np.asarray((rng.permutation(n) + rng.random(n)) / n)


@lru_cache(maxsize=4)
def gaps(n: int, cv: float, seed: int) -> Floats:
    """`n` gaps between arrivals of mean exactly 1 and coefficient of variation `cv`: gamma, stratified.

    Drawn once for all the rates of a bracket, and read-only.
    """
    rng = np.random.default_rng([seed, 1])
    u = strata(n, rng)
    if cv == 0:
        drawn = np.ones(n)
    elif cv == 1:
        drawn = -np.log1p(-u)
    else:
        shape = 1.0 / cv**2
        ordered = np.sort(rng.gamma(shape, 1.0 / shape, n * OVERSAMPLE))
        drawn = ordered[(u * n * OVERSAMPLE).astype(np.int64)]
    drawn = np.asarray(drawn / drawn.mean())
    drawn.setflags(write=False)
    return drawn


def burst_arrivals(n: int, rate: float, burst: Burst, seed: int) -> Floats:
    """Arrival times of an MMPP: unit-rate Poisson arrivals read through the inverse of the cumulative intensity.

    The phases are drawn in seconds, the same for every rate, and the mean over the run is `rate` exactly.
    """
    units = np.cumsum(gaps(n, 1.0, seed))
    rng = np.random.default_rng([seed, 2])
    cycles = int(np.ceil(2.0 * n / rate / (burst.high_s + burst.low_s))) + 8
    phases = np.stack([rng.exponential(burst.low_s, cycles), rng.exponential(burst.high_s, cycles)], axis=1).ravel()
    intensity = np.tile([burst.low_share, burst.ratio], cycles) * phases
    ends, served = np.concatenate([[0.0], np.cumsum(phases)]), np.concatenate([[0.0], np.cumsum(intensity)])
    shape = np.interp(units / rate, served, ends)
    return np.asarray(shape * (units[-1] / rate / shape[-1]))


def arrival_times(requests: Requests, n: int, *, rate: float | None, seed: int, burst: Burst | None = None) -> Floats:
    """Arrival times of at most `n` requests, seconds, at a mean `rate`.

    Measured ones are sped up to the rate, or kept as they are without one; else the burst's or the gamma law's, at the
    workload's own rate without one. Raises BadInput for a rate or number that is not above 0.
    """
    pace = requests.rate if rate is None else rate
    if not (n >= 1 and 0 < pace < math.inf):
        what = f"{n!r} requests at {pace!r} a second"
        raise BadInput(what, mend="give at least one request and a rate above 0")
    if requests.arrival_s is not None:
        measured = check_arrivals(requests.arrival_s)[:n]
        since, span = measured - measured[0], float(measured[-1] - measured[0])
        return np.asarray(since if rate is None or span == 0 else since * ((len(measured) - 1) / span / rate))
    if burst is not None:
        return burst_arrivals(n, pace, burst, seed)
    return np.asarray(np.cumsum(gaps(n, requests.arrival_cv, seed)) / pace)


def check_arrivals(arrival_s: Floats) -> Floats:
    """Refuse timestamps that are absent, not numbers, negative or unsorted, naming the first such row."""
    times = np.asarray(arrival_s, dtype=np.float64)
    if len(times) == 0:
        what = "no arrivals"
        raise BadInput(what, mend="give at least one request")
    broken = ~np.isfinite(times) | (times < 0)
    if broken.any():
        row = int(np.argmax(broken))
        what = f"arrival {float(times[row])!r} is not a time"
        raise BadInput(what, place=f"row {row}", mend="give seconds >= 0")
    if (np.diff(times) < 0).any():
        row = int(np.argmax(np.diff(times) < 0)) + 1
        what = f"arrival {float(times[row])!r} comes before the one of the row above"
        raise BadInput(what, place=f"row {row}", mend="sort the rows by arrival")
    return times


@lru_cache(maxsize=4)
def lengths(requests: Requests, n: int, *, seed: int) -> tuple[Integers, Integers, Integers]:
    """Prompt, output and cached tokens of `n` requests, read-only.

    A trace's rows in their order (round again where it is shorter); else the sample's, stratified along the prompt and
    shuffled.
    """
    check_lengths(requests)
    size = len(requests.prompt)
    if requests.arrival_s is not None:
        rows = np.arange(n) % size
    else:
        rng = np.random.default_rng([seed, 3])
        # the order that matters most is the prompt's; outputs fall where the sample has them
        order = np.lexsort((requests.output, requests.prompt))
        rows = order[np.minimum((strata(n, rng) * size).astype(np.int64), size - 1)]
    drawn = requests.prompt[rows], requests.output[rows], requests.cached[rows]
    for each in drawn:
        each.setflags(write=False)
    return drawn


def check_lengths(requests: Requests) -> None:
    """Refuse samples without rows, of unequal lengths, or with impossible tokens, naming the first such row."""
    size = len(requests.prompt)
    if size == 0 or len(requests.output) != size or len(requests.cached) != size:
        what = f"{size} prompts, {len(requests.output)} outputs, {len(requests.cached)} cached counts"
        raise BadInput(what, mend="give one of each per request, at least one request")
    for name, values, lowest in (
        ("prompt", requests.prompt, 1),
        ("output", requests.output, 0),
        ("cached", requests.cached, 0),
    ):
        if values.dtype.kind not in "iu" or (values < lowest).any():
            row = int(np.argmax(~(values >= lowest)))
            what = f"{name} {values[row]!r} is no count of tokens"
            raise BadInput(what, place=f"row {row}", mend=f"give whole numbers from {lowest}")
