"""Unmet: the nearest change of each dimension that alone would make an intent feasible, all other wishes held.

Every dimension is answered by the strategy that comes nearest when that one wish is dropped, and the value is checked
by simulation (loosened in small steps until it holds) before it is said. What does not help alone is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from catalog.cluster import Cluster
from catalog.gpus import GPU
from catalog.models import Model
from catalog.predictors import Predictor
from planner.candidates.asking import QualityOf, ask
from planner.candidates.exploring import explore
from planner.candidates.judge import Judge, Method
from planner.candidates.options import Facts, Option, Question, options, replicas_in
from planner.candidates.sizing import Sizer
from planner.candidates.verify import covers, estimated, holds, resized
from planner.intents import SLO, Intent
from planner.memory import Memory
from planner.plan.nouns import Relaxation
from planner.strategies import Candidate, Configuration, Rejection
from planner.workload import Requests

LIMITS = ("ttft", "tpot", "e2e")
#: A limit that closed form says is reached is loosened so until it holds in simulation.
STEPS = (1.0, 1.02, 1.05, 1.1, 1.2, 1.4, 2.0)
WIDE_STEPS = (1.0, 1.1, 1.3, 2.0)
#: Strategies tried per dimension, nearest first.
TRIES = 4
#: Pools are imagined with so many times their nodes to see how many are missing.
ENLARGED = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Near:
    """A strategy that is feasible but for one dimension."""

    option: Option
    replicas: int
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
) -> tuple[Relaxation, ...]:
    """Answer, for an intent that no strategy serves whole, how far each wish alone is from feasible.

    Takes what `search` takes. `rate` is what can be served, `ttft`, `tpot` and `e2e` (at the SLO's quantile and the
    slow end) what can be reached, `budget` what it costs, `quality` what is left, `nodes` how many are missing. Where
    no single wish helps, the limits of the SLO that have to give way together; empty for an intent that something
    serves, and for one that requires disaggregation, which is not looked into.
    """
    if intent.disaggregated == "required":
        return ()
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

    question = asked(intent)
    found = tuple(options(question))
    answers: list[Relaxation] = [*_rate(question, found)]
    for limit in LIMITS:
        if intent.slo is not None and getattr(intent.slo, limit) is not None:
            answers += _limit(question, found, limit)
    if intent.budget is not None:
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
        answers += _quality(asked(intent.model_copy(update={"quality": 0.0})), intent.quality)
    larger = [pool.model_copy(update={"nodes": ENLARGED * max(1, pool.nodes)}) for pool in cluster.pools]
    answers += _nodes(asked(intent, cluster.model_copy(update={"pools": tuple(larger)})), cluster)
    return tuple(answers or (_together(question, found) if intent.slo is not None else ()))


def _affordable(question: Question, option: Option) -> int:
    """Most replicas that one pool can hold within the budget, spares left out."""
    budget, need = question.wish.intent.budget, option.configuration.gpus
    counts = [0]
    for pool in option.place.pools:
        room = replicas_in(question.wish, pool, option.place, option.configuration)
        price = question.prices[pool.name] * need
        counts.append(room if budget is None or price <= 0 else min(room, int(budget / price)))
    return max(counts) - question.wish.intent.availability.spares


def _sizer(question: Question) -> Sizer:
    slo = question.wish.intent.slo
    return Sizer(judge=question.judge, requests=question.requests, slo=slo, tally=question.tally)


def _method(question: Question) -> Method:
    return "simulated" if question.replay is None else "replayed"


def _rate(question: Question, found: tuple[Option, ...]) -> Iterator[Relaxation]:
    """The highest rate that some strategy serves with all the replicas that it may have."""
    sizer, near = _sizer(question), []
    for option in found:
        replicas = _affordable(question, option)
        if replicas > 0 and (rate := sizer.goodput(option, replicas)) > 0:
            near.append(Near(option=option, replicas=replicas, value=rate))
    near.sort(key=lambda n: (-n.value, str(n.option.configuration)))
    best = 0.0
    for n in near[:TRIES]:
        at = _share_of(question, n.value)
        share = min(1.0, at)
        got = estimated(question, n.option, n.replicas, share=share, method=_method(question))
        best = max(best, covers(question, got, share) * share * question.requests.rate)
    wanted = question.requests.rate
    if 0 < best < wanted:
        value = _rounded(best, math.floor)
        text = f"serve {value:g} of {wanted:g} requests/s"
        yield Relaxation(dimension="rate", from_value=wanted, to_value=value, unit="/s", text=text)


def _share_of(question: Question, rate: float) -> float:
    return rate / question.requests.rate


def _limit(question: Question, found: tuple[Option, ...], limit: str) -> Iterator[Relaxation]:
    """The tightest limit that some strategy keeps at the whole rate, the other limits and the budget held."""
    slo = question.wish.intent.slo
    assert slo is not None  # noqa: S101 - the caller has looked
    rest = _without(slo, limit)
    freed = _with_slo(question, rest)
    sizer = _sizer(freed)
    near = []
    for option in _one_per_shape(found, sizer):
        replicas = _affordable(question, option)
        if replicas > 0 and sizer.goodput(option, replicas) >= question.requests.rate:
            got = estimated(freed, replace(option, engine=option.slow), replicas, share=1.0, method="closed_form")
            value = {"ttft": got.ttft_high, "tpot": got.tpot_high, "e2e": got.e2e.p90}[limit]
            near.append(Near(option=option, replicas=replicas, value=value))
    near.sort(key=lambda n: (n.value, str(n.option.configuration)))
    asked_for = float(getattr(slo, limit))
    for n, step in ((n, step) for n in near[:TRIES] for step in STEPS):
        value = _rounded(max(n.value, asked_for) * step, math.ceil)
        if holds(question, n.option, n.replicas, slo.model_copy(update={limit: value})):
            if value <= asked_for:
                return  # it is within reach
            text = f"allow {limit.upper()} of {value * 1e3:g} ms instead of {asked_for * 1e3:g} ms"
            text += f" ({n.option.configuration} x{n.replicas})"
            yield Relaxation(dimension=limit, from_value=asked_for, to_value=value, unit="s", text=text)  # type: ignore[arg-type]
            return


def _together(question: Question, found: tuple[Option, ...]) -> Iterator[Relaxation]:
    """The limits that must give way at once: those of the strategy that misses them by the least common factor."""
    slo = question.wish.intent.slo
    assert slo is not None  # noqa: S101 - the caller has looked
    asked_for = {limit: float(value) for limit in LIMITS if (value := getattr(slo, limit)) is not None}
    near = []
    for option in _one_per_shape(found, _sizer(_with_slo(question, None))):
        replicas = _affordable(question, option)
        if replicas > 0:
            got = estimated(question, replace(option, engine=option.slow), replicas, share=1.0, method="closed_form")
            reached = {"ttft": got.ttft_high, "tpot": got.tpot_high, "e2e": got.e2e.p90}
            missed = max(reached[limit] / asked_for[limit] for limit in asked_for)
            near.append(
                (missed, str(option.configuration), Near(option=option, replicas=replicas, value=missed), reached)
            )
    for _, name, n, reached in sorted(near, key=lambda entry: entry[:2])[:TRIES]:
        if not math.isfinite(n.value):
            return
        for step in STEPS:
            limits = {x: _rounded(step * reached[x], math.ceil) for x in asked_for if step * reached[x] > asked_for[x]}
            if holds(question, n.option, n.replicas, slo.model_copy(update=limits)):
                for limit, value in limits.items():
                    others = " and ".join(other.upper() for other in limits if other != limit)
                    text = f"allow {limit.upper()} of {value * 1e3:g} ms instead of {asked_for[limit] * 1e3:g} ms"
                    text += f", together with {others}" * bool(others) + f" ({name} x{n.replicas})"
                    yield Relaxation(
                        dimension=limit,  # type: ignore[arg-type]
                        from_value=asked_for[limit],
                        to_value=value,
                        unit="s",
                        text=text,
                    )
                return


def _without(slo: SLO, limit: str) -> SLO | None:
    others = [name for name in LIMITS if name != limit and getattr(slo, name) is not None]
    return slo.model_copy(update={limit: None}) if others else None


def _with_slo(question: Question, slo: SLO | None) -> Question:
    return replace(question, wish=replace(question.wish, intent=question.wish.intent.model_copy(update={"slo": slo})))


def _one_per_shape(found: tuple[Option, ...], sizer: Sizer) -> list[Option]:
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
    """Strategies that serve the whole rate, by cost."""
    sizer, near = _sizer(question), []
    for option in found:
        replicas = sizer.least(option, question.requests.rate)
        if replicas is not None and replicas <= _affordable(question, option):
            price = min(
                question.prices[pool.name]
                for pool in option.place.pools
                if replicas_in(question.wish, pool, option.place, option.configuration) >= replicas
            )
            running = replicas + question.wish.intent.availability.spares
            near.append(Near(option=option, replicas=replicas, value=price * option.configuration.gpus * running))
    return sorted(near, key=lambda n: (n.value, str(n.option.configuration)))


def _verified(question: Question, near: list[Near], method: Method | None = None) -> Iterator[Near]:
    """The first few that hold in simulation (or by another method), resized."""
    for n in near[:TRIES]:
        sized = resized(question, n.option, n.replicas, share=1.0, method=method or _method(question))
        if sized is not None and sized.replicas <= _affordable(question, n.option):
            spares = question.wish.intent.availability.spares
            value = n.value * (sized.replicas + spares) / (n.replicas + spares)
            yield replace(n, replicas=sized.replicas, value=value)


def _budget(candidates: Sequence[Candidate], budget: float) -> Iterator[Relaxation]:
    """The price of the cheapest strategy for the whole rate, spares and disaggregated ones included."""
    whole = [candidate for candidate in candidates if candidate.share >= 1.0]
    least = min(whole, key=lambda candidate: candidate.cost_per_hour, default=None)
    if least is not None and least.cost_per_hour > budget:
        value = math.ceil(least.cost_per_hour * 100 - 1e-6) / 100
        text = f"allow {value:.2f} USD/h instead of {budget:.2f} USD/h ({least.strategy})"
        yield Relaxation(dimension="budget", from_value=budget, to_value=value, unit="USD/h", text=text)


def _quality(question: Question, floor: float) -> Iterator[Relaxation]:
    near = [n for n in _cheapest(question, tuple(options(question))) if n.option.quality < floor]
    near.sort(key=lambda n: (-n.option.quality, n.value, str(n.option.configuration)))
    best = next(_verified(question, near), None)
    if best is not None:
        value = best.option.quality
        text = f"accept {value:.4g} of the unquantized score instead of {floor:.4g} ({best.option.configuration})"
        yield Relaxation(dimension="quality", from_value=floor, to_value=value, unit="", text=text)


def _nodes(question: Question, cluster: Cluster) -> Iterator[Relaxation]:
    """The cheapest addition of nodes to one pool that would do."""
    ways: list[tuple[float, str, int, Near]] = []
    for n in _verified(question, _cheapest(question, tuple(options(question))), "closed_form"):
        for pool in n.option.place.pools:
            here = cluster.pool(pool.name)
            per_node = max(1, pool.gpus_per_node // n.option.configuration.gpus)
            nodes_each = max(1, -(-n.option.configuration.gpus // pool.gpus_per_node))
            running = n.replicas + question.wish.intent.availability.spares
            needed = -(-running // per_node) * nodes_each
            more = needed - here.gpus // here.gpus_per_node
            if more > 0:
                price = question.prices[pool.name] * here.engines_per_gpu
                ways.append((more * here.gpus_per_node * price, pool.name, more, n))
    if ways:
        _, name, more, n = min(ways, key=lambda way: way[:3])
        have = cluster.pool(name).nodes
        text = f"add {more} node{'s' * (more > 1)} to {name} ({n.option.configuration} x{n.replicas})"
        yield Relaxation(
            dimension="nodes", from_value=float(have), to_value=float(have + more), unit="nodes", text=text
        )


def _rounded(value: float, towards: Callable[[float], float]) -> float:
    """Three significant digits, up or down."""
    scale = 10.0 ** (2 - math.floor(math.log10(value)))
    return towards(value * scale * (1 + 1e-12 if towards is math.floor else 1 - 1e-12)) / scale
