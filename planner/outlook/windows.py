"""Windows: a decided intent through the day, and what all intents leave free of the placed GPUs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from catalog.cluster import Cluster, NodePool
from catalog.units import SECONDS_PER_HOUR
from planner.candidates.screen import LATENCY_GOALS
from planner.candidates.sizing import with_reserve
from planner.intents import DayRules, Intent
from planner.outlook.day import HOURS, Course, cheapest, fewest, rates
from planner.outlook.gauge import Gauge
from planner.placement.placed import Key, Seats, Served, roles
from planner.plan import DayPart, FleetDay, FreedGPUs, IntentDay, IntentDecision, Window
from planner.strategies import Candidate, Pool

#: What is paid for by the hour and given back at will.
BY_THE_HOUR = ("on_demand", "spot")
#: A window this close to the busiest one counts as it.
BUSIEST = 0.999


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Replicas of one key through the day."""

    intent: str
    seats: Seats
    course: Course
    replica_cost: float
    """Dollars per hour."""
    refunded: bool
    kept: str
    """Why it stays at its count; empty where it follows the load."""

    @property
    def most(self) -> int:
        """Replicas that are placed."""
        return len(self.seats.nodes)

    @property
    def windows(self) -> tuple[Window, ...]:
        """Bounds for an autoscaler: what is needed, up to what is placed."""
        return tuple(
            Window(start_hour=start, end_hour=end, min_replicas=count, max_replicas=max(1, self.most))
            for start, end, count in self.course.bounds
        )


def through_the_day(
    intent: Intent, served: Served, gauges: Sequence[Gauge], *, cluster: Cluster, rules: DayRules
) -> tuple[Group, ...]:
    """The groups of one intent's seats through the day; empty where the profile of its load is not known."""
    profile = gauges[0].requests.profile if gauges else None
    if not profile:
        return ()
    seats = {one.key: one for one in served.seats}
    factors = rates(profile, rules.windows)
    whole = min(1.0, math.fsum(gauge.candidate.share for gauge in gauges))
    lead = rules.start_time / SECONDS_PER_HOUR
    found: dict[Key, Group] = {}
    for gauge in gauges:
        asked = [factor * gauge.mean_rate * gauge.candidate.share / whole for factor in factors]
        for role, pool in roles(gauge.candidate):
            one = seats[role, pool.node_pool, pool.configuration]
            kept = _kept(intent, gauge, one)
            needs = [len(one.nodes)] * len(asked) if kept else _needs(intent, served, gauge, one, asked, cluster)
            found[one.key] = Group(
                intent=intent.name,
                seats=one,
                course=cheapest(needs, lead_hours=lead),
                replica_cost=_replica_cost(gauge.candidate, pool),
                refunded=cluster.pool(pool.node_pool).tier in BY_THE_HOUR,
                kept=kept,
            )
    groups = tuple(found[one.key] for one in served.seats)
    if len(gauges) < 2 or any(group.kept for group in groups):
        return groups
    return _one_alone(intent, groups, gauges, [factor * gauges[0].mean_rate for factor in factors], cluster)


def _one_alone(
    intent: Intent, groups: tuple[Group, ...], gauges: Sequence[Gauge], asked: Sequence[float], cluster: Cluster
) -> tuple[Group, ...]:
    """A mix whose quiet windows may be carried by one of its parts alone, where that costs less over the day.

    Between the two a router shares the load as planned: both parts in proportion, or all of it to the one that runs.
    """
    counts = [list(group.course.counts) for group in groups]
    for window, rate in enumerate(asked):
        if rate >= BUSIEST * max(asked):
            continue
        ways = [[mine[window] for mine in counts]]
        for at, (group, gauge) in enumerate(zip(groups, gauges, strict=True)):
            alone = _alone(intent, gauge, group.seats, rate, cluster)
            ways += [[alone * (other == at) for other in range(len(groups))]] if alone is not None else []
        best = min(ways, key=lambda way: sum(n * group.replica_cost for n, group in zip(way, groups, strict=True)))
        for mine, count in zip(counts, best, strict=True):
            mine[window] = count
    lead = groups[0].course.lead_hours
    other = tuple(
        replace(group, course=cheapest(mine, lead_hours=lead)) for group, mine in zip(groups, counts, strict=True)
    )
    return min((groups, other), key=_day_cost)


def _day_cost(groups: Sequence[Group]) -> float:
    return round(math.fsum(group.course.replica_hours * group.replica_cost for group in groups), 9)


def _alone(intent: Intent, gauge: Gauge, seats: Seats, rate: float, cluster: Cluster) -> int | None:
    """Replicas of one part that carry everything, with spares and survivors; None where those placed do not."""
    placed = len(seats.nodes)
    most = without_reserve(placed, cluster.pool(seats.pool.node_pool), intent)
    carries = fewest(lambda n: gauge.goodput((n,)), rate, most)
    if rate > 0 and gauge.goodput((carries,)) < rate:
        return None
    total = max(intent.min_replicas, _with_survivors(carries, _fullest(seats), placed, intent))
    return total if total <= placed else None


def day_of(groups: Sequence[Group], gauge: Gauge) -> IntentDay:
    """State the groups of one intent as its day, under the load that any of its gauges knows."""
    windows = len(groups[0].course.counts)
    width = HOURS / windows
    parts = tuple(
        DayPart(
            start_hour=window * width,
            end_hour=(window + 1) * width,
            rate=gauge.mean_rate * factor,
            replicas=sum(group.course.counts[window] for group in groups),
            gpus=sum(group.course.counts[window] * group.seats.pool.configuration.gpus for group in groups),
            cost_per_hour=math.fsum(group.course.counts[window] * group.replica_cost for group in groups),
        )
        for window, factor in enumerate(rates(gauge.requests.profile or (1.0,), windows))
    )
    return IntentDay(
        parts=parts,
        cost=math.fsum(group.course.replica_hours * group.replica_cost for group in groups),
        peak_cost=math.fsum(HOURS * group.most * group.replica_cost for group in groups),
        refunded=math.fsum(_saved(group) * group.replica_cost for group in groups if group.refunded),
        starts=sum(group.course.starts for group in groups),
        freed_gpu_hours=math.fsum(_saved(group) * group.seats.pool.configuration.gpus for group in groups),
        kept="; ".join(dict.fromkeys(group.kept for group in groups if group.kept)),
    )


def fleet_day(groups: Sequence[Group], decisions: Sequence[IntentDecision], rules: DayRules) -> FleetDay | None:
    """The day of all intents; None where no intent's count changes."""
    days = [decision.day for decision in decisions if decision.day is not None]
    if not any(day.starts for day in days):
        return None
    still = math.fsum(decision.cost_per_hour for decision in decisions if decision.day is None)
    width = HOURS / rules.windows
    parts = []
    for window in range(rules.windows):
        freed: Counter[str] = Counter()
        for group in groups:
            less = group.most - group.course.counts[window]
            freed[group.seats.pool.node_pool] += less * group.seats.pool.configuration.gpus
        runs = math.fsum(day.parts[window].cost_per_hour for day in days)
        gpus = {name: freed[name] for name in sorted(freed) if freed[name]}
        parts.append(
            FreedGPUs(start_hour=window * width, end_hour=(window + 1) * width, gpus=gpus, cost_per_hour=still + runs)
        )
    return FleetDay(
        parts=tuple(parts),
        cost=HOURS * still + math.fsum(day.cost for day in days),
        peak_cost=HOURS * still + math.fsum(day.peak_cost for day in days),
        refunded=math.fsum(day.refunded for day in days),
    )


def without_reserve(total: int, pool: NodePool, intent: Intent) -> int:
    """Replicas of `total` that carry the load: the rest are spares and survivors."""
    rules = intent.availability
    fits = [n for n in range(1, total + 1) if with_reserve(n, math.ceil(n * rules.share), pool, rules) <= total]
    return max(fits, default=total)


def _kept(intent: Intent, gauge: Gauge, seats: Seats) -> str:
    """Why replicas cannot follow the load."""
    if gauge.candidate.strategy.kind == "disaggregated":
        return "prefill and decode are scaled together or not at all"
    if intent.goal in LATENCY_GOALS:
        return "latency is the goal, and fewer replicas are slower"
    if any(len(nodes) > 1 for nodes in seats.nodes):
        return "a replica over several nodes is not scaled"
    if intent.availability.survive == "failure_domain":
        return "every replica counts when a failure domain is lost"
    return ""


def _needs(  # noqa: PLR0913, PLR0917 - one group in its surroundings
    intent: Intent, served: Served, gauge: Gauge, seats: Seats, asked: Sequence[float], cluster: Cluster
) -> list[int]:
    """Replicas that each window needs: for its rate, with spares and survivors, at least the intent's fewest.

    The busiest window keeps what was decided for it.
    """
    placed = len(seats.nodes)
    everything = sum(len(one.nodes) for one in served.seats)
    least = min(placed, math.ceil(intent.min_replicas * placed / everything))
    most = without_reserve(placed, cluster.pool(seats.pool.node_pool), intent)
    fullest = _fullest(seats)
    needs = []
    for rate in asked:
        if rate >= BUSIEST * max(asked):
            needs.append(placed)
            continue
        carries = fewest(lambda n: gauge.goodput((n,)), rate, most)
        needs.append(max(least, min(placed, _with_survivors(carries, fullest, placed, intent))))
    return needs


def _fullest(seats: Seats) -> int:
    """Replicas on the node that holds most of them."""
    return max(Counter(name for nodes in seats.nodes for name, _ in nodes).values())


def _with_survivors(carries: int, fullest: int, placed: int, intent: Intent) -> int:
    """Spares on top; and if the node that holds most replicas is lost, `share` of those that carry the load are left.

    Whoever scales down does not say on which nodes: all of the fullest node's may be among the rest.
    """
    if carries == 0:
        return 0
    rules = intent.availability
    total = carries + rules.spares
    if rules.survive == "node":
        while total < placed and total - min(fullest, total) < math.ceil(carries * rules.share):
            total += 1
    return total


def _replica_cost(candidate: Candidate, pool: Pool) -> float:
    """Dollars per hour of one replica: its part of the candidate's cost by GPUs, energy included."""
    return candidate.cost_per_hour * pool.configuration.gpus / sum(part.gpus for part in candidate.strategy.pools)


def _saved(group: Group) -> float:
    """Replica-hours a day that are not paid for."""
    return HOURS * group.most - group.course.replica_hours
