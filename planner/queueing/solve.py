"""From one rate to attainment, and from an SLO to the highest rate that meets it: the entries into the closed form.

A strategy is two `Side`s: where prompts are computed, and where tokens are generated. For a collocated strategy they
are the same. For a disaggregated one a request's first token comes from the decode side, as with vLLM's connectors:
the prefill side's own token is dropped, so TTFT = prefill + wait for the link + transfer + the decode side's first
step.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.predict import Tables, entry, kernel, stamp
from planner.queueing.bounds import limit
from planner.queueing.chain import settle
from planner.queueing.clumps import around
from planner.queueing.laws import e2e_cdf, tpot_cdf, tpot_moments, ttft_cdf, ttft_moments
from planner.queueing.pace import measure
from planner.queueing.side import CAPACITY, FIXED_S, LATER_S, LATER_VAR, N1, PER_TOKEN_S, TPOT1, Side

Floats = NDArray[np.float64]

#: Rows of `shares`.
TTFT, TPOT, E2E, JOINT = 0, 1, 2, 3
#: A bracket of rates is close when it is so narrow, relative to its upper end, that a chord through it is exact enough;
#: and the least share of the capacity that is looked at.
CLOSE, LEAST = 0.012, 1.5e-3
#: Weight of comonotone against independent misses of several limits: calibrated on the simulator.
TOGETHER = 0.1


class Link(NamedTuple):
    """From prefill to decode replicas; each prefill replica's link moves one prompt at a time."""

    links: int
    latency_s: float
    per_token_s: float


class Ask(NamedTuple):
    """What latencies are compared with, seconds; infinite where there is no limit."""

    ttft_s: float
    tpot_s: float
    e2e_s: float
    attainment: float
    joint: bool
    door_s: float  # per request before the engine
    token_s: float  # per further token after it


class Swing(NamedTuple):
    """Arrivals that swing between two rates at random, as multiples of their mean: a two-state MMPP."""

    low: float
    high: float
    rise: float  # 1/s, from the low rate to the high one
    fall: float  # 1/s, back


STEADY = Swing(1.0, 1.0, 0.0, 0.0)


class Pair(NamedTuple):
    """Both sides of a strategy, and room for what is between them."""

    prompts: Side
    tokens: Side  # the same for a collocated strategy
    link: Link
    after: Floats  # (AFTER,)
    shares: Floats  # (4,)


@kernel
def solve_link(pair: Pair, rate: float) -> bool:
    """What follows a prompt on its way to the decode side; False where the link cannot keep up."""
    first, second = 0.0, 0.0
    summary, link, after = pair.prompts.summary, pair.link, pair.after
    for i in range(len(summary.share)):
        seconds = link.latency_s + link.per_token_s * summary.prompt[i]
        first += summary.share[i] * seconds
        second += summary.share[i] * seconds * seconds
    each = rate / link.links
    used = each * first
    if used >= 1.0:
        return False
    # Pollaczek and Khinchine, and the mates of a clump: prompts come to the link about as unevenly as to their engine
    mates = first * around(pair.prompts.near.extra, used / (1.0 - used))
    queue = max(0.5 * each * second + mates, 0.0) / (1.0 - used)
    mean, variance = ttft_moments(pair.tokens)
    after[FIXED_S], after[PER_TOKEN_S] = link.latency_s, link.per_token_s
    after[LATER_S], after[LATER_VAR] = mean + queue, variance + queue * queue
    return True


@kernel
def solve(pair: Pair, rate: float) -> bool:
    """Settle a strategy at `rate` requests per second to all its servers; False where it is not stable."""
    pair.after[:] = 0.0
    if not settle(pair.tokens, rate / pair.tokens.servers):
        return False
    if pair.link.links == 0:
        return True
    return settle(pair.prompts, rate / pair.prompts.servers) and solve_link(pair, rate)


@kernel
def share_within(pair: Pair, ask: Ask) -> float:
    """Attainment of a settled strategy; fills `shares` with that of each limit and of all together."""
    shares, tokens = pair.shares, pair.tokens
    shares[:] = 1.0
    if ask.ttft_s < math.inf:
        shares[TTFT] = ttft_cdf(ask.ttft_s - ask.door_s, pair.prompts, pair.after)
    if ask.tpot_s < math.inf:
        one = tokens.summary.single
        shares[TPOT] = one + (1.0 - one) * tpot_cdf(ask.tpot_s - ask.token_s, tokens)
    if ask.e2e_s < math.inf:
        first, spread = first_token(pair)
        d1 = tokens.summary.d1
        shares[E2E] = e2e_cdf(ask.e2e_s - ask.door_s - d1 * ask.token_s, tokens, first, spread)
    least = min(shares[TTFT], shares[TPOT], shares[E2E])
    product = shares[TTFT] * shares[TPOT] * shares[E2E]
    # one crowded moment breaks several limits: between independent and comonotone
    shares[JOINT] = product + TOGETHER * (least - product)
    return float(shares[JOINT] if ask.joint else least)


@kernel
def first_token(pair: Pair) -> tuple[float, float]:
    """Mean and variance of the TTFT, transfer and first decode step included."""
    first, spread = ttft_moments(pair.prompts)
    summary, after = pair.prompts.summary, pair.after
    moved, moved2 = 0.0, 0.0
    for i in range(len(summary.share)):
        seconds = after[PER_TOKEN_S] * summary.prompt[i]
        moved += summary.share[i] * seconds
        moved2 += summary.share[i] * seconds * seconds
    spread += moved2 - moved * moved + after[LATER_VAR]
    return first + after[FIXED_S] + moved + after[LATER_S], spread


@entry
def measure_side(_stamp: NDArray[np.void], tables: Tables, side: Side) -> float:
    """Fill a side's pace and bounds; returns the highest stable rate of all its servers."""
    measure(tables, side.summary, len(side.pace.decode) - 1, side.budget, side.pace)
    limit(side)
    return float(side.bound[CAPACITY] * side.servers)


@kernel
def highest(pair: Pair) -> float:
    """Highest stable rate of a strategy."""
    prompts, tokens, link = pair.prompts, pair.tokens, pair.link
    rate = tokens.bound[CAPACITY] * tokens.servers
    if link.links > 0:
        moved = 0.0
        for i in range(len(prompts.summary.share)):
            moved += prompts.summary.share[i] * (link.latency_s + link.per_token_s * prompts.summary.prompt[i])
        rate = min(rate, prompts.bound[CAPACITY] * prompts.servers)
        rate = min(rate, link.links / moved)
    return float(rate)


@kernel
def chord(low: float, high: float, at_low: float, at_high: float) -> float:
    """Where the chord from `at_low` > 0 to `at_high` < 0 crosses zero, not too near to either end."""
    share = at_low / (at_low - at_high)
    return low + (high - low) * min(max(share, 0.03), 0.97)


@kernel
def margin_at(pair: Pair, ask: Ask, swing: Swing, rate: float) -> float:
    """Attainment beyond what is asked for; nothing is attained beyond capacity."""
    if not solve(pair, rate):
        return -ask.attainment
    if swing.high <= 1.0:
        return share_within(pair, ask) - ask.attainment
    return swung(pair, ask, swing, rate) - ask.attainment


@kernel
def swung(pair: Pair, ask: Ask, swing: Swing, rate: float) -> float:
    """Attainment of a strategy, settled at the mean rate, whose arrivals swing.

    What resides came over a stay of W seconds: the engine feels the rate smoothed with that time constant. A two-state
    rate so smoothed has a beta law between its ends (the filtered random telegraph),
        share of the way up ~ Beta(rise·W, fall·W),  mean m = rise/(rise + fall),  variance m(1-m)/(1 + s),
    s = (rise + fall)·W: the rates themselves for phases long against a stay, their mean for short ones. At each rate
    the engine is taken as settled. The law is read at the two points that keep its first three moments (Gauss), and an
    arrival meets a rate in proportion to it.
    """
    stay = pair.tokens.mean[N1] * pair.tokens.servers / rate
    s, m = (swing.rise + swing.fall) * stay, swing.rise / (swing.rise + swing.fall)
    middle = m + (1.0 - 2.0 * m) / (2.0 + s)
    apart = math.sqrt((middle - m) ** 2 + m * (1.0 - m) / (1.0 + s))
    ttft, tpot, e2e, joint = 0.0, 0.0, 0.0, 0.0
    for k in range(2):
        at = middle - apart if k == 0 else middle + apart
        other = middle + apart if k == 0 else middle - apart
        times = swing.low + (swing.high - swing.low) * min(max(at, 0.0), 1.0)
        if times <= 0.0 or not solve(pair, rate * times):
            continue
        share_within(pair, ask)
        weight = times * (m - other) / (at - other)
        ttft += weight * pair.shares[TTFT]
        tpot += weight * pair.shares[TPOT]
        e2e += weight * pair.shares[E2E]
        joint += weight * pair.shares[JOINT]
    return joint if ask.joint else min(ttft, tpot, e2e)


@entry
def goodput_of(  # noqa: PLR0913, PLR0917 - a kernel
    _stamp: NDArray[np.void],
    pair: Pair,
    ask: Ask,
    beside: Pair,
    beside_ask: Ask,
    both: bool,  # noqa: FBT001 - keywords
    swing: Swing,
) -> float:
    """Highest mean rate whose attainment is what is asked for, requests per second; 0 where no rate has it.

    With `both` a second pair must attain what is asked of it as well. The rates tried are the capacity's halves,
    quarters and so on, whatever is asked for, and only the last bracket is cut by its chord: so a looser question,
    whose attainment is nowhere less, never takes a turn to lower rates, even where attainment bends.
    """
    top = highest(pair)
    low, high, at_low, at_high = 0.0, 1.0, 1.0 - ask.attainment, -ask.attainment
    while high - low > CLOSE * high and high > LEAST:
        middle = 0.5 * (low + high)
        margin = margin_at(pair, ask, swing, middle * top)
        if both and margin >= 0.0:
            margin = min(margin, margin_at(beside, beside_ask, swing, middle * top))
        if margin >= 0.0:
            low, at_low = middle, margin
        else:
            high, at_high = middle, margin
    if low == 0.0:
        return 0.0
    if both and high < 1.0:
        at_high = min(at_high, margin_at(beside, beside_ask, swing, high * top))
    return chord(low, high, max(at_low, 1e-9), min(at_high, -1e-12)) * top


@entry
def latencies_of(_stamp: NDArray[np.void], pair: Pair, ask: Ask, rate: float, levels: Floats, out: Floats) -> bool:
    """Fill `out` (3, 1 + levels) with mean and quantiles of TTFT, TPOT and the whole request, `levels` ascending.

    False where the rate is unstable.
    """
    if not solve(pair, rate):
        return False
    share_within(pair, ask)
    first, _ = first_token(pair)
    tokens = pair.tokens
    d1 = tokens.summary.d1
    tpot = 0.0
    for i in range(len(tokens.summary.decodes)):
        tpot += tokens.summary.decode_share[i] * tpot_moments(tokens.summary.decodes[i], tokens)[0]
    out[TTFT, 0] = first + ask.door_s
    out[TPOT, 0] = tpot + ask.token_s if d1 > 0 else math.nan
    out[E2E, 0] = first + ask.door_s + d1 * (tokens.mean[TPOT1] + ask.token_s)
    for which in range(3):
        low = 0.0
        for k in range(len(levels)):
            low = invert(which, levels[k], pair, ask, low, out[which, 0])
            out[which, 1 + k] = low
    return True


@kernel
def invert(which: int, level: float, pair: Pair, ask: Ask, low: float, near: float) -> float:  # noqa: PLR0913, PLR0917 - a kernel
    """Quantile of one latency, above `low` and somewhere near `near`, to a thousandth; NaN where nobody has it."""
    if math.isnan(near):
        return math.nan
    first, spread = first_token(pair)
    high, at_low = max(near, 1.5 * low), level
    at_high = level - latency_cdf(which, high, pair, ask, first, spread)
    while at_high > 0 and high < 1e7:
        low, at_low, high = high, at_high, 2.0 * high
        at_high = level - latency_cdf(which, high, pair, ask, first, spread)
    stays = 0
    for i in range(24):
        middle = 0.5 * (low + high) if i % 3 == 0 else chord(low, high, at_low, min(at_high, -1e-12))
        missing = level - latency_cdf(which, middle, pair, ask, first, spread)
        if missing > 0:
            low, at_low = middle, missing
            at_high *= 0.5 if stays == 1 else 1.0
            stays = 1
        else:
            high, at_high = middle, missing
            at_low *= 0.5 if stays == -1 else 1.0
            stays = -1
        if high - low < 1e-3 * high or abs(missing) < 1e-5:
            return middle
    return 0.5 * (low + high)


@kernel
def latency_cdf(which: int, x: float, pair: Pair, ask: Ask, first: float, spread: float) -> float:  # noqa: PLR0913, PLR0917 - a kernel
    """P(latency <= x), given mean and variance of the TTFT."""
    if which == TTFT:
        return ttft_cdf(x - ask.door_s, pair.prompts, pair.after)
    if which == TPOT:
        return tpot_cdf(x - ask.token_s, pair.tokens)
    return e2e_cdf(x - ask.door_s - pair.tokens.summary.d1 * ask.token_s, pair.tokens, first, spread)


STAMP = stamp(
    "planner.predict",
    *(f"planner.queueing.{name}" for name in ("clumps", "pace", "bounds", "prompts", "chain", "laws", "solve")),
)
