"""`Running`: the replicas of the plan in force, and what they are worth tonight."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from planner.placement.placed import Key, NodeGPUs, Placed, keys
from planner.strategies import Candidate, Collocated, Configuration, Disaggregated, Pool

if TYPE_CHECKING:
    from planner.placement.bins import BinClass
    from planner.plan import Plan, ReplicaGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Replicas that stand on nodes that still exist, by intent and key; and what is gone."""

    replicas: Mapping[str, Mapping[Key, tuple[NodeGPUs, ...]]] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    """One sentence per intent that lost replicas with their nodes."""

    @property
    def gpus(self) -> float:
        """GPUs in use, parts of one as parts."""
        groups = (group for of_intent in self.replicas.values() for group in of_intent.items())
        return math.fsum(key[2].whole_gpus * len(nodes) for key, nodes in groups)

    def starts(self, intent: str, candidate: Candidate) -> tuple[int, float]:
        """(replicas, GPUs) that the candidate starts beyond what runs."""
        mine = self.replicas.get(intent, {})
        if not mine:
            pools = candidate.strategy.pools
            whole = math.fsum(pool.replicas * pool.configuration.whole_gpus for pool in pools)
            return sum(pool.replicas for pool in pools), whole
        new = [(key[2].whole_gpus, max(0, count - len(mine.get(key, ())))) for key, count in keys(candidate)]
        return sum(count for _, count in new), math.fsum(gpus * count for gpus, count in new)

    def untried(self, intent: str, candidate: Candidate) -> int:
        """GPUs (parts of one, where shared) of what the candidate would run for the first time, if anything runs."""
        mine = self.replicas.get(intent, {})
        return sum(key[2].gpus * count for key, count in keys(candidate) if key not in mine) if mine else 0


def running(incumbent: Plan | Placed | None, classes: Mapping[str, BinClass]) -> Running:
    """Read the plan in force: each replica that stands wholly on nodes that exist tonight."""
    if incumbent is None:
        return Running()
    replicas: dict[str, dict[Key, tuple[NodeGPUs, ...]]] = {}
    gone: dict[str, int] = {}
    for intent, key, nodes in _groups(incumbent):
        standing = tuple(
            replica for replica in nodes if replica and all(_stands(name, key[2], classes) for name, _ in replica)
        )
        if len(standing) < len(nodes):
            gone[intent] = gone.get(intent, 0) + len(nodes) - len(standing)
        if standing:
            of_intent = replicas.setdefault(intent, {})
            of_intent[key] = of_intent.get(key, ()) + standing
    lost = tuple(f"{intent}: {count} replicas ran on nodes that are gone" for intent, count in gone.items())
    return Running(replicas=replicas, gone=lost)


def node_index(name: str) -> tuple[str, int] | None:
    """(`pool`, index) of a node name, None where it is none."""
    pool, _, index = name.rpartition("-")
    return (pool, int(index)) if pool and index.isascii() and index.isdigit() else None


def standing_candidates(
    intent: str, now: Running, tonight: Sequence[Candidate], given: Sequence[Candidate] = ()
) -> tuple[Candidate, ...] | None:
    """What runs for the intent, valued under tonight's load: `given` by the caller, else read off tonight's candidates.

    Without a candidate of the same replica count, one of the same configuration is scaled and says so in its notes:
    fewer replicas up in proportion, which is a lower bound (goodput per replica grows with replicas), or, for lack of
    those, more replicas down, which is not. None where nothing runs or nothing tonight resembles it.
    """
    mine = dict(now.replicas.get(intent, {}))
    if not mine:
        return None
    parts: list[Candidate] = []
    for wanted in _strategies(mine):
        known = [c for c in (*given, *tonight) if _shape(c) == tuple(key for key, _ in wanted)]
        if not known:
            return None
        parts.append(_valued([count for _, count in wanted], known))
    return tuple(parts)


def steps(parts: Sequence[Candidate], known: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """What runs with other replica counts, where that is not on offer already and can be bounded from below.

    Small steps in place are what keeps a fleet calm: without them, an intent that lacks one replica would have to take
    the replica counts that the search happened to propose. Where what runs is itself on offer and enough there are
    none, so that equal inputs give an equal plan the night after.
    """
    found: list[Candidate] = []
    for part in parts:
        if part.strategy.kind != "collocated":
            continue
        tonight = [candidate for candidate in known if _shape(candidate) == _shape(part)]
        offered = {candidate.strategy.pools[0].replicas for candidate in tonight}
        wanted = _nearby(part, offered) | _complement(part, parts, offered)
        alike = [*tonight, part]
        found += [_valued([count], alike) for count in sorted(wanted - offered - {part.strategy.pool.replicas})]
    return tuple(found)


def _nearby(part: Candidate, offered: Collection[int]) -> set[int]:
    """A few replicas more or less than run, unless that count is on offer."""
    runs = part.strategy.pools[0].replicas
    if runs in offered:
        return set()
    reach = {1, 2, -(-runs // 50), -(-runs // 20), -(-runs // 10)}
    return {count for step in reach for count in (runs - step, runs + step) if count > min(offered, default=0)}


def _complement(part: Candidate, parts: Sequence[Candidate], offered: Collection[int]) -> set[int]:
    """The fewest replicas that serve what the other part of a mix leaves, where more are needed, or fewer may do."""
    rest = 1.0 - math.fsum(other.share for other in parts if other is not part)
    runs = part.strategy.pools[0].replicas
    if len(parts) < 2 or rest <= 0 or (part.share >= rest - 1e-9 and runs in offered):
        return set()
    return {max(1, math.ceil(rest * runs / part.share - 1e-9))}


def _shape(candidate: Candidate) -> tuple[Key, ...]:
    return tuple(key for key, _ in keys(candidate))


def _strategies(mine: Mapping[Key, tuple[NodeGPUs, ...]]) -> list[tuple[tuple[Key, int], ...]]:
    """Group running keys to strategies: each collocated pool is one, prefill and decode pools pair up in order."""
    both = [((key, len(nodes)),) for key, nodes in mine.items() if key[0] == "both"]
    prefill = [(key, len(nodes)) for key, nodes in mine.items() if key[0] == "prefill"]
    decode = [(key, len(nodes)) for key, nodes in mine.items() if key[0] == "decode"]
    return [*both, *zip(prefill, decode, strict=False)]


def _valued(counts: Sequence[int], known: Sequence[Candidate]) -> Candidate:
    """The candidate with these replica counts, or the best bound on it that candidates of its shape give."""
    for candidate in known:
        if [pool.replicas for pool in candidate.strategy.pools] == counts:
            return candidate
    grown_up = [c for c in known if _ratio(c, counts) >= 1]
    nearest = (
        max(grown_up, key=lambda c: c.share * _ratio(c, counts))
        if grown_up
        else max(known, key=lambda c: _ratio(c, counts))
    )
    pools = tuple(replace(p, replicas=n) for p, n in zip(nearest.strategy.pools, counts, strict=True))
    grown = sum(pool.gpus for pool in pools) / sum(pool.gpus for pool in nearest.strategy.pools)
    held: dict[str, int] = {}
    for pool in pools:
        held[pool.node_pool] = held.get(pool.node_pool, 0) + pool.gpus
    note = f"share scaled from {nearest.strategy} at tonight's load"
    return replace(
        nearest,
        strategy=_with_pools(nearest.strategy, pools),
        estimate=replace(nearest.estimate, notes=(*nearest.estimate.notes, note)),
        cost_per_hour=nearest.cost_per_hour * grown,
        gpus=tuple(held.items()),
        share=min(1.0, nearest.share * _ratio(nearest, counts)),
    )


def _ratio(candidate: Candidate, counts: Sequence[int]) -> float:
    return min(n / pool.replicas for n, pool in zip(counts, candidate.strategy.pools, strict=True))


def _with_pools(strategy: Collocated | Disaggregated, pools: tuple[Pool, ...]) -> Collocated | Disaggregated:
    if isinstance(strategy, Collocated):
        return replace(strategy, pool=pools[0])
    return replace(strategy, prefill=pools[0], decode=pools[1])


def _stands(name: str, configuration: Configuration, classes: Mapping[str, BinClass]) -> bool:
    """Whether a node is there tonight, its GPUs shared as the configuration shares them."""
    parsed = node_index(name)
    if parsed is None or parsed[0] not in classes:
        return False
    bins = classes[parsed[0]]
    return parsed[1] < bins.nodes and bins.parts == configuration.engines_per_gpu


def _groups(incumbent: Plan | Placed) -> list[tuple[str, Key, tuple[NodeGPUs, ...]]]:
    if isinstance(incumbent, Placed):
        return [(served.intent, seats.key, seats.nodes) for served in incumbent.served for seats in served.seats]
    return [(group.intent, _key(group), _nodes(group)) for group in incumbent.placements]


def _nodes(group: ReplicaGroup) -> tuple[NodeGPUs, ...]:
    return tuple(tuple((share.node, share.gpus) for share in replica) for replica in group.nodes)


def configuration_of(group: ReplicaGroup) -> Configuration:
    """The configuration of a plan's replica group."""
    return Configuration(
        model=group.model,
        gpu=group.gpu,
        tp=group.tp,
        pp=group.pp,
        dp=group.dp,
        expert_parallel=group.expert_parallel,
        quantization=cast("Any", group.quantization),
        kv_dtype=cast("Any", group.kv_dtype),
        max_num_seqs=group.max_num_seqs,
        max_num_batched_tokens=group.max_num_batched_tokens,
        max_model_len=group.max_model_len,
        enable_prefix_caching=group.enable_prefix_caching,
        engines_per_gpu=group.engines_per_gpu,
    )


def _key(group: ReplicaGroup) -> Key:
    return (group.role, group.node_pool, configuration_of(group))
