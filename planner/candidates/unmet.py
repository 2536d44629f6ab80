"""Unmet: the nearest change of each dimension that alone would make an intent feasible, all other wishes held.

Every dimension is answered by the strategy, collocated or disaggregated as far as the intent allows both, that comes
nearest when that one wish is dropped; the value is checked by simulation (loosened in small steps until it holds)
before it is said. What does not help alone is left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from catalog.cluster import Cluster, NodePool
from catalog.gpus import GPU
from catalog.models import Model
from catalog.predictors import Predictor
from planner.candidates.asking import QualityOf, ask
from planner.candidates.exploring import Progress, explore
from planner.candidates.judge import Judge, Method
from planner.candidates.options import Facts, Option, Question, options, replicas_in
from planner.candidates.pairs import Pair, goodput, size, verified
from planner.candidates.sizing import Sizer
from planner.candidates.verify import covers, resized
from planner.candidates.ways import Way, affordable, affords, apart, grown, nodes_for, splits
from planner.intents import SLO, Intent
from planner.memory import Memory
from planner.plan.nouns import Relaxation
from planner.strategies import Candidate, Configuration, Rejection
from planner.workload import Requests

LIMITS = ("ttft", "tpot", "e2e")
#: The sides of a pair that decide each limit, by the limit that such a side has alone.
QUICK = {"ttft": ("ttft",), "tpot": ("tpot",), "e2e": ("ttft", "tpot")}
#: A limit that closed form says is reached is loosened so until it holds in simulation.
STEPS = (1.0, 1.02, 1.05, 1.1, 1.2, 1.4, 2.0)
#: Strategies tried per dimension and kind, nearest first.
TRIES = 4
#: Pools are imagined with so many times their nodes to see how many are missing.
ENLARGED = 16
#: A limit that nothing misses, seconds: stands for none where pairs are sized, which needs a limit.
LOOSE_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Near:
    """A strategy that is feasible but for one dimension, and how far that one is."""

    way: Way
    value: float


def nearest_relaxations(  # noqa: PLR0913 - the inputs of the whole search
    intent: Intent,
    *,
    cluster: Cluster,
    gpus: Mapping[str, GPU],
    model: Model,
    requests: Requests,
    predictor_of: Callable[[Configuration], Predictor | Rejection],
    memory_of: Callable[[Configuration], Memory | Rejection],
    prices: Mapping[str, float],
    quality_of: QualityOf,
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> tuple[Relaxation, ...]:
    """Answer, for an intent that no strategy serves whole, how far each wish alone is from feasible.

    Takes what `search` takes. `rate` is what can be served, `ttft`, `tpot` and `e2e` (at the SLO's quantile and the
    slow end) what can be reached, `budget` what it costs, `quality` what is left, `nodes` how many are missing. Where
    no single wish helps, the limits of the SLO that have to give way together; empty for an intent that something
    serves.
    """
    facts = Facts(predictor_of=predictor_of, memory_of=memory_of)

    def asked(wish: Intent, place: Cluster = cluster) -> Question:
        return ask(
            wish,
            cluster=place,
            gpus=gpus,
            model=model,
            requests=requests,
            facts=facts,
            judge=judge,
            prices=prices,
            quality_of=quality_of,
        )

    limits = [limit for limit in LIMITS if intent.slo is not None and getattr(intent.slo, limit) is not None]
    wishes = 2 + len(limits) + (intent.budget is not None) + (intent.quality > 0)
    done = itertools.count()

    def told() -> None:
        if progress is not None:
            progress("wishes relaxed", next(done), wishes)

    told()
    question = asked(intent)
    found = tuple(options(question))
    answers: list[Relaxation] = [*_rate(question, found)]
    for limit in limits:
        told()
        answers += _limit(question, found, limit)
    if intent.budget is not None:
        told()
        free = explore(
            intent.model_copy(update={"budget": None}),
            cluster=cluster,
            gpus=gpus,
            model=model,
            requests=requests,
            facts=facts,
            prices=prices,
            quality_of=quality_of,
            judge=judge,
        )
        answers += _budget(free.candidates, intent.budget)
    if intent.quality > 0:
        told()
        answers += _quality(asked(intent.model_copy(update={"quality": 0.0})), intent.quality)
    told()
    larger = [pool.model_copy(update={"nodes": ENLARGED * max(1, pool.nodes)}) for pool in cluster.pools]
    answers += _nodes(asked(intent, cluster.model_copy(update={"pools": tuple(larger)})), cluster)
    told()
    return tuple(answers or (_together(question, found) if intent.slo is not None else ()))


def _collocated(question: Question, found: Sequence[Option]) -> Sequence[Option]:
    """The options that may serve prompts and outputs on the same replicas."""
    return () if question.wish.intent.disaggregated == "required" else found


def _sizer(question: Question) -> Sizer:
    slo = question.wish.intent.slo
    return Sizer(judge=question.judge, requests=question.requests, slo=slo, tally=question.tally)


def _method(question: Question) -> Method:
    return "simulated" if question.replay is None else "replayed"


def _first_few(*kinds: Sequence[Near]) -> list[Near]:
    """The nearest of each kind, together by value."""
    few = [near for kind in kinds for near in sorted(kind, key=_order)[:TRIES]]
    return sorted(few, key=_order)


def _order(near: Near) -> tuple[float, str]:
    return near.value, str(near.way)


def _rate(question: Question, found: tuple[Option, ...]) -> Iterator[Relaxation]:
    """The highest rate that some strategy serves with all the replicas that it may have."""
    sizer, single, double = _sizer(question), [], []
    for option in _collocated(question, found):
        replicas = affordable(question, option)
        if replicas > 0 and (rate := sizer.goodput(option, replicas)) > 0:
            single.append(Near(way=Way(of=option, counts=(replicas,)), value=-rate))
    for pair in apart(question, found):
        for counts in splits(question, pair):
            rate = goodput(question, pair, counts)
            double += [Near(way=Way(of=pair, counts=counts), value=-rate)] * (rate > 0)
    best = 0.0
    for near in _first_few(single, double):
        share = min(1.0, -near.value / question.requests.rate)
        got = near.way.estimate(question, share=share, method=_method(question))
        best = max(best, covers(question, got, share) * share * question.requests.rate)
    wanted = question.requests.rate
    if 0 < best < wanted:
        value = _rounded(best, math.floor)
        text = f"serve {value:g} of {wanted:g} requests/s"
        yield Relaxation(dimension="rate", from_value=wanted, to_value=value, unit="/s", text=text)


def _limit(question: Question, found: tuple[Option, ...], limit: str) -> Iterator[Relaxation]:
    """The tightest limit that some strategy keeps at the whole rate, the other limits and the budget held."""
    slo = question.wish.intent.slo
    assert slo is not None  # noqa: S101 - the caller has looked
    freed = _with_slo(question, _without(slo, limit))
    sizer, rate = _sizer(freed), question.requests.rate
    single = []
    for option in _one_per_shape(_collocated(question, found), sizer):
        replicas = affordable(question, option)
        if replicas > 0 and sizer.goodput(option, replicas) >= rate:
            way = Way(of=option, counts=(replicas,))
            single.append(Near(way=way, value=way.reaches(freed)[limit]))
    double = _apart_without(_with_slo(question, slo.model_copy(update={limit: LOOSE_S})), found, limit)
    asked_for = float(getattr(slo, limit))
    tried = [
        (_rounded(max(near.value, asked_for) * step, math.ceil), at, near.way)
        for at, near in enumerate(_first_few(single, double))
        if math.isfinite(near.value)
        for step in STEPS
    ]
    for value, _, way in sorted(tried, key=lambda entry: entry[:2]):
        if way.holds(question, slo.model_copy(update={limit: value})):
            if value > asked_for:  # else it is within reach
                text = f"allow {limit.upper()} of {value * 1e3:g} ms instead of {asked_for * 1e3:g} ms ({way})"
                yield Relaxation(dimension=limit, from_value=asked_for, to_value=value, unit="s", text=text)  # type: ignore[arg-type]
            return


def _apart_without(freed: Question, found: tuple[Option, ...], limit: str) -> list[Near]:
    """Pairs that carry the whole rate without a limit, with all the replicas that help it, and what they reach."""
    near, side = [], 0 if limit == "ttft" else 1
    for pair in apart(freed, found, quick=QUICK[limit], by=limit):
        counts = size(freed, pair, freed.requests.rate)
        if counts is not None and affords(freed, pair, counts):
            way = Way(of=pair, counts=grown(freed, pair, grown(freed, pair, counts, side), 1 - side))
            near.append(Near(way=way, value=way.reaches(freed)[limit]))
    return near


def _together(question: Question, found: tuple[Option, ...]) -> Iterator[Relaxation]:
    """The limits that must give way at once: those of the strategy that misses them by the least common factor."""
    slo = question.wish.intent.slo
    assert slo is not None  # noqa: S101 - the caller has looked
    asked_for = {limit: float(value) for limit in LIMITS if (value := getattr(slo, limit)) is not None}
    single, double = [], []
    for option in _one_per_shape(_collocated(question, found), _sizer(_with_slo(question, None))):
        replicas = affordable(question, option)
        if replicas > 0:
            single.append(_missing(question, Way(of=option, counts=(replicas,)), asked_for))
    loose = _with_slo(question, slo.model_copy(update=dict.fromkeys(asked_for, LOOSE_S)))
    for pair in apart(loose, found, quick=LIMITS[:2]):
        double += [_missing(question, Way(of=pair, counts=counts), asked_for) for counts in splits(question, pair)]
    for near in _first_few(single, double)[:TRIES]:
        if not math.isfinite(near.value):
            return
        reached = near.way.reaches(question)
        for step in STEPS:
            limits = {x: _rounded(step * reached[x], math.ceil) for x in asked_for if step * reached[x] > asked_for[x]}
            if near.way.holds(question, slo.model_copy(update=limits)):
                yield from _jointly(limits, asked_for, str(near.way))
                return


def _missing(question: Question, way: Way, asked_for: Mapping[str, float]) -> Near:
    reached = way.reaches(question)
    return Near(way=way, value=max(reached[limit] / asked_for[limit] for limit in asked_for))


def _jointly(limits: Mapping[str, float], asked_for: Mapping[str, float], name: str) -> Iterator[Relaxation]:
    for limit, value in limits.items():
        others = " and ".join(other.upper() for other in limits if other != limit)
        text = f"allow {limit.upper()} of {value * 1e3:g} ms instead of {asked_for[limit] * 1e3:g} ms"
        text += f", together with {others}" * bool(others) + f" ({name})"
        yield Relaxation(dimension=limit, from_value=asked_for[limit], to_value=value, unit="s", text=text)  # type: ignore[arg-type]


def _without(slo: SLO, limit: str) -> SLO | None:
    others = [name for name in LIMITS if name != limit and getattr(slo, name) is not None]
    return slo.model_copy(update={limit: None}) if others else None


def _with_slo(question: Question, slo: SLO | None) -> Question:
    return replace(question, wish=replace(question.wish, intent=question.wish.intent.model_copy(update={"slo": slo})))


def _one_per_shape(found: Sequence[Option], sizer: Sizer) -> list[Option]:
    """Of each shape the batch limits with the highest goodput."""
    best: dict[str, Option] = {}
    for option in found:
        name = str(option.configuration)
        if option.most > 0 and (
            name not in best or sizer.goodput(option, option.most) > sizer.goodput(best[name], best[name].most)
        ):
            best[name] = option
    return [best[name] for name in sorted(best)]


def _cheapest(question: Question, found: tuple[Option, ...]) -> list[Near]:
    """Collocated strategies that serve the whole rate, with what they cost."""
    sizer, near = _sizer(question), []
    for option in _collocated(question, found):
        replicas = sizer.least(option, question.requests.rate)
        if replicas is not None and replicas <= affordable(question, option):
            price = min(
                question.prices[pool.name]
                for pool in option.place.pools
                if replicas_in(question.wish, pool, option.place, option.configuration) >= replicas
            )
            running = replicas + question.wish.intent.availability.spares
            cost = price * option.configuration.gpus * running
            near.append(Near(way=Way(of=option, counts=(replicas,)), value=cost))
    return near


def _cheapest_apart(question: Question, found: tuple[Option, ...]) -> list[Near]:
    """Pairs that serve the whole rate, with what they cost."""
    near, spares = [], question.wish.intent.availability.spares
    for pair in apart(question, found):
        counts = size(question, pair, question.requests.rate)
        if counts is not None and affords(question, pair, counts):
            cost = pair.cost(question, (counts[0] + spares, counts[1] + spares))
            near.append(Near(way=Way(of=pair, counts=counts), value=cost))
    return near


def _verified(question: Question, near: Sequence[Near], method: Method) -> Iterator[Way]:
    """Those that hold by a method, resized."""
    for one in near:
        if isinstance(one.way.of, Pair):
            counts = (one.way.counts[0], one.way.counts[1])
            pair = verified(question, one.way.of, counts, share=1.0, method=method)
            if pair is not None and affords(question, pair.pair, pair.counts):
                yield replace(one.way, counts=pair.counts)
        else:
            sized = resized(question, one.way.of, one.way.counts[0], share=1.0, method=method)
            if sized is not None and sized.replicas <= affordable(question, one.way.of):
                yield replace(one.way, counts=(sized.replicas,))


def _budget(candidates: Sequence[Candidate], budget: float) -> Iterator[Relaxation]:
    """The price of the cheapest strategy for the whole rate, spares and disaggregated ones included."""
    whole = [candidate for candidate in candidates if candidate.share >= 1.0]
    least = min(whole, key=lambda candidate: candidate.cost_per_hour, default=None)
    if least is not None and least.cost_per_hour > budget:
        value = math.ceil(least.cost_per_hour * 100 - 1e-6) / 100
        text = f"allow {value:.2f} USD/h instead of {budget:.2f} USD/h ({least.strategy})"
        yield Relaxation(dimension="budget", from_value=budget, to_value=value, unit="USD/h", text=text)


def _quality(question: Question, floor: float) -> Iterator[Relaxation]:
    """The best quality below the floor that something serves the whole rate with."""
    found = tuple(option for option in options(question) if option.quality < floor)
    kinds = (_cheapest(question, found), _cheapest_apart(question, found))
    few = [one for kind in kinds for one in sorted(kind, key=lambda one: (-one.way.quality, *_order(one)))[:TRIES]]
    few.sort(key=lambda one: (-one.way.quality, *_order(one)))
    best = next(_verified(question, few, _method(question)), None)
    if best is not None:
        value, (named, _) = best.quality, best.sides[0]
        name = str(named) if len(best.sides) == 1 else str(best)
        text = f"accept {value:.4g} of the unquantized score instead of {floor:.4g} ({name})"
        yield Relaxation(dimension="quality", from_value=floor, to_value=value, unit="", text=text)


def _nodes(question: Question, cluster: Cluster) -> Iterator[Relaxation]:
    """The cheapest addition of nodes to one pool that would do."""
    found = tuple(options(question))
    few = _first_few(_cheapest(question, found), _cheapest_apart(question, found))
    ways = [
        (more * here.gpus_per_node * here.engines_per_gpu * question.prices[here.name], here.name, more, str(way))
        for way in _verified(question, few, "closed_form")
        for here, more in _lacking(question, way, cluster)
    ]
    if ways:
        _, name, more, what = min(ways)
        have = cluster.pool(name).nodes
        text = f"add {more} node{'s' * (more > 1)} to {name} ({what})"
        yield Relaxation(
            dimension="nodes", from_value=float(have), to_value=float(have + more), unit="nodes", text=text
        )


def _lacking(question: Question, way: Way, cluster: Cluster) -> Iterator[tuple[NodePool, int]]:
    """Pools that with so many more nodes, and no other change, hold a strategy and its spares."""
    spares = question.wish.intent.availability.spares
    sides = [(configuration, n + spares) for configuration, n in way.sides]
    for names in way.standings:
        wanted = {name: [side for side, at in zip(sides, names, strict=True) if at == name] for name in names}
        short = {}
        for name, held in wanted.items():
            here = cluster.pool(name)
            more = nodes_for(held, here.gpus_per_node * here.engines_per_gpu) - here.gpus // here.gpus_per_node
            if more > 0:
                short[name] = more
        if len(short) == 1:
            ((name, more),) = short.items()
            yield cluster.pool(name), more


def _rounded(value: float, towards: Callable[[float], float]) -> float:
    """Three significant digits, up or down."""
    scale = 10.0 ** (2 - math.floor(math.log10(value)))
    return towards(value * scale * (1 + 1e-12 if towards is math.floor else 1 - 1e-12)) / scale
