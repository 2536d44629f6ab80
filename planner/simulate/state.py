"""What a simulation remembers: `Ledger` of requests, `Batch` of each engine, `Limits` of the scheduler.

Requests are numbered by arrival. An engine's requests form two linked lists through the ledger: the queue (`following`,
by arrival, preempted ones first) and the running requests in order of admission (`before`, `after`), whose last one is
the first to be preempted. Decoding requests are never touched while they decode: one joined at iteration `joined_step`
with `joined_tokens` tokens holds `joined_tokens + step - joined_step` of them at iteration `step`, and finishes at
iteration `finish_step`, known in advance. So iterations without an event cost nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.predict import kernel

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Columns of `Batch.whole`.
HEAD = 0  # first request of the queue, -1 = empty
TAIL = 1  # last request of the queue
LAST = 2  # running request admitted last, -1 = none
DECODES = 3  # decoding requests
CONTEXT = 4  # tokens that they hold together
FREE = 5  # free KV blocks
STEP = 6  # iterations so far
HEAP = 7  # entries of the heap of finishes
PART = 8  # request whose prompt is partly computed, -1 = none
COMPUTED = 9  # its computed tokens
OUTSTANDING = 10  # requests assigned and not finished
JUST = 11  # requests that finished at the engine's clock, by its last step
PREEMPTIONS = 12
LOWEST = 13  # fewest free blocks so far
WHOLE = 14
# Columns of `Batch.real`.
CLOCK = 0  # end of the last step, seconds
BUSY = 1  # seconds spent in steps
SEEN = 2  # requests that came later are not in the next step's schedule
REAL = 3

BINS = 960
SHORTEST_S, LONGEST_S = 1e-5, 1e3
BINS_PER_E = BINS / float(np.log(LONGEST_S / SHORTEST_S))
LOG_SHORTEST = float(np.log(SHORTEST_S))


class Ledger(NamedTuple):
    """One entry per request."""

    arrival: Floats  # seconds, at the engine's door
    prompt: Integers
    output: Integers
    cached: Integers  # prompt tokens whose KV is there: held, not computed
    admitted_s: Floats  # first scheduled, NaN before
    first_s: Floats
    finish_s: Floats
    paused_s: Floats  # end of the last step before a preemption, NaN when not paused while decoding
    generated: Integers  # tokens emitted when it last joined the decodes, or was preempted
    joined_step: Integers
    joined_tokens: Integers
    finish_step: Integers  # -1 while it does not decode
    held: Integers  # KV blocks while it computes its prompt
    following: Integers
    before: Integers
    after: Integers
    engine: Integers


class Limits(NamedTuple):
    """The scheduler's limits and rules."""

    seqs: int
    budget: int
    block: int
    watermark: int  # blocks
    reserve: bool
    remote: bool  # `cached` tokens came over the network: lost on preemption
    ahead: bool  # a step is scheduled when the one before it starts


class Batch(NamedTuple):
    """One row per engine."""

    whole: Integers
    real: Floats
    heap_key: Integers
    heap_request: Integers
    residue: Integers  # decoding requests by (joined_tokens - joined_step) mod block size
    fresh: Integers  # scratch: requests whose prompt ends in this step
    done: Integers  # requests that finished in the last step
    histogram: Floats  # (BINS,) times between tokens, over all engines


def open_ledger(arrival: Floats, prompt: Integers, output: Integers, cached: Integers) -> Ledger:
    """Enter requests that nobody has served yet."""
    n = len(prompt)

    def empty() -> Floats:
        return np.full(n, np.nan)

    def none() -> Integers:
        return np.full(n, -1, np.int64)

    def zero() -> Integers:
        return np.zeros(n, np.int64)

    return Ledger(
        arrival=arrival, prompt=prompt, output=output, cached=cached,
        admitted_s=empty(), first_s=empty(), finish_s=empty(), paused_s=empty(),
        generated=zero(), joined_step=zero(), joined_tokens=zero(), finish_step=none(), held=zero(),
        following=none(), before=none(), after=none(), engine=none(),
    )  # fmt: skip


def open_batches(engines: int, blocks: int, limits: Limits) -> Batch:
    """Idle engines with empty KV space."""
    whole = np.zeros((engines, WHOLE), np.int64)
    whole[:, [HEAD, TAIL, LAST, PART]] = -1
    whole[:, [FREE, LOWEST]] = blocks
    room = 2 * limits.seqs + 64  # at most `seqs` entries are alive, the rest stale
    return Batch(
        whole, np.zeros((engines, REAL)), np.empty((engines, room), np.int64), np.empty((engines, room), np.int64),
        np.zeros((engines, limits.block), np.int64), np.empty(limits.seqs + 1, np.int64),
        np.empty(limits.seqs + 1, np.int64), np.zeros(BINS),
    )  # fmt: skip


@kernel
def count_gap(histogram: Floats, seconds: float, times: float) -> None:
    """Count `times` gaps between tokens of `seconds` each."""
    i = int((np.log(max(seconds, SHORTEST_S)) - LOG_SHORTEST) * BINS_PER_E)
    histogram[min(i, BINS - 1)] += times


@kernel
def enqueue(e: int, r: int, ledger: Ledger, batch: Batch) -> None:
    """Put request `r` in engine `e`'s queue, by arrival."""
    whole = batch.whole[e]
    ledger.engine[r] = e
    whole[OUTSTANDING] += 1
    tail, at = whole[TAIL], -1
    if tail >= 0 and ledger.arrival[tail] <= ledger.arrival[r]:
        at = tail
    else:
        following = whole[HEAD]
        while following >= 0 and ledger.arrival[following] <= ledger.arrival[r]:
            at, following = following, ledger.following[following]
    if at < 0:
        ledger.following[r] = whole[HEAD]
        whole[HEAD] = r
    else:
        ledger.following[r] = ledger.following[at]
        ledger.following[at] = r
    if ledger.following[r] < 0:
        whole[TAIL] = r


@kernel
def dequeue(e: int, ledger: Ledger, batch: Batch) -> None:
    """Take the first request out of the queue and append it to the running ones."""
    whole = batch.whole[e]
    r, last = whole[HEAD], whole[LAST]
    whole[HEAD] = ledger.following[r]
    if whole[HEAD] < 0:
        whole[TAIL] = -1
    ledger.before[r], ledger.after[r] = last, -1
    if last >= 0:
        ledger.after[last] = r
    whole[LAST] = r


@kernel
def unlink(e: int, r: int, ledger: Ledger, batch: Batch) -> None:
    """Take `r` out of the running requests."""
    before, after = ledger.before[r], ledger.after[r]
    if before >= 0:
        ledger.after[before] = after
    if after >= 0:
        ledger.before[after] = before
    else:
        batch.whole[e, LAST] = before


@kernel
def push_finish(e: int, r: int, ledger: Ledger, batch: Batch) -> None:
    """Enter `r`'s finish in the heap; drop stale entries when it is full."""
    whole, keys, requests = batch.whole[e], batch.heap_key[e], batch.heap_request[e]
    if whole[HEAP] == len(keys):
        entries, whole[HEAP] = whole[HEAP], 0
        for i in range(entries):
            if ledger.finish_step[requests[i]] == keys[i]:
                sift_up(e, keys[i], requests[i], batch)
    sift_up(e, ledger.finish_step[r], r, batch)


@kernel
def sift_up(e: int, key: int, r: int, batch: Batch) -> None:
    """Append an entry to the heap and restore its order."""
    keys, requests = batch.heap_key[e], batch.heap_request[e]
    i = batch.whole[e, HEAP]
    batch.whole[e, HEAP] += 1
    while i > 0 and keys[(i - 1) >> 1] > key:
        keys[i], requests[i] = keys[(i - 1) >> 1], requests[(i - 1) >> 1]
        i = (i - 1) >> 1
    keys[i], requests[i] = key, r


@kernel
def pop_finish(e: int, batch: Batch) -> None:
    """Remove the heap's first entry."""
    keys, requests = batch.heap_key[e], batch.heap_request[e]
    batch.whole[e, HEAP] -= 1
    last, i = batch.whole[e, HEAP], 0
    key, r = keys[last], requests[last]
    while 2 * i + 1 < last:
        child = 2 * i + 1
        if child + 1 < last and keys[child + 1] < keys[child]:
            child += 1
        if keys[child] >= key:
            break
        keys[i], requests[i] = keys[child], requests[child]
        i = child
    keys[i], requests[i] = key, r


@kernel
def next_finish(e: int, ledger: Ledger, batch: Batch) -> int:
    """Iteration at which the next decoding request finishes; there must be one."""
    keys, requests = batch.heap_key[e], batch.heap_request[e]
    while ledger.finish_step[requests[0]] != keys[0]:
        pop_finish(e, batch)
    return int(keys[0])
