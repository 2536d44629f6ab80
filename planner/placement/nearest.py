"""Nearest changes for an intent that candidates could serve and the fleet's limits did not let: nodes, quota, budget.

Every candidate for the whole load is held against what is left when the intent's own replicas are taken out and all
others stay. Where it lacks one thing alone (nodes of one pool, a team's quota of one GPU type, a team's budget), that
is a change that would do; of each thing the least amount is told. Seats are not tried: whole nodes are counted.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from planner.placement.bins import bin_classes
from planner.placement.placed import Placed, Served
from planner.plan import Relaxation

if TYPE_CHECKING:
    from catalog.gpus import GPU
    from planner.intents import Fleet, Intent, Team
    from planner.placement.bins import BinClass
    from planner.strategies import Candidate

#: Node pools of which more nodes are told, the cheapest addition first.
POOLS = 3
WHOLE = 1.0 - 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """What the other intents leave."""

    gpus: Mapping[str, int]
    """Node pool -> GPUs that are free, in parts where engines share them."""
    quota: Mapping[str, Fraction]
    """GPU type -> GPUs that the team may still take, for the types that its quota names."""
    budget: float
    """Dollars per hour that the team may still spend."""


def nearest(
    fleet: Fleet,
    placed: Placed,
    candidates: Mapping[str, Sequence[Candidate]],
    *,
    prices: Mapping[str, float],
    gpus: Mapping[str, GPU] | None = None,
) -> dict[str, tuple[Relaxation, ...]]:
    """By intent, for each that is unmet though some candidate would serve it whole; the share that is served first."""
    classes = bin_classes(fleet.cluster, gpus)
    found = {}
    for intent in fleet.intents:
        served = placed[intent.name]
        whole = [one for one in candidates.get(intent.name, ()) if one.share >= WHOLE]
        if served.status == "unmet" and whole:
            found[intent.name] = (*_rate(intent, served), *_changes(fleet, intent, placed, whole, classes, prices))
    return found


def _rate(intent: Intent, served: Served) -> Iterator[Relaxation]:
    """What is served already is feasible."""
    rate = intent.workload.rate
    if rate is not None and served.share > 0:
        factor = max(intent.workload.diurnal or (1.0,))
        wanted, value = rate * max(1.0, factor), rate * max(1.0, factor) * served.share
        text = f"serve {value:.3g} of {wanted:.3g} requests/s"
        yield Relaxation(dimension="rate", from_value=wanted, to_value=value, unit="/s", text=text)


def _changes(  # noqa: PLR0913, PLR0917 - one intent in its surroundings
    fleet: Fleet,
    intent: Intent,
    placed: Placed,
    whole: Sequence[Candidate],
    classes: Mapping[str, BinClass],
    prices: Mapping[str, float],
) -> list[Relaxation]:
    """One relaxation per thing that alone is lacking, the cheapest candidate speaking for it."""
    team = next((team for team in fleet.teams if team.name == intent.team), None)
    left = _left(fleet, intent, placed, team, classes)
    nodes: dict[str, tuple[float, Relaxation]] = {}
    others: dict[str, tuple[float, Relaxation]] = {}
    for candidate in sorted(whole, key=lambda one: (one.cost_per_hour, str(one.strategy))):
        short = _short_nodes(candidate, left, classes)
        held: defaultdict[str, Fraction] = defaultdict(Fraction)
        for pool in candidate.strategy.pools:
            bins = classes[pool.node_pool]
            held[bins.gpu] += Fraction(pool.gpus, bins.parts)
        over = {gpu: math.ceil(held[gpu] - most) for gpu, most in left.quota.items() if held[gpu] > most}
        spent = candidate.cost_per_hour - left.budget
        if len(short) == 1 and not over and spent <= 1e-9:
            (name, more), *_ = short.items()
            paid = more * classes[name].pool.gpus_per_node * prices.get(name, math.inf)
            _keep(nodes, name, paid, _more_nodes(name, more, classes[name], candidate))
        elif not short and len(over) == 1 and spent <= 1e-9 and team is not None:
            (gpu, extra), *_ = over.items()
            _keep(others, "quota", extra, _more_quota(team, gpu, extra, candidate))
        elif not short and not over and spent > 1e-9 and team is not None:
            _keep(others, "budget", spent, _more_budget(team, spent, candidate))
    told = sorted(nodes.values(), key=lambda entry: (entry[0], entry[1].text))[:POOLS]
    return [relaxation for _, relaxation in (*told, *(others[name] for name in sorted(others)))]


def _keep(best: dict[str, tuple[float, Relaxation]], name: str, amount: float, relaxation: Relaxation) -> None:
    if name not in best or amount < best[name][0] - 1e-9:
        best[name] = (amount, relaxation)


def _left(fleet: Fleet, intent: Intent, placed: Placed, team: Team | None, classes: Mapping[str, BinClass]) -> _Left:
    used, types, spent = Counter[str](), defaultdict[str, Fraction](Fraction), 0.0
    mates = {other.name for other in fleet.intents if team is not None and other.team == team.name}
    for served in placed.served:
        if served.intent == intent.name:
            continue
        for candidate in served.candidates:
            for name, count in candidate.gpus:
                used[name] += count
                types[classes[name].gpu] += Fraction(count, classes[name].parts) * (served.intent in mates)
            spent += candidate.cost_per_hour * (served.intent in mates)
    gpus = {name: int(bins.free.sum()) - used[name] for name, bins in classes.items()}
    quota = {} if team is None else {gpu: max(Fraction(0), most - types[gpu]) for gpu, most in team.quota.items()}
    budget = math.inf if team is None or team.budget is None else team.budget - spent
    return _Left(gpus=gpus, quota=quota, budget=budget)


def _short_nodes(candidate: Candidate, left: _Left, classes: Mapping[str, BinClass]) -> dict[str, int]:
    """Node pool -> whole nodes that the candidate would need beyond what is free."""
    short = {}
    for name, need in candidate.gpus:
        lacking = need - max(0, left.gpus[name])
        if lacking > 0:
            short[name] = math.ceil(lacking / classes[name].node)
    return short


def _more_nodes(name: str, more: int, bins: BinClass, candidate: Candidate) -> Relaxation:
    text = f"add {more} node{'s' * (more > 1)} of {bins.gpu} to {name} ({candidate.strategy})"
    have = float(bins.pool.nodes)
    return Relaxation(dimension="nodes", from_value=have, to_value=have + more, unit="nodes", text=text)


def _more_quota(team: Team, gpu: str, extra: int, candidate: Candidate) -> Relaxation:
    have = team.quota[gpu]
    text = f"raise team {team.name}'s quota of {gpu} from {have} to {have + extra} ({candidate.strategy})"
    return Relaxation(dimension="quota", from_value=float(have), to_value=float(have + extra), unit="GPUs", text=text)


def _more_budget(team: Team, spent: float, candidate: Candidate) -> Relaxation:
    have = team.budget or 0.0
    value = math.ceil((have + spent) * 100 - 1e-6) / 100
    text = f"raise team {team.name}'s budget from {have:.2f} to {value:.2f} USD/h ({candidate.strategy})"
    return Relaxation(dimension="budget", from_value=have, to_value=value, unit="USD/h", text=text)
