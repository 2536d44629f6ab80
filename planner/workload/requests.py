"""`Requests` and `realize`: a workload in numbers, ready for queueing and simulation.

Declared lengths become a stratified quasi-random sample: the i-th prompt sits at the quantile (i + 1/2)/n, outputs at
the same quantiles in the order of a golden-ratio (Kronecker) sequence, so that both margins are exact at n points and
the pair fills the unit square evenly; then the rows are shuffled with the seed, so that time sees no pattern.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from catalog.errors import BadInput
from catalog.units import SECONDS_PER_HOUR
from planner.workload.arrivals import DAY_S, busiest, daily_profile, gap_cv
from planner.workload.declared import Lengths, Workload
from planner.workload.trace import Trace

Tokens = NDArray[np.int64]
Floats = NDArray[np.float64]

GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """A workload in numbers, ready for queueing and simulation: what `realize` makes of a `Workload`.

    `prompt` and `output` are a joint sample (same index = same request); quasi-random for declared moments (seeded),
    the trace's own rows for a trace. `arrival_s` is None for a law (gamma gaps with `arrival_cv`), the measured
    timestamps, ascending from 0, for a replay.
    """

    rate: float
    """Requests per second, the mean that the plan must serve."""
    prompt: Tokens  # (n,) tokens, >= 1
    output: Tokens  # (n,) tokens, >= 1; 0 where vLLM is asked for none, and refuses
    cached: Tokens  # (n,) prompt tokens found in the prefix cache, < prompt
    arrival_cv: float
    arrival_s: Floats | None = None
    peak_rate: float | None = None
    """Rate of the busiest window, where the workload is diurnal or bursty on scales of minutes."""
    profile: tuple[float, ...] | None = None
    """Load by equal windows of the day from 00:00 UTC, relative to `rate`; None where it is not known."""
    silent: int = 0
    """Rows of the trace that are left out, since no output token came: the client left or an error came."""


def realize(workload: Workload, *, trace: Trace | None = None, n: int = 4096, seed: int = 0) -> Requests:
    """Turn a workload into a joint sample of requests and an arrival law or measured arrivals.

    With a trace its own rows are the sample, all of them; what the workload declares beside it wins: a `rate` stretches
    the arrivals to that mean, `prompt` or `output` replace the trace's lengths. Rows without an output token are left
    out and counted, unless `output` is declared: vLLM refuses max_tokens 0. Without a trace, `n` requests are drawn.
    Same arguments, same numbers.
    """
    if trace is not None:
        return _replayed(workload, trace, seed)
    if workload.rate is None or workload.prompt is None or workload.output is None:
        what = f"the workload's trace {workload.trace!r} has not been read"
        raise BadInput(what, mend="read it and pass it, or declare rate, prompt and output")
    prompt, output = _drawn(workload.prompt, workload.output, n, seed)
    peak = workload.rate * max(workload.diurnal) if workload.diurnal else None
    return Requests(
        rate=workload.rate,
        prompt=prompt,
        output=output,
        cached=_shared_prefix(prompt, workload.prefix_hit_share),
        arrival_cv=workload.arrival_cv,
        peak_rate=peak,
        profile=workload.diurnal,
    )


def demand(requests: Requests) -> float:
    """Requests per second that a plan is sized for: the busiest window's, or the mean where arrivals are replayed.

    A replay contains its own peaks, a law does not.
    """
    return requests.rate if requests.arrival_s is not None else max(requests.rate, requests.peak_rate or 0.0)


def lawful(requests: Requests, *, n: int = 4096) -> Requests:
    """The same load as a law: at most `n` evenly picked rows, gamma gaps with the measured coefficient of variation.

    For screening in closed form, which knows no timestamps; `peak_rate` goes, since the mean is what a replay serves.
    """
    if requests.arrival_s is None:
        return requests
    keep = np.unique(np.linspace(0, len(requests.prompt) - 1, min(n, len(requests.prompt))).round().astype(np.int64))
    rows = {name: getattr(requests, name)[keep] for name in ("prompt", "output", "cached")}
    return replace(requests, arrival_s=None, peak_rate=None, **rows)


def _replayed(workload: Workload, trace: Trace, seed: int) -> Requests:
    silent = 0 if workload.output is not None else int(np.count_nonzero(trace.output < 1))
    if silent == len(trace):
        what = "no request of the trace has an output token"
        raise BadInput(what, place=trace.source, mend="give a trace of answered requests, or declare output")
    trace = trace.where(trace.output > 0) if silent else trace
    rate = workload.rate or trace.rate * workload.trace_scale
    stretch = trace.rate / rate
    prompt, output = trace.prompt, trace.output
    if workload.prompt is not None or workload.output is not None:
        drawn = _drawn(workload.prompt or workload.output, workload.output or workload.prompt, len(trace), seed)
        prompt = drawn[0] if workload.prompt is not None else prompt
        output = drawn[1] if workload.output is not None else output
    cached = _shared_prefix(prompt, workload.prefix_hit_share) if trace.cached is None else trace.cached
    long_enough = trace.duration_s >= 2 * SECONDS_PER_HOUR
    return Requests(
        rate=rate,
        prompt=prompt,
        output=output,
        cached=np.minimum(cached, prompt - 1),
        arrival_cv=gap_cv(trace.arrival_s),
        arrival_s=(trace.arrival_s - trace.arrival_s[0]) * stretch,
        peak_rate=busiest(trace, SECONDS_PER_HOUR) / stretch if long_enough else None,
        profile=workload.diurnal or _profile(trace),
        silent=silent,
    )


def _profile(trace: Trace) -> tuple[float, ...] | None:
    """Load by hour of the day of a trace that covers whole days and says at what time of day it starts."""
    return None if trace.day_offset_s is None or trace.duration_s < DAY_S else daily_profile(trace)


def _drawn(prompt: Lengths | None, output: Lengths | None, n: int, seed: int) -> tuple[Tokens, Tokens]:
    """A joint sample of independent lengths: (n,) prompts and (n,) outputs."""
    assert prompt is not None and output is not None  # noqa: S101, PT018 - the callers pass what is declared
    order = np.random.default_rng(seed).permutation(n)
    ranks = np.argsort(np.argsort((np.arange(n) * GOLDEN) % 1.0))
    return lengths_at((order + 0.5) / n, prompt), lengths_at((ranks[order] + 0.5) / n, output)


def lengths_at(share: Floats, lengths: Lengths) -> Tokens:
    """Lengths at quantiles `share` (n,) of a declared distribution: whole tokens, at least 1, at most its `max`.

    Moments give a lognormal. Quantiles are joined in the plane (normal score, log length), that is, by pieces of
    lognormals; beyond the first and the last the neighbouring piece continues (one quantile alone: no spread).
    """
    score = np.array([NormalDist().inv_cdf(u) for u in share.tolist()])
    if lengths.quantiles is None:
        assert lengths.mean is not None  # noqa: S101 - Lengths has one of both
        spread = np.log1p(lengths.cv**2)  # σ² of the logarithm; its mean is ln(mean) - σ²/2
        logs = np.log(lengths.mean) - spread / 2 + np.sqrt(spread) * score
    else:
        knots = sorted(lengths.quantiles.items())
        at = np.array([NormalDist().inv_cdf(u) for u, _ in knots])
        logs = _joined(score, at, np.log([length for _, length in knots]))
    longest = lengths.max if lengths.max is not None else 10_000_000
    tokens: Tokens = np.clip(np.round(np.exp(np.minimum(logs, 17.0))), 1, longest).astype(np.int64)
    return tokens


def _joined(x: Floats, at: Floats, value: Floats) -> Floats:
    """Piecewise linear through (at, value), the outer pieces continued; constant through a single point."""
    if len(at) == 1:
        return np.full_like(x, value[0])
    piece = np.clip(np.searchsorted(at, x) - 1, 0, len(at) - 2)
    slope = np.diff(value) / np.diff(at)
    joined: Floats = value[piece] + slope[piece] * (x - at[piece])
    return joined


def _shared_prefix(prompt: Tokens, share: float) -> Tokens:
    held: Tokens = np.minimum(np.round(prompt * share).astype(np.int64), prompt - 1)
    return held
