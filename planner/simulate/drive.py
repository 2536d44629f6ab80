"""Routers and load: which request goes to which engine, and when."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from planner.predict import Steps, entry, kernel, stamp
from planner.simulate.jump import advance
from planner.simulate.state import CLOCK, HEAD, JUST, LAST, OUTSTANDING, Batch, Ledger, Limits, enqueue

ROUND_ROBIN, LEAST_REQUESTS, RANDOM = 0, 1, 2


@kernel
def outstanding(e: int, at: float, batch: Batch) -> int:
    """Requests that engine `e` has not finished at time `at`, its clock being the first step's end not before `at`."""
    ahead = batch.whole[e, JUST] if batch.real[e, CLOCK] > at else 0
    return int(batch.whole[e, OUTSTANDING] + ahead)


@kernel
def route(k: int, at: float, router: int, draws: NDArray[np.int64], last: int, batch: Batch) -> int:  # noqa: PLR0913, PLR0917 - a kernel
    """Engine of the k-th request; ties of `least_requests` go round from the engine after the last one chosen."""
    engines = len(batch.whole)
    if router == ROUND_ROBIN:
        return k % engines
    if router == RANDOM:
        return int(draws[k])
    best, fewest = -1, 0
    for i in range(engines):
        e = (last + 1 + i) % engines
        count = outstanding(e, at, batch)
        if best < 0 or count < fewest:
            best, fewest = e, count
    return best


@entry
def run_open(  # noqa: PLR0913, PLR0917 - a kernel
    _stamp: NDArray[np.void],
    steps: Steps,
    limits: Limits,
    ledger: Ledger,
    batch: Batch,
    router: int,
    draws: NDArray[np.int64],
) -> None:
    """Requests come at their own times."""
    n, engines, last = len(ledger.arrival), len(batch.whole), -1
    for k in range(n):
        at = ledger.arrival[k]
        if router == LEAST_REQUESTS and engines > 1:
            for e in range(engines):
                advance(e, at, False, steps, limits, ledger, batch)
        last = route(k, at, router, draws, last, batch)
        enqueue(last, k, ledger, batch)
    for e in range(engines):
        advance(e, math.inf, False, steps, limits, ledger, batch)


@kernel
def clock_of(e: int, ledger: Ledger, batch: Batch) -> float:
    """Start of the engine's next step; infinite without work."""
    if batch.whole[e, LAST] >= 0:
        return float(batch.real[e, CLOCK])
    head = batch.whole[e, HEAD]
    return max(batch.real[e, CLOCK], ledger.arrival[head]) if head >= 0 else math.inf


@entry
def run_closed(  # noqa: PLR0913, PLR0917 - a kernel
    _stamp: NDArray[np.void],
    steps: Steps,
    limits: Limits,
    ledger: Ledger,
    batch: Batch,
    router: int,
    draws: NDArray[np.int64],
    concurrency: int,
    door_s: float,
    output_token_s: float,
    sent_s: NDArray[np.float64],
    free: NDArray[np.float64],
) -> None:
    """`concurrency` clients send their next request when the last one is answered, until all are sent.

    A request reaches its engine `door_s` after it was sent, and its answer is complete `output_token_s` per further
    token after the engine's last step. Engines are advanced in the order of their clocks, never past the next sending.
    """
    n, engines = len(ledger.arrival), len(batch.whole)
    # free[:waiting]: times at which a client is free to send
    waiting, sent, finished, last = min(concurrency, n), 0, 0, -1
    while finished < n:
        soonest, second, e = math.inf, math.inf, -1
        for i in range(engines):
            clock = clock_of(i, ledger, batch)
            if clock < soonest:
                soonest, second, e = clock, soonest, i
            elif clock < second:
                second = clock
        client = -1
        for i in range(waiting):
            if client < 0 or free[i] < free[client]:
                client = i
        if client >= 0 and sent < n and free[client] <= soonest:
            at = free[client]
            waiting -= 1
            free[client] = free[waiting]
            last = route(sent, at, router, draws, last, batch)
            sent_s[sent] = at
            ledger.arrival[sent] = at + door_s
            enqueue(last, sent, ledger, batch)
            sent += 1
            continue
        bound = second if client < 0 or sent == n else min(second, free[client])
        # just past the bound: at least one step, and of equal clocks one after the other
        advance(e, max(bound, np.nextafter(soonest, math.inf)), True, steps, limits, ledger, batch)
        for i in range(batch.whole[e, JUST]):
            r = batch.done[i]
            free[waiting] = ledger.finish_s[r] + output_token_s * (ledger.output[r] - 1)
            waiting += 1
            finished += 1


STAMP = stamp("planner.predict", "planner.simulate.state", "planner.simulate.jump", "planner.simulate.drive")
