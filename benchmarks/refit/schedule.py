"""The steps that an engine runs under a benchmark's load, as counts: which tokens share a step does not depend on time.

In a closed loop a new request comes when one ends, and a static batch starts at once, so the sequence of steps follows
from the lengths alone. It is laid out once per condition, as segments of equal steps, and timed again for every trial
of the constants by a product of matrices.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Segment:
    """`steps` equal steps in a row: so many decodes at a mean context, and the prefill chunks of the (one) step."""

    steps: int
    decodes: int
    context: float
    chunks: list[tuple[int, int]] = field(default_factory=list)
    """(tokens, tokens before them)"""


@dataclass(slots=True)
class Request:
    """One request's place in the schedule: indices of segments after which something happened."""

    prompt: int
    output: int
    sent: int
    first: int = -1
    done: int = -1
    computed: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Segments in order, and for each finished request the segments of its life."""

    segments: list[Segment]
    requests: list[Request]


def closed_loop(
    *, concurrency: int, prompt: int, output: int, spread: float, budget: int, seed: int = 0, per_slot: int = 10
) -> Schedule:
    """Lay out a closed loop: lengths uniform in [spread L, L], `per_slot` requests per slot (published runs: 10)."""
    random = np.random.default_rng(seed)
    total = concurrency * per_slot
    prompts = random.integers(max(1, round(spread * prompt)), prompt, size=total, endpoint=True)
    outputs = random.integers(max(2, round(spread * output)), output, size=total, endpoint=True)
    pending = deque(Request(prompt=int(p), output=int(o), sent=0) for p, o in zip(prompts, outputs, strict=True))
    waiting = deque(pending.popleft() for _ in range(concurrency))
    return _run(waiting, pending, budget=budget)


def static_batch(*, batch: int, prompt: int, output: int, budget: int) -> Schedule:
    """Lay out one batch of equal requests whose prompts are computed before any decode (engines without chunks)."""
    waiting = deque(Request(prompt=prompt, output=output, sent=0) for _ in range(batch))
    return _run(waiting, deque(), budget=max(budget, prompt), pieces=8)


def _run(waiting: deque[Request], pending: deque[Request], *, budget: int, pieces: int = 1) -> Schedule:
    segments: list[Segment] = []
    running: list[Request] = []
    late: list[Request] = []  # sent after the last step: the engine sees them one step later
    finished: list[Request] = []
    total = len(waiting) + len(pending)
    while len(finished) < total:
        segment, started = _next(waiting, running, budget=budget, jump=not late, pieces=pieces)
        segments.append(segment)
        index = len(segments)
        waiting.extend(late)
        late = []
        for request in running:
            request.left -= segment.steps
        for request in started:
            request.first, request.left = index, request.output - 1
        running += started
        for request in [r for r in running if r.left <= 0]:
            running.remove(request)
            request.done = index
            finished.append(request)
            if pending:
                follower = pending.popleft()
                follower.sent = index
                late.append(follower)
    return Schedule(segments, finished)


def _next(waiting: deque[Request], running: list[Request], *, budget: int, jump: bool,
          pieces: int) -> tuple[Segment, list[Request]]:  # fmt: skip
    """The next segment: decodes first, then prompts in order until the token budget is spent."""
    decodes = len(running)
    context = sum(r.prompt + r.output - r.left for r in running) / max(1, decodes)
    chunks, started, room = [], [], budget - decodes
    while waiting and room > 0:
        request = waiting[0]
        take = min(room, request.prompt - request.computed)
        chunks.append((take, request.computed))
        request.computed += take
        room -= take
        if request.computed == request.prompt:
            started.append(waiting.popleft())
    if chunks or not jump:
        return Segment(1, decodes, context, chunks), started
    steps = min(r.left for r in running)
    if pieces > 1:
        steps = min(steps, max(1, running[0].output // pieces))
    return Segment(steps, decodes, context + (steps - 1) / 2, []), []
