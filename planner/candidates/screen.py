"""Screen: every option judged in closed form, then the few worth a simulation, of every GPU type and quality."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from catalog.cluster import NodePool
from planner.candidates.options import Option, Question, replicas_in
from planner.candidates.sizing import Sizer, falls_short, idle_latency, refused

#: Shares of the rate that candidates are made for: all of it, and parts of a mix, each with what completes it.
SHARES = (1.0, 0.9, 0.75, 0.6, 0.5, 0.4, 0.25, 0.1)
LATENCY_GOALS = ("min_latency", "cost_target")
#: Screened options kept of one GPU type, by cost; at most `PER_SHAPE` differ in batch limits alone.
PER_PLACE, PER_SHAPE, PER_QUALITY, BY_LATENCY = 6, 2, 2, 4
#: Batch limits sized of one shape, best bound first, when they cannot be cheaper than what is known.
TRIED = 6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Screened:
    """An option with the fewest replicas that serve the largest share it can."""

    option: Option
    share: float
    replicas: int
    cost: float
    """Dollars per hour of these replicas, over their share."""
    exact: float
    """The same with replicas that need not be whole: what a mix or a larger load would pay."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Promise:
    """The share that an option reaches with all its replicas, and the least that it can cost.

    First as its capacity has it, which no goodput exceeds; once `settled`, as its goodput has it.
    """

    option: Option
    settled: bool
    share: float
    bound: float
    """Dollars per hour over its share that it cannot undercut: no replica serves more than when all of them run."""
    exact: float
    """The same with replicas that need not be whole."""


def screen(question: Question, sizer: Sizer, found: Iterable[Option], tick: Callable[[], None]) -> list[Screened]:
    """Judge options in closed form at the slow end, and size those that may be the cheapest or the fastest.

    What cannot serve the smallest share is counted out, and so is what must cost more than others of its GPU type and
    quality: goodput and replica count of every option whose bound is below the best cost found are settled.
    """
    groups: dict[tuple[str, float], list[Promise]] = defaultdict(list)
    for option in found:
        tick()
        if not refused(question, sizer, option, SHARES[-1] * question.requests.rate):
            promise = _promise(question, option, sizer.capacity(option) * option.most, settled=False)
            groups[option.configuration.gpu, option.quality].append(promise)
    screened: list[Screened] = []
    for name in sorted(groups):
        screened += _sized(question, sizer, groups[name])
    return screened


def _promise(question: Question, option: Option, reached: float, *, settled: bool) -> Promise:
    rate = question.requests.rate
    share = next(share for share in SHARES if share * rate <= reached)
    each = min(question.prices[pool.name] for pool in standing(question, option, 1)) * option.configuration.gpus
    needed = share * rate * option.most / reached
    bound = each * max(1, math.ceil(needed - 1e-9)) / share
    return Promise(option=option, settled=settled, share=share, bound=bound, exact=each * needed / share)


def _settled(question: Question, sizer: Sizer, promise: Promise) -> Promise | None:
    """A promise by the option's goodput; None where it cannot even serve the smallest share."""
    if falls_short(question, sizer, promise.option, SHARES[-1] * question.requests.rate):
        return None
    return _promise(question, promise.option, sizer.goodput(promise.option, promise.option.most), settled=True)


def _by_bound(promise: Promise) -> tuple[float, float, float, tuple[int, int]]:
    return -promise.share, promise.bound, promise.exact, _limits(promise.option)


def _sized(question: Question, sizer: Sizer, promises: list[Promise]) -> Iterator[Screened]:
    """Size the options of one GPU type and quality, by their bounds, until no other can matter.

    A promise that is not settled yet is at its best: it comes again in its place once it is, if it still may matter.
    """
    best, shapes = math.inf, Counter[str]()
    fast, promises = _fastest(question, sizer, promises)
    queue = _Queue(promises, _by_bound)
    for promise in queue:
        name = str(promise.option.configuration)
        enough = shapes[name] >= TRIED or (not shapes[name] and len(shapes) >= PER_PLACE)
        if promise.bound >= best and enough and promise.option not in fast:
            said = "others of this GPU type and quality cost less"
            numbers = {"cost": promise.bound, "cost_limit": best}
            question.tally.reject(name, "dominated", said, nearest=numbers, judged=promise.settled)
        elif not promise.settled:
            queue.add(_settled(question, sizer, promise))
        elif (sized := _screened(question, sizer, promise)) is not None:
            shapes[name] += 1
            best = min(best, sized.cost)
            yield sized


def _fastest(question: Question, sizer: Sizer, promises: list[Promise]) -> tuple[set[Option], list[Promise]]:
    """Where latency is the goal, the options that answer an idle replica's request soonest; and all promises."""
    if question.wish.intent.goal not in LATENCY_GOALS:
        return set(), promises
    queue = _Queue(promises, lambda p: (-p.share, _idle(question, sizer, p.option), p.bound, _limits(p.option)))
    found: list[Promise] = []
    for promise in queue:
        if promise.settled:
            found.append(promise)
        else:
            queue.add(_settled(question, sizer, promise))
        if len(found) == BY_LATENCY * PER_SHAPE:
            break
    return {promise.option for promise in found}, [*found, *queue.left]


class _Queue:
    """Promises in an order, more of which may come while they are taken."""

    def __init__(self, promises: Iterable[Promise], rank: Callable[[Promise], tuple[Any, ...]]) -> None:
        self._rank, self._count = rank, itertools.count()
        self._heap = [(rank(promise), next(self._count), promise) for promise in promises]
        heapq.heapify(self._heap)

    def __iter__(self) -> Iterator[Promise]:
        while self._heap:
            yield heapq.heappop(self._heap)[2]

    def add(self, promise: Promise | None) -> None:
        """Put a promise in its place; None is nothing."""
        if promise is not None:
            heapq.heappush(self._heap, (self._rank(promise), next(self._count), promise))

    @property
    def left(self) -> list[Promise]:
        """Those not taken yet."""
        return [promise for *_, promise in self._heap]


def _screened(question: Question, sizer: Sizer, promise: Promise) -> Screened | None:
    option, rate = promise.option, question.requests.rate
    replicas = sizer.least(option, promise.share * rate)
    if replicas is None:
        return None
    each = min(question.prices[pool.name] for pool in standing(question, option, replicas)) * option.configuration.gpus
    return Screened(
        option=option,
        share=promise.share,
        replicas=replicas,
        cost=each * replicas / promise.share,
        exact=each * replicas * rate / sizer.goodput(option, replicas),
    )


def standing(question: Question, option: Option, replicas: int) -> list[NodePool]:
    """Pools of the option's GPU type that can hold this many replicas of it."""
    place, configuration = option.place, option.configuration
    return [pool for pool in place.pools if replicas_in(question.wish, pool, place, configuration) >= replicas]


def pick(question: Question, sizer: Sizer, screened: list[Screened]) -> list[Screened]:
    """The options worth a closer look: of each GPU type the cheapest, the fastest, the best of each quality."""
    picked: dict[int, Screened] = {}
    for place in question.places:
        here = [s for s in screened if s.option.place is place]
        here.sort(key=lambda s: (-s.share, s.cost, s.exact, _limits(s.option)))
        for s in _varied(here, PER_PLACE):
            picked[id(s)] = s
        for s in _varied(sorted(here, key=lambda s: (-s.share, s.exact, _limits(s.option))), PER_SHAPE):
            picked[id(s)] = s
        for quality in sorted({s.option.quality for s in here}):
            for s in _varied([s for s in here if s.option.quality == quality], PER_QUALITY):
                picked[id(s)] = s
        if question.wish.intent.goal in LATENCY_GOALS:
            fast = sorted(here, key=lambda s: (-s.share, _idle(question, sizer, s.option), s.cost, _limits(s.option)))
            for s in _varied(fast, BY_LATENCY):
                picked[id(s)] = s
    ordered = sorted(picked.values(), key=_rank)
    _count_dropped(question, screened, ordered)
    return ordered


def _count_dropped(question: Question, screened: list[Screened], picked: list[Screened]) -> None:
    """Count what was judged and not picked, with what it costs beside the best of its GPU type."""
    kept = {id(s) for s in picked}
    best: dict[str, Screened] = {}
    for s in picked:
        best.setdefault(s.option.configuration.gpu, s)
    for s in sorted(screened, key=_rank):
        if id(s) not in kept:
            least = best[s.option.configuration.gpu]
            said = f"{least.option.configuration} x{least.replicas} serves the same for less"
            numbers = {"cost": s.cost, "cost_limit": least.cost}
            question.tally.reject(str(s.option.configuration), "dominated", said, nearest=numbers, judged=True)


def _varied(ranked: list[Screened], most: int) -> list[Screened]:
    """The first `most` of a ranking, at most `PER_SHAPE` that differ in batch limits alone."""
    seen: Counter[str] = Counter()
    chosen: list[Screened] = []
    for screened in ranked:
        name = str(screened.option.configuration)
        if len(chosen) < most and seen[name] < PER_SHAPE:
            seen[name] += 1
            chosen.append(screened)
    return chosen


def _rank(screened: Screened) -> tuple[float, float, float, str, tuple[int, int]]:
    name = str(screened.option.configuration)
    return (-screened.share, screened.cost, screened.exact, name, _limits(screened.option))


def _limits(option: Option) -> tuple[int, int]:
    configuration = option.configuration
    return configuration.max_num_seqs, configuration.max_num_batched_tokens


def _idle(question: Question, sizer: Sizer, option: Option) -> float:
    """Seconds of a mean request on an idle replica, slow end."""
    idle = idle_latency(question, sizer, option)
    return idle["ttft"] + idle["tpot"] * (float(question.requests.output.mean()) - 1)
