"""Replica counts: the fewest whose goodput at the slow end covers a rate, with spares and survivors on top.

Goodput is not additive in replicas (a router that sees many replicas smooths bursts: up to threefold at 16), so it is
asked at each count; it never falls with more of them, which makes the search a bracket.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from catalog.cluster import NodePool
from catalog.predictors import Predictor
from planner.candidates.judge import Judge
from planner.candidates.options import Option, Question
from planner.candidates.tally import Tally
from planner.intents import SLO, Availability
from planner.strategies import Reason, Router
from planner.workload import Requests

#: Utilisation at the slow end that counts as stable where no SLO says more.
STABLE = 0.9
#: Load over capacity at which a replica counts as idle.
IDLE = 0.005
ROUTER: Router = "least_requests"


@dataclass(slots=True, kw_only=True)
class Sizer:
    """Goodput by option and replica count, each asked once."""

    judge: Judge
    requests: Requests
    slo: SLO | None
    tally: Tally
    known: dict[tuple[Option, int], float] = field(default_factory=dict)
    capacities: dict[Option, float] = field(default_factory=dict)
    idle: dict[tuple[Predictor, int], dict[str, float]] = field(default_factory=dict)

    def capacity(self, option: Option) -> float:
        """Requests per second that one replica can carry at all, at the slow end."""
        if option not in self.capacities:
            self.capacities[option] = self.judge.capacity((option.slow,), self.requests)
        return self.capacities[option]

    def goodput(self, option: Option, replicas: int) -> float:
        """Requests per second of all replicas within the SLO, at the slow end; stable load where there is none."""
        key = (option, replicas)
        if key not in self.known:
            self.tally.judged += 1
            self.known[key] = (
                STABLE * self.capacity(option) * replicas
                if self.slo is None
                else self.judge.goodput((option.slow,), self.requests, self.slo, replicas=(replicas,))
            )
        return self.known[key]

    def _per_replica(self, option: Option, capacity: float) -> float:
        """At most so many requests per second of each replica, however many there are: none does better than all."""
        together = self.known.get((option, option.most), 0.0)
        return min(capacity, together / option.most) if together > 0 else capacity

    def least(self, option: Option, rate: float) -> int | None:
        """Fewest replicas whose goodput is at least `rate`; None where even the most fall short."""
        capacity = self.capacity(option)
        if not capacity > 0 or capacity * option.most < rate:
            return None
        low = high = min(option.most, max(1, math.ceil(rate / self._per_replica(option, capacity))))
        while (found := self.goodput(option, high)) < rate:
            if high >= option.most:
                return None
            low = high + 1
            wanted = math.ceil(high * rate / found) if found > 0 else 4 * high
            high = min(option.most, max(low, wanted))
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.goodput(option, middle) >= rate else (middle + 1, high)
        return high


def with_reserve(needed: int, after: int, pool: NodePool, rules: Availability) -> int:
    """Replicas to run in a pool where `needed` carry the load: spares on top, and a node may be lost.

    After losing the node that holds most of them (spread as evenly as the nodes allow), `after` replicas still run.
    Losing a failure domain is survived by a mix over two, which placement makes.
    """
    total = needed + rules.spares
    if rules.survive == "node":
        nodes = pool.nodes - pool.lost
        while total - lost_with_node(total, nodes) < after and nodes > 1:
            total += 1
    return total


def lost_with_node(total: int, nodes: int) -> int:
    """Replicas on the fullest node when they are spread as evenly as the nodes allow."""
    return math.ceil(total / max(1, nodes))


def refused(question: Question, sizer: Sizer, option: Option, rate: float) -> bool:
    """Whether an option cannot carry `rate` with all its replicas, or not answer in time; counted by what it lacks."""
    tally, most = question.tally, option.most
    capacity = sizer.capacity(option) * most
    if capacity < rate:
        said = f"{most} replica{'s carry' if most != 1 else ' carries'} {capacity:.3g} requests/s"
        name = str(option.configuration)
        tally.reject(name, "unstable_at_this_load", said, nearest={"rate": capacity, "rate_limit": rate})
        return True
    missed = too_slow(question, sizer, option)
    if missed is not None:
        reason, said, nearest = missed
        tally.reject(str(option.configuration), reason, said, nearest=nearest)
    return missed is not None


def falls_short(question: Question, sizer: Sizer, option: Option, rate: float) -> bool:
    """Whether the goodput of all of an option's replicas is below `rate`; counted."""
    most = option.most
    found = sizer.goodput(option, most)
    if found < rate:
        said = f"{most} replica{'s keep' if most != 1 else ' keeps'} the SLO up to {found:.3g} requests/s"
        nearest = {"rate": found, "rate_limit": rate}
        name = str(option.configuration)
        question.tally.reject(name, "goodput_below_rate", said, nearest=nearest, judged=True)
    return found < rate


def too_slow(question: Question, sizer: Sizer, option: Option) -> tuple[Reason, str, dict[str, float]] | None:
    """Which limit of the SLO an option misses most even when it is nearly idle; None where it keeps them all."""
    slo = sizer.slo
    if slo is None:
        return None
    idle = idle_latency(question, sizer, option)
    limits = {"ttft": slo.ttft, "tpot": slo.tpot, "e2e": slo.e2e}
    missed = {name: idle[name] / limit for name, limit in limits.items() if limit is not None}
    worst = max(sorted(missed), key=lambda name: missed[name], default="")
    if not worst or missed[worst] <= 1:
        return None
    limit = limits[worst] or math.inf
    nearest = {f"{worst}_s": idle[worst], f"{worst}_s_limit": limit}
    reason: Reason = "ttft_above_slo" if worst == "ttft" else "tpot_above_slo"
    return reason, f"{worst} is {idle[worst]:.3g} s when idle, the SLO asks for {limit:.3g} s", nearest


def idle_latency(question: Question, sizer: Sizer, option: Option) -> dict[str, float]:
    """TTFT, TPOT and end to end at the SLO's quantile and the slow end, when all replicas are nearly idle.

    All of them, since bursts meet in one replica however rarely they come.
    """
    # of a shape's step times and its token budget: the batch is never full
    key = option.slow.predictor, option.slow.max_num_batched_tokens
    if key not in sizer.idle:
        rate = IDLE * max(sizer.capacity(option), 1e-9) * option.most
        sizer.idle[key] = question.judge.latency(
            option.slow, sizer.requests, sizer.slo, rate=rate, replicas=option.most
        )
    return sizer.idle[key]
