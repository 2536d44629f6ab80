"""The scheduler once more, one iteration and one request at a time: the proof of `planner.simulate.jump`.

Written from vLLM V1's `Scheduler.schedule` (running requests in order of admission, each up to what is left of the
token budget; on a shortage of KV blocks the last admitted is preempted and will be recomputed; then, unless something
was preempted, the queue in order). Engines step in the order of their clocks, and a router counts unfinished requests
from the finish times themselves. Nothing is lazy here and nothing is shared with the fast version but the tables'
lookups.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.predict import Steps, across, entry, kernel, stamp
from planner.simulate.drive import LEAST_REQUESTS, ROUND_ROBIN
from planner.simulate.jump import decode_at
from planner.simulate.state import BINS, Limits, count_gap

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Plain(NamedTuple):
    """All state of a plain simulation."""

    arrival: Floats
    prompt: Integers
    output: Integers
    cached: Integers
    admitted_s: Floats
    first_s: Floats
    finish_s: Floats
    last_token_s: Floats
    computed: Integers
    emitted: Integers
    held: Integers
    engine: Integers
    running: Integers  # (engines, seqs + 1), in order of admission
    active: Integers  # (engines,)
    queue: Integers  # (engines, n + 1), next one last
    queued: Integers  # (engines,)
    free: Integers  # (engines,) KV blocks
    lowest: Integers
    clock: Floats  # (engines,)
    seen: Floats  # (engines,) requests that came later are not in the next iteration's schedule
    busy: Floats
    preemptions: Integers
    iterations: Integers
    histogram: Floats
    chosen: Integers  # scratch: what the iteration schedules
    chunks: Integers
    counts: Integers  # (engines,) scratch
    answered: Floats  # (n,) when the client of a finished request is free again


def open_plain(  # noqa: PLR0913, PLR0917 - one call site gathers them
    arrival: Floats, prompt: Integers, output: Integers, cached: Integers, engines: int, blocks: int, seqs: int
) -> Plain:
    """Idle engines and unserved requests."""
    n = len(prompt)
    return Plain(
        arrival, prompt, output, cached, np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan),
        np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64), np.full(n, -1, np.int64),
        np.empty((engines, seqs + 1), np.int64), np.zeros(engines, np.int64), np.empty((engines, n + 1), np.int64),
        np.zeros(engines, np.int64), np.full(engines, blocks, np.int64), np.full(engines, blocks, np.int64),
        np.zeros(engines), np.zeros(engines), np.zeros(engines), np.zeros(engines, np.int64),
        np.zeros(engines, np.int64), np.zeros(BINS),
        np.empty(seqs + 1, np.int64), np.empty(seqs + 1, np.int64), np.empty(engines, np.int64), np.full(n, np.inf),
    )  # fmt: skip


@kernel
def needs(s: Plain, r: int, chunk: int, block: int) -> int:
    """KV blocks that `chunk` more tokens of `r` take."""
    return int(-(-(s.computed[r] + chunk) // block) - s.held[r])


@kernel
def iterate_plain(s: Plain, e: int, steps: Steps, limits: Limits) -> None:  # noqa: C901, PLR0915 - a kernel
    """One iteration of engine `e`."""
    budget, scheduled, preempted = limits.budget, 0, False
    chosen, chunks = s.chosen, s.chunks
    i = 0
    while i < s.active[e] and budget > 0:
        r = s.running[e, i]
        chunk = min(s.prompt[r] + s.emitted[r] - s.computed[r], budget)
        while needs(s, r, chunk, limits.block) > s.free[e]:
            s.active[e] -= 1
            victim = s.running[e, s.active[e]]
            s.free[e] += s.held[victim]
            s.held[victim] = s.computed[victim] = 0
            s.queue[e, s.queued[e]] = victim
            s.queued[e] += 1
            s.preemptions[e] += 1
            preempted = True
            if victim == r:
                break
        if i >= s.active[e]:
            break
        more = needs(s, r, chunk, limits.block)
        s.held[r] += more
        s.free[e] -= more
        chosen[scheduled], chunks[scheduled] = r, chunk
        scheduled += 1
        budget -= chunk
        i += 1
    while not preempted and s.queued[e] > 0 and budget > 0 and s.active[e] < limits.seqs:
        r = s.queue[e, s.queued[e] - 1]
        if s.arrival[r] > s.seen[e]:
            break
        s.computed[r] = 0 if limits.remote and s.emitted[r] > 0 else s.cached[r]
        total = s.prompt[r] + s.emitted[r]
        chunk = min(total - s.computed[r], budget)
        must_fit = total - s.computed[r] if limits.reserve else chunk
        spare = limits.watermark if s.active[e] > 0 else 0
        if needs(s, r, must_fit, limits.block) + spare > s.free[e]:
            s.computed[r] = 0
            break
        s.queued[e] -= 1
        s.running[e, s.active[e]] = r
        s.active[e] += 1
        s.held[r] = needs(s, r, chunk, limits.block)
        s.free[e] -= s.held[r]
        if math.isnan(s.admitted_s[r]):
            s.admitted_s[r] = s.clock[e]
        chosen[scheduled], chunks[scheduled] = r, chunk
        scheduled += 1
        budget -= chunk
    if scheduled == 0:
        return
    s.lowest[e] = min(s.lowest[e], s.free[e])
    s.seen[e] = s.clock[e]
    _pass_time(s, e, scheduled, steps)
    kept = 0
    for i in range(s.active[e]):
        r = s.running[e, i]
        if math.isnan(s.finish_s[r]):
            s.running[e, kept] = r
            kept += 1
        else:
            s.free[e] += s.held[r]
            s.held[r] = 0
    s.active[e] = kept


@kernel
def _pass_time(s: Plain, e: int, scheduled: int, steps: Steps) -> None:
    """Time the iteration, and emit the tokens that it ends with."""
    tokens, rows, read, attention, sampled, prefill = 0, 0, 0.0, 0.0, 0, False
    for i in range(scheduled):
        r, chunk = s.chosen[i], s.chunks[i]
        tokens += chunk
        if chunk == 1:
            rows += 1
            read += s.computed[r] + 1.0
        else:
            prefill = True
            attention += max(0.0, across(float(chunk), float(s.computed[r]), steps.chunk, steps.prior, steps.prefill_s))
        sampled += 1 if s.computed[r] + chunk == s.prompt[r] + s.emitted[r] else 0
    spent = steps.mixed_overhead_s if prefill else steps.decode_overhead_s
    spent += steps.token_at[tokens] + steps.sequence_at[sampled] + attention
    if rows > 0:
        spent += decode_at(steps, rows, read / rows)
    s.clock[e] += spent
    s.busy[e] += spent
    s.iterations[e] += 1
    for i in range(scheduled):
        r = s.chosen[i]
        s.computed[r] += s.chunks[i]
        if s.computed[r] == s.prompt[r] + s.emitted[r]:
            if s.emitted[r] == 0:
                s.first_s[r] = s.clock[e]
            else:
                count_gap(s.histogram, s.clock[e] - s.last_token_s[r], 1.0)
            s.emitted[r] += 1
            s.last_token_s[r] = s.clock[e]
            if s.emitted[r] >= s.output[r]:
                s.finish_s[r] = s.clock[e]


@kernel
def route_plain(s: Plain, k: int, at: float, router: int, draws: Integers, last: int) -> int:  # noqa: PLR0913, PLR0917 - a kernel
    """Engine of request `k` sent at `at`, by the definition of each router."""
    engines = len(s.clock)
    if router == ROUND_ROBIN:
        return k % engines
    if router != LEAST_REQUESTS:
        return int(draws[k])
    counts = s.counts
    counts[:] = 0
    for r in range(k):
        if not s.finish_s[r] <= at:
            counts[s.engine[r]] += 1
    best = (last + 1) % engines
    for i in range(1, engines):
        e = (last + 1 + i) % engines
        if counts[e] < counts[best]:
            best = e
    return best


@entry
def run_plain(  # noqa: C901, PLR0912, PLR0913, PLR0917 - a kernel
    _stamp: NDArray[np.void],
    s: Plain,
    steps: Steps,
    limits: Limits,
    router: int,
    draws: Integers,
    concurrency: int,
    door_s: float,
    output_token_s: float,
    sent_s: Floats,
) -> None:
    """Serve all requests: at their own times, or, with `concurrency` > 0, as clients are answered."""
    n, engines, sent, last = len(s.prompt), len(s.clock), 0, -1
    answered = s.answered
    while True:
        e, soonest = -1, math.inf
        for i in range(engines):
            start = s.clock[i]
            if s.active[i] == 0:
                start = max(start, s.arrival[s.queue[i, s.queued[i] - 1]]) if s.queued[i] > 0 else math.inf
            if start < soonest:
                e, soonest = i, start
        at, client = math.inf, -1
        if sent < n and concurrency == 0:
            at = s.arrival[sent]
        elif sent < min(concurrency, n):
            at = 0.0
        elif sent < n:
            client = int(np.argmin(answered))
            at = answered[client]
        if sent < n and at <= soonest:
            last = route_plain(s, sent, at, router, draws, last)
            s.engine[sent] = last
            if client >= 0:
                answered[client] = math.inf
            if concurrency > 0:
                sent_s[sent], s.arrival[sent] = at, at + door_s
            _line_up(s, last, sent)
            sent += 1
            continue
        if e < 0:
            return
        s.clock[e] = soonest
        if s.active[e] == 0 or not limits.ahead:
            s.seen[e] = soonest
        iterate_plain(s, e, steps, limits)
        for r in range(sent):
            if s.engine[r] == e and s.finish_s[r] == s.clock[e] and s.clock[e] > soonest:
                answered[r] = s.finish_s[r] + output_token_s * (s.output[r] - 1)


@kernel
def _line_up(s: Plain, e: int, r: int) -> None:
    """Put a request in the queue, by arrival; the next one stands last in the array."""
    at = 0
    while at < s.queued[e] and s.arrival[s.queue[e, at]] > s.arrival[r]:
        at += 1
    for i in range(s.queued[e], at, -1):
        s.queue[e, i] = s.queue[e, i - 1]
    s.queue[e, at] = r
    s.queued[e] += 1


STAMP = stamp("planner.predict", "planner.simulate.state", "planner.simulate.jump", "planner.simulate.plain")
