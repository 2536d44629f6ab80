"""Verify: picked options simulated (or replayed) at their replica counts, and resized where the screen was wrong."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from planner.candidates.judge import Engines, Method
from planner.candidates.options import Option, Question
from planner.candidates.screen import LATENCY_GOALS, SHARES, Screened
from planner.candidates.sizing import ROUTER, STABLE, Sizer
from planner.intents import SLO
from planner.queueing import Transfer
from planner.strategies import Collocated, Estimate, Pool, Strategy
from planner.workload import Requests

#: More replicas than needed, tried where latency is the goal.
FACTORS = (1.25, 1.5, 2.0, 3.0, 4.0)
#: Latency must fall by this share for more replicas to be worth a candidate.
MATERIAL = 0.03
#: Options, best first, that are tried with more replicas.
FASTER = 10
#: Replicas are added by this part of them first, then by twice as many, at most so many times.
STEP, GROWN = 0.05, 4
#: Replicas that one simulation holds.
MOST_REPLICAS = 16
#: Verified options of one GPU type beyond which a dearer one is not looked at.
ENOUGH = 2
#: Dollars per hour that make no difference.
CENT = 0.01
#: Options whose trace is replayed.
REPLAYED = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sized:
    """An option at a replica count that carries a share of the rate, and what it does there."""

    option: Option
    share: float
    replicas: int
    estimate: Estimate


@lru_cache(maxsize=128)
def portion(requests: Requests, share: float) -> Requests:
    """A share of the load: the same requests and arrival law, thinner; a replay is stretched."""
    if share == 1.0:
        return requests
    arrival = None if requests.arrival_s is None else requests.arrival_s / share
    return replace(requests, rate=requests.rate * share, arrival_s=arrival)


def estimated(question: Question, option: Option, replicas: int, *, share: float, method: Method) -> Estimate:
    """What a collocated option does with a share of the load; independent of the node pool it stands on."""
    name, configuration = option.place.pools[0].name, option.configuration

    def strategy(counts: tuple[int, ...]) -> Collocated:
        return Collocated(pool=Pool(configuration=configuration, replicas=counts[0], node_pool=name), router=ROUTER)

    return estimated_at(question, strategy, (option.engine,), (replicas,), share=share, method=method)


def estimated_at(  # noqa: PLR0913 - keywords
    question: Question,
    strategy: Callable[[tuple[int, ...]], Strategy],
    engines: Engines,
    counts: tuple[int, ...],
    *,
    share: float,
    method: Method,
) -> Estimate:
    """What a strategy does at replica counts with a share of the load, whatever the counts are.

    Beyond `MOST_REPLICAS` in all a simulation takes a part of them with the same part of the load, and scales the
    goodput back: a bound on the safe side, since a router that sees more replicas never smooths less.
    """
    load = question.replay if method == "replayed" and question.replay is not None else question.requests
    slo, part = question.wish.intent.slo, 1.0
    if method != "closed_form":
        counts, part = thinned(counts)
    found = question.judge.estimate(strategy(counts), engines, portion(load, share * part), slo, method=method)
    if part == 1.0:
        return found
    notes = (*found.notes, f"{method} with {sum(counts)} replicas at {part:.0%} of the load, goodput scaled")
    return replace(found, goodput=found.goodput / part, goodput_low=found.goodput_low / part, notes=notes)


def thinned(counts: tuple[int, ...]) -> tuple[tuple[int, ...], float]:
    """Counts that one simulation holds, and the part of the load that goes with them: no side has more than its part.

    The smaller side of a pair keeps at least one replica, and that part of the other.
    """
    if sum(counts) <= MOST_REPLICAS:
        return counts, 1.0
    least = min(counts)
    part = max(1, least * MOST_REPLICAS // sum(counts)) / least
    return tuple(int(n * part + 1e-9) for n in counts), part


def holds(  # noqa: PLR0913 - keywords
    question: Question,
    slow: Engines,
    counts: tuple[int, ...],
    slo: SLO,
    *,
    transfer: Transfer | None = None,
    share: float = 1.0,
) -> bool:
    """Whether engines at their slow end keep an SLO with a share of the rate, by one simulation or replay."""
    fewer, part = thinned(counts)
    load = portion(question.requests if question.replay is None else question.replay, share * part)
    return question.judge.holds(slow, load, slo, replicas=fewer, transfer=transfer)


def resized(question: Question, option: Option, replicas: int, *, share: float, method: Method) -> Sized | None:
    """The fewest replicas near `replicas` whose goodput by `method` covers the share; None where no count does.

    The screen was close, and an estimate takes ten simulations: one each tells which count holds before it is made.
    """
    slo = question.wish.intent.slo

    @cache
    def sized(n: int) -> Sized | None:
        return _sized(question, option, n, share=share, method=method)

    def kept(n: int) -> bool:
        if slo is None or method == "closed_form":
            return sized(n) is not None
        return holds(question, (option.slow,), (n,), slo, share=share)

    grown = fewest(kept, replicas, option.most)
    best = None if grown is None else sized(grown)
    if best is None or best.replicas > replicas:
        return best
    fewer, spare = replicas, covers(question, best.estimate, share)
    while fewer > 1 and spare * (fewer - 1) >= replicas and kept(fewer - 1):
        fewer -= 1
    return sized(fewer) or best


def _sized(question: Question, option: Option, replicas: int, *, share: float, method: Method) -> Sized | None:
    found = estimated(question, option, replicas, share=share, method=method)
    if covers(question, found, share) < 1:
        return None
    return Sized(option=option, share=share, replicas=replicas, estimate=found)


def fewest(kept: Callable[[int], bool], least: int, most: int) -> int | None:
    """The fewest replicas from `least` on that keep the SLO: in steps that double, then halved; None where none do."""
    low, high, step = least - 1, least, math.ceil(STEP * least)
    for _ in range(1 + GROWN):
        if kept(high):
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if kept(middle) else (middle, high)
            return high
        if high >= most:
            return None
        low, high, step = high, min(most, high + step), 2 * step
    return None


def covers(question: Question, estimate: Estimate, share: float) -> float:
    """Goodput at the slow end over the rate to serve; without an SLO, how far utilisation is from its stable limit.

    What comes within rounding of the rate covers it.
    """
    if question.wish.intent.slo is None:
        return STABLE / max(estimate.utilisation, 1e-9) if estimate.utilisation > STABLE else 1.0
    return (1.0 + 1e-9) * estimate.goodput_low / (share * question.requests.rate)


def verify(
    question: Question, sizer: Sizer, picked: list[Screened], *, most: int, tick: Callable[[], None]
) -> Iterator[Sized]:
    """Yield what the best `most` options do: at the largest share verified, at smaller ones in closed form.

    `most` = 0 leaves all of them in closed form. Where there is a trace it is replayed, else the law is simulated. A
    smaller share takes at least its part of the verified replicas, since goodput per replica does not rise when there
    are fewer. An option that cannot become the cheapest or the best of its GPU type any more is counted out.
    """
    method = method_of(question, most)
    settled: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for rank, screened in enumerate(_in_turn(picked)[: closer_look(question, most, len(picked))]):
        tick()
        option, tally = screened.option, question.tally
        name, before = str(option.configuration), settled[option.configuration.gpu]
        if method != "closed_form" and _hopeless(question, screened, before):
            tally.reject(name, "dominated", "verified ones of this GPU type cost less", judged=True)
            continue
        full = resized(question, option, screened.replicas, share=screened.share, method=method)
        if full is None:
            said = f"{option.most} replicas fall short of the rate when {method}"
            tally.reject(name, "goodput_below_rate", said, judged=True)
            continue
        if full.share == 1.0:
            before.append((screened.cost * full.replicas / screened.replicas, option.quality))
        yield full
        yield from _smaller(question, sizer, full)
        if question.wish.intent.goal in LATENCY_GOALS and full.share == 1.0 and rank < FASTER:
            yield from _faster(question, full, method)


def _hopeless(question: Question, screened: Screened, settled: list[tuple[float, float]]) -> bool:
    """Whether enough verified options of the GPU type cost no more, one replica less or not, and keep the quality."""
    if question.wish.intent.goal in LATENCY_GOALS:
        return False
    least = screened.cost * max(1, screened.replicas - 1) / screened.replicas
    others = [cost for cost, quality in settled if quality >= screened.option.quality]
    cheaper, equal = sum(cost < least - CENT for cost in others), sum(cost <= least + CENT for cost in others)
    return cheaper >= ENOUGH or equal >= 2 * ENOUGH


def method_of(question: Question, simulated: int) -> Method:
    """How strategies are decided: measured arrivals are replayed where there are any; 0 simulated: in closed form."""
    if simulated == 0:
        return "closed_form"
    return "simulated" if question.replay is None else "replayed"


def closer_look(question: Question, simulated: int, picked: int) -> int:
    """How many picked options are verified: replays are longer than simulations of a law."""
    most = min(simulated, REPLAYED) if question.replay is not None else simulated
    return min(picked, most) if simulated else picked


def _in_turn(picked: list[Screened]) -> list[Screened]:
    """The best of each GPU type, then the second best of each, and so on: whatever is cut off, every type stays."""
    queues: dict[str, deque[Screened]] = defaultdict(deque)
    for screened in picked:
        queues[screened.option.configuration.gpu].append(screened)
    ordered: list[Screened] = []
    while queues:
        ordered += [queues[gpu].popleft() for gpu in sorted(queues)]
        queues = defaultdict(deque, {gpu: rest for gpu, rest in queues.items() if rest})
    return ordered


def _smaller(question: Question, sizer: Sizer, full: Sized) -> Iterator[Sized]:
    rules = question.wish.intent.availability
    extra = (rules.share,) if rules.survive == "failure_domain" else ()
    for share in sorted({*SHARES, *extra}, reverse=True):
        if share >= full.share:
            continue
        least = sizer.least(full.option, share * question.requests.rate)
        if least is None:
            continue
        replicas = max(least, math.ceil(full.replicas * share / full.share))
        sized = _sized(question, full.option, replicas, share=share, method="closed_form")
        if sized is not None:
            yield sized


def _faster(question: Question, full: Sized, method: Method) -> Iterator[Sized]:
    """More replicas than needed, while a slow request gets faster by 3 % or more: the least and the most of them."""
    before = estimated(question, full.option, full.replicas, share=1.0, method="closed_form").e2e.p90
    better: list[int] = []
    for factor in FACTORS:
        replicas = min(full.option.most, math.ceil(full.replicas * factor))
        if replicas in {full.replicas, *better}:
            continue
        now = estimated(question, full.option, replicas, share=1.0, method="closed_form").e2e.p90
        if now > before * (1 - MATERIAL):
            break
        before = now
        better.append(replicas)
    for replicas in sorted({*better[:1], *better[-1:]}):
        exact = estimated(question, full.option, replicas, share=1.0, method=method)
        yield Sized(option=full.option, share=1.0, replicas=replicas, estimate=exact)
