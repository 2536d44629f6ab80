"""The validator: every promise of a placement checked again from the fleet and the seats alone.

It shares no arithmetic with the columns or the program: it counts GPUs node by node, packs the pieces of each node
into its link domains, adds up teams, replays the waves. A placement with a violation is never shown.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from planner.placement.availability import share_after_loss
from planner.placement.bins import BinClass, bin_classes
from planner.placement.placed import Placed, Seats, Served, Wave, roles
from planner.placement.rules import Rules
from planner.placement.running import Running, node_index, running
from planner.placement.spelling import gpu_names

if TYPE_CHECKING:
    from catalog.gpus import GPU
    from planner.intents import Fleet, Intent
    from planner.plan import Plan
    from planner.strategies import Candidate, Pool

WHOLE = 1 - 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One broken promise, and the intent that it concerns (empty = the fleet)."""

    intent: str
    text: str

    def __str__(self) -> str:
        """`intent: text`."""
        return f"{self.intent}: {self.text}" if self.intent else self.text


def validate(  # noqa: PLR0913 - everything that a placement promises about
    placed: Placed,
    fleet: Fleet,
    *,
    candidates: Mapping[str, Sequence[Candidate]] | None = None,
    incumbent: Plan | Placed | None = None,
    gpus: Mapping[str, GPU] | None = None,
    rules: Rules | None = None,
) -> list[str]:
    """List every violation in words; empty = the placement keeps what it promises.

    `candidates`: if given, every chosen candidate must be one of them, or what runs.
    """
    found = faults(placed, fleet, candidates=candidates, incumbent=incumbent, gpus=gpus, rules=rules)
    return [str(fault) for fault in found]


def faults(  # noqa: PLR0913 - as `validate`
    placed: Placed,
    fleet: Fleet,
    *,
    candidates: Mapping[str, Sequence[Candidate]] | None = None,
    incumbent: Plan | Placed | None = None,
    gpus: Mapping[str, GPU] | None = None,
    rules: Rules | None = None,
) -> list[Fault]:
    """As `validate`, each with the intent that it concerns."""
    classes = bin_classes(fleet.cluster, gpus)
    now = running(incumbent, classes)
    rules = rules or Rules()
    if [served.intent for served in placed.served] != [intent.name for intent in fleet.intents]:
        return [Fault(intent="", text="the placement does not list the fleet's intents once each, in order")]
    found: list[Fault] = []
    names = gpu_names(gpus)
    for intent, served in zip(fleet.intents, placed.served, strict=True):
        texts = _intent_faults(intent, served, classes, names)
        texts += _share_faults(intent, served, now, rules)
        if candidates is not None:
            texts += _origin_faults(served, candidates.get(intent.name, ()), now)
        texts += _seat_faults(served, classes)
        texts += [] if texts else _survival_faults(intent, served, classes)
        found += [Fault(intent=intent.name, text=text) for text in texts]
    found += [Fault(intent="", text=text) for text in _node_faults(placed, classes)]
    found += [Fault(intent="", text=text) for text in _team_faults(fleet, placed, names)]
    found += [Fault(intent="", text=text) for text in _total_faults(placed)]
    if now.replicas:
        found += [Fault(intent="", text=text) for text in _movement_faults(fleet, placed, now)]
        found += [Fault(intent="", text=text) for text in _wave_faults(placed, now, classes, rules)]
    return found


def _intent_faults(  # noqa: C901 - one line per wish
    intent: Intent, served: Served, classes: Mapping[str, BinClass], names: Mapping[str, str]
) -> list[str]:
    """The intent's own wishes."""
    found = []
    cost = math.fsum(candidate.cost_per_hour for candidate in served.candidates)
    if not math.isfinite(cost) or any(c.cost_per_hour <= 0 for c in served.candidates):
        found.append("a cost is missing, zero or negative")
    if intent.budget is not None and cost > intent.budget * (1 + 1e-6):
        found.append(f"costs {cost:.2f} USD/h, above its budget of {intent.budget:.2f}")
    replicas = sum(pool.replicas for candidate in served.candidates for pool in candidate.strategy.pools)
    if served.candidates and not intent.min_replicas <= replicas <= (intent.max_replicas or replicas):
        found.append(f"has {replicas} replicas, outside [{intent.min_replicas}, {intent.max_replicas}]")
    allowed = None if intent.gpus is None else {names.get(name, name) for name in intent.gpus}
    forbidden = {names.get(name, name) for name in intent.forbidden_gpus}
    for candidate in served.candidates:
        if candidate.quality < intent.quality - 1e-9:
            found.append(f"quality {candidate.quality:.3f} is below its floor {intent.quality:.3f}")
        wants = intent.disaggregated
        if wants != "allowed" and (wants == "required") != (candidate.strategy.kind == "disaggregated"):
            found.append(f"disaggregation is {wants}")
        for pool in candidate.strategy.pools:
            configuration = pool.configuration
            if pool.node_pool not in classes:
                found.append(f"uses node pool {pool.node_pool!r}, which does not exist")
                continue
            gpu = classes[pool.node_pool].gpu
            if pool.node_pool in intent.forbidden_pools or pool.node_pool not in (intent.pools or (pool.node_pool,)):
                found.append(f"may not use node pool {pool.node_pool!r}")
            if gpu in forbidden or (allowed is not None and gpu not in allowed):
                found.append(f"may not use GPU {gpu!r}")
            if intent.quantizations is not None and configuration.quantization not in intent.quantizations:
                found.append(f"may not use quantization {configuration.quantization!r}")
            if intent.kv_dtypes is not None and configuration.kv_dtype not in intent.kv_dtypes:
                found.append(f"may not use KV dtype {configuration.kv_dtype!r}")
        found += _pairing_faults(candidate, classes)
    return found


def _pairing_faults(candidate: Candidate, classes: Mapping[str, BinClass]) -> list[str]:
    pools = {pool.node_pool for pool in candidate.strategy.pools if pool.node_pool in classes}
    fabrics = [classes[name].pool.network.fabric for name in sorted(pools)]
    if len(pools) > 1 and (None in fabrics or len(set(fabrics)) > 1):
        return [f"prefill and decode run in {' and '.join(sorted(pools))}, which share no fabric"]
    return []


def _share_faults(intent: Intent, served: Served, now: Running, rules: Rules) -> list[str]:
    share = min(1.0, math.fsum(candidate.share for candidate in served.candidates))
    found = []
    if abs(share - served.share) > 1e-6:
        found.append(f"says that it serves {served.share:.4f} of the load, its candidates serve {share:.4f}")
    if served.status == "met" and share < WHOLE:
        found.append(f"counts as met at {share:.4f} of the load")
    if served.status == "margin_consumed":
        runs = {key: len(nodes) for key, nodes in now.replicas.get(intent.name, {}).items()}
        same = {seats.key: len(seats.nodes) for seats in served.seats} == runs
        if share < rules.coverage - 1e-9 or not same:
            found.append("counts as covered by what runs, and is not")
    if served.status == "unmet" and share >= WHOLE:
        found.append("counts as unmet and serves all of its load")
    return found


def _origin_faults(served: Served, offered: Sequence[Candidate], now: Running) -> list[str]:
    runs = now.replicas.get(served.intent, {})
    known = {id(candidate) for candidate in offered}
    foreign = []
    for candidate in served.candidates:
        runs_too = all((role, pool.node_pool, pool.configuration) in runs for role, pool in roles(candidate))
        if id(candidate) not in known and not runs_too and candidate not in offered:
            foreign.append(f"uses {candidate.strategy}, which nobody offered")
    return foreign


def _seat_faults(served: Served, classes: Mapping[str, BinClass]) -> list[str]:
    wanted = [(role, pool) for candidate in served.candidates for role, pool in roles(candidate)]
    if wanted != [(seats.role, seats.pool) for seats in served.seats]:
        return ["its seats are not those of its candidates"]
    return [text for seats in served.seats for text in _pool_seat_faults(seats, classes)]


def _pool_seat_faults(seats: Seats, classes: Mapping[str, BinClass]) -> list[str]:
    pool, configuration = seats.pool, seats.pool.configuration
    if pool.node_pool not in classes:
        return []  # said above
    bins = classes[pool.node_pool]
    found = _sharing_faults(pool, bins)
    if len(seats.nodes) != pool.replicas:
        found.append(f"{pool} has {len(seats.nodes)} seats for {pool.replicas} replicas")
    if configuration.tp > bins.domain:
        found.append(f"{pool} spans tp {configuration.tp} over link domains of {bins.domain}")
    for nodes in seats.nodes:
        parsed = [node_index(name) for name, _ in nodes]
        if any(p is None or p[0] != pool.node_pool or p[1] >= bins.nodes for p in parsed):
            found.append(f"{pool} sits on {nodes}, not on standing nodes of {pool.node_pool!r}")
        if sum(gpus for _, gpus in nodes) != configuration.gpus or any(gpus < 1 for _, gpus in nodes):
            found.append(f"{pool} holds {nodes} for replicas of {configuration.gpus} GPUs")
        if len({name for name, _ in nodes}) != len(nodes):
            found.append(f"{pool} names a node twice in one replica")
        if len(nodes) > 1 and configuration.gpus <= bins.node and configuration.gpus <= bins.domain:
            found.append(f"{pool} is split over nodes though it fits into one link domain")
        if any(gpus % configuration.tp for _, gpus in nodes):
            found.append(f"{pool} cuts a tensor-parallel rank group between nodes: {nodes}")
    return found


def _sharing_faults(pool: Pool, bins: BinClass) -> list[str]:
    """Engines share a GPU only where the node pool says so, all of them by the same number, each on one GPU."""
    configuration = pool.configuration
    if configuration.engines_per_gpu != bins.pool.engines_per_gpu:
        wants, has = configuration.engines_per_gpu, bins.pool.engines_per_gpu
        return [f"{pool} is made for {wants} engines on a GPU, and {has} share each of node pool {pool.node_pool!r}"]
    if configuration.engines_per_gpu > 1 and configuration.gpus > 1:
        return [f"{pool} shares GPUs and spans {configuration.gpus} of them"]
    return []


def _survival_faults(intent: Intent, served: Served, classes: Mapping[str, BinClass]) -> list[str]:
    rule = intent.availability
    if rule.survive == "none" or not served.candidates:
        return []

    def domain(name: str) -> str:
        parsed = node_index(name)
        return classes[parsed[0]].pool.failure_domain if parsed else ""

    unit_of = domain if rule.survive == "failure_domain" else str
    left = share_after_loss(served.candidates, served.seats, unit_of=unit_of, spares=rule.spares)
    target = rule.share * served.share - 1e-9
    return [
        f"serves {share:.3f} of the load without {unit!r}, below {target:.3f}"
        for unit, share in left.items()
        if share < target
    ]


def _node_faults(placed: Placed, classes: Mapping[str, BinClass]) -> list[str]:  # noqa: C901 - counts once
    """GPUs by node, by pool and by link domain."""
    pieces: dict[str, list[tuple[int, int]]] = {}  # node -> (GPUs, tp) of each piece
    alone: dict[str, str] = {}
    for served in placed.served:
        for seats in served.seats:
            for nodes in seats.nodes:
                for name, gpus in nodes:
                    pieces.setdefault(name, []).append((gpus, seats.pool.configuration.tp))
                    if len(nodes) > 1:
                        alone[name] = served.intent
    found = []
    by_pool: Counter[str] = Counter()
    for name, here in pieces.items():
        parsed = node_index(name)
        if parsed is None or parsed[0] not in classes or parsed[1] >= classes[parsed[0]].nodes:
            continue  # said of the intent
        bins = classes[parsed[0]]
        used = sum(gpus for gpus, _ in here)
        by_pool[parsed[0]] += used
        if used > bins.node:
            found.append(
                f"node {name} holds {used} GPUs of {bins.node}" + f", in parts of 1/{bins.parts}" * (bins.parts > 1)
            )
        elif name in alone and len(here) > 1:
            found.append(f"node {name} is shared with a replica of {alone[name]} that takes whole nodes")
        elif not _packs(here, bins.free[parsed[1]].tolist()):
            found.append(f"node {name} cannot hold pieces of {sorted(here)} GPUs in its link domains")
    found += [
        f"node pool {name} holds {used / classes[name].parts:g} GPUs of {classes[name].pool.gpus}"
        for name, used in by_pool.items()
        if used > classes[name].pool.engine_slots
    ]
    return found


def _packs(pieces: Sequence[tuple[int, int]], domains: Sequence[int]) -> bool:
    """Whether pieces (GPUs, tp) fit into link domains: whole if possible, else by ranks over whole domains."""
    if not domains:
        return not pieces
    widest = max(domains)
    wide = [(gpus, tp) for gpus, tp in pieces if gpus > widest]
    small = sorted((gpus for gpus, _ in pieces if gpus <= widest), reverse=True)
    left = sorted(domains, reverse=True)
    for gpus, tp in wide:
        ranks = gpus // tp
        while ranks > 0 and left:
            ranks -= left.pop(0) // tp
        if ranks > 0:
            return False
    return _fit(small, tuple(left))


def _fit(pieces: Sequence[int], room: tuple[int, ...]) -> bool:
    """Exact: try each distinct domain for the largest piece."""
    if not pieces:
        return True
    if sum(pieces) > sum(room):
        return False
    for size in sorted({free for free in room if free >= pieces[0]}):
        rest = list(room)
        rest.remove(size)
        if _fit(pieces[1:], (*rest, size - pieces[0])):
            return True
    return False


def _team_faults(fleet: Fleet, placed: Placed, names: Mapping[str, str]) -> list[str]:
    found = []
    gpu_of = {pool.name: names.get(pool.gpu, pool.gpu) for pool in fleet.cluster.pools}
    parts = {pool.name: pool.engines_per_gpu for pool in fleet.cluster.pools}
    for team in fleet.teams:
        mine = [s for s, i in zip(placed.served, fleet.intents, strict=True) if i.team == team.name]
        held: dict[str, Fraction] = defaultdict(Fraction)
        for seats in (seats for served in mine for seats in served.seats):
            for name, gpus in (share for nodes in seats.nodes for share in nodes):
                where = name.rpartition("-")[0]
                held[gpu_of.get(where, "")] += Fraction(gpus, parts.get(where, 1))
        for gpu, quota in team.quota.items():
            if held[names.get(gpu, gpu)] > quota:
                found.append(f"team {team.name} holds {held[names.get(gpu, gpu)]} {gpu}, above its quota of {quota}")
        cost = math.fsum(candidate.cost_per_hour for served in mine for candidate in served.candidates)
        if team.budget is not None and cost > team.budget * (1 + 1e-6):
            found.append(f"team {team.name} costs {cost:.2f} USD/h, above its budget of {team.budget:.2f}")
    return found


def _total_faults(placed: Placed) -> list[str]:
    costs = [math.fsum(candidate.cost_per_hour for candidate in served.candidates) for served in placed.served]
    found = []
    if abs(math.fsum(costs) - placed.cost_per_hour) > 1e-6 * max(1.0, placed.cost_per_hour):
        found.append(f"says that it costs {placed.cost_per_hour:.4f} USD/h, its candidates cost {math.fsum(costs):.4f}")
    for served, cost in zip(placed.served, costs, strict=True):
        if abs(served.cost_per_hour - cost) > 1e-6 * max(1.0, cost):
            found.append(f"{served.intent} says {served.cost_per_hour:.4f} USD/h and costs {cost:.4f}")
    return found


def _movement_faults(fleet: Fleet, placed: Placed, now: Running) -> list[str]:
    """Starts of intents that already served enough, against tonight's limit and what was said to be forced."""
    limit = math.floor(fleet.movement * now.gpus + 1e-9)
    counted = 0.0
    for served in placed.served:
        runs = now.replicas.get(served.intent, {})
        if served.intent not in placed.settled:
            continue
        for seats in served.seats:
            fresh = max(0, len(seats.nodes) - len(runs.get(seats.key, ())))
            counted += fresh * seats.pool.configuration.gpus / seats.pool.configuration.engines_per_gpu
    if counted > limit + placed.forced_gpus + 1e-6:
        return [f"starts {counted:g} GPUs beyond need, above the limit of {limit} and the {placed.forced_gpus} forced"]
    return []


def _wave_faults(  # noqa: C901 - replays every step
    placed: Placed, now: Running, classes: Mapping[str, BinClass], rules: Rules
) -> list[str]:
    """Replay the waves: nothing on a full node, nothing stopped that does not run, and the end is the placement."""
    free = {bins.node_name(at): int(gpus) for bins in classes.values() for at, gpus in enumerate(bins.free.sum(axis=1))}
    there: Counter[object] = Counter()
    for intent, groups in now.replicas.items():
        for key, replicas in groups.items():
            for nodes in replicas:
                there[intent, key, tuple(sorted(nodes))] += 1
                for name, gpus in nodes:
                    free[name] -= gpus
    found: list[str] = []
    for number, wave in enumerate(placed.waves, 1):
        found += _replay(wave, number, free, there)
    end: Counter[object] = Counter()
    for served in placed.served:
        for seats in served.seats:
            for nodes in seats.nodes:
                end[served.intent, seats.key, tuple(sorted(nodes))] += 1
    if +there != end:
        found.append("the waves do not end at the placement")
    pace = max(1.0, rules.wave_share * now.gpus)
    for number, wave in enumerate(placed.waves, 1):
        parts = [(sum(gpus for _, gpus in move.nodes), classes[move.pool.node_pool].parts) for move in wave.starts]
        started = sum(gpus / of for gpus, of in parts)
        if started > pace + 1e-6 and len(wave.starts) > 1:
            found.append(f"wave {number} starts {started:g} GPUs, above {pace:g}")
    return found


def _replay(wave: Wave, number: int, free: dict[str, int], there: Counter[object]) -> list[str]:
    found: list[str] = []
    order = (("stop", wave.stops), ("start", wave.starts))
    for what, moves in order if wave.stops_first else reversed(order):
        for move in moves:
            key = (move.role, move.pool.node_pool, move.pool.configuration)
            name = (move.intent, key, tuple(sorted(move.nodes)))
            there[name] += 1 if what == "start" else -1
            if there[name] < 0:
                found.append(f"wave {number} stops a replica of {move.intent} that does not run")
            for node, gpus in move.nodes:
                free[node] = free.get(node, 0) + (gpus if what == "stop" else -gpus)
                if what == "start" and free[node] < 0:
                    found.append(f"wave {number} starts a replica of {move.intent} on the full node {node}")
    return found
