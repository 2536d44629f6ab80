"""Waves: the order of the change, surge before drain.

In each wave first everything starts that has room (by priority, at most `Rules.wave_share` of the GPUs in use), then
everything stops that is not needed any more: what an intent is served must never fall below the lesser of before and
after. Stops of one wave stay within one failure domain. Where nothing can start before something stops, the stop that
costs least service goes first, and the wave says what dips.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.placement.placed import Key, Move, NodeGPUs, Served, Wave, keys
from planner.placement.running import node_index
from planner.strategies import Pool

if TYPE_CHECKING:
    from planner.intents import Fleet
    from planner.placement.bins import BinClass
    from planner.placement.running import Running
    from planner.strategies import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What differs between what runs and what was placed."""

    starts: tuple[Move, ...]
    stops: tuple[Move, ...]


def change(fleet: Fleet, served: Sequence[Served], now: Running) -> Change:
    """Starts and stops, by the intents' priority; a replica stays where key and nodes are the same."""
    order = sorted(range(len(fleet.intents)), key=lambda i: (fleet.intents[i].priority, i))
    starts: list[Move] = []
    stops: list[Move] = []
    placed = {one.intent: one for one in served}
    for name in [fleet.intents[i].name for i in order]:
        mine = now.replicas.get(name, {})
        wanted = {seats.key: seats.nodes for seats in placed[name].seats}
        for key in [*wanted, *(key for key in mine if key not in wanted)]:
            before, after = Counter(map(_sorted, mine.get(key, ()))), Counter(map(_sorted, wanted.get(key, ())))
            starts += [_move(name, key, nodes) for nodes in (after - before).elements()]
            stops += [_move(name, key, nodes) for nodes in (before - after).elements()]
    gone = [name for name in now.replicas if name not in placed]
    stops += [_move(name, key, nodes) for name in gone for key, all_ in now.replicas[name].items() for nodes in all_]
    return Change(starts=tuple(starts), stops=tuple(stops))


def waves(  # noqa: PLR0913 - before, after, the ground and the pace
    fleet: Fleet,
    served: Sequence[Served],
    now: Running,
    *,
    standing: Mapping[str, Sequence[Candidate]],
    classes: Mapping[str, BinClass],
    wave_share: float,
) -> tuple[Wave, ...]:
    """Order the change into waves. `standing` values what runs under tonight's load, by intent, where known."""
    todo = change(fleet, served, now)
    if not (todo.starts or todo.stops):
        return ()
    state = Transit(served, now, standing=standing, classes=classes)
    pace = max(1.0, wave_share * now.gpus)
    starts, stops = list(todo.starts), list(todo.stops)
    found: list[Wave] = []
    while starts or stops:
        dips = state.dips()
        begun = state.start_what_fits(_in_turn(starts, stops, dips), pace)
        up = {id(move) for move in begun}  # equal replicas on one node are equal moves
        starts = [move for move in starts if id(move) not in up]
        ended = state.stop_what_may(stops, pace)
        if begun or ended:
            found.append(Wave(starts=tuple(begun), stops=tuple(ended), dips=dips))
        else:
            found.append(state.force(starts, stops))
    return tuple(found)


def _in_turn(starts: Sequence[Move], stops: Sequence[Move], dips: Sequence[tuple[str, float]]) -> list[Move]:
    """Who starts first: who dips, then who takes a node that only its own stops would free again, then who frees most.

    The second, lest others fill that node first; the third, so that room grows before it is needed.
    """
    low = {name for name, _ in dips}
    freed: defaultdict[str, float] = defaultdict(float)
    for move in stops:
        freed[move.intent] += _size(move)
    for move in starts:
        freed[move.intent] -= _size(move)
    own = {(move.intent, name) for move in stops for name, _ in move.nodes}

    def turn(move: Move) -> tuple[bool, bool, float]:
        swaps = any((move.intent, name) in own for name, _ in move.nodes)
        return move.intent not in low, not swaps, -freed[move.intent]

    return sorted(starts, key=turn)


class Transit:
    """The fleet while it changes: free GPUs per node, replicas per intent and key, and what they serve."""

    def __init__(
        self,
        served: Sequence[Served],
        now: Running,
        *,
        standing: Mapping[str, Sequence[Candidate]],
        classes: Mapping[str, BinClass],
    ) -> None:
        self.classes = classes
        self.free = {
            bins.node_name(node): int(gpus)
            for bins in classes.values()
            for node, gpus in enumerate(bins.free.sum(axis=1).tolist())
        }
        self.present: dict[str, Counter[Key]] = {}
        for intent, groups in now.replicas.items():
            self.present[intent] = Counter({key: len(nodes) for key, nodes in groups.items()})
            for nodes in (replica for group in groups.values() for replica in group):
                self._hold(nodes, -1)
        self.worth: dict[str, list[tuple[float, tuple[tuple[Key, int], ...]]]] = {}
        after = {one.intent: one for one in served}
        for intent in dict.fromkeys([*after, *now.replicas]):
            chosen = after[intent].candidates if intent in after else ()
            self.worth[intent] = _worth(chosen, standing.get(intent, ()), now.replicas.get(intent, {}))
        start = {intent: self.share(intent) for intent in self.worth}
        self.floor = {
            intent: min(start[intent], after[intent].share if intent in after else 0.0) for intent in self.worth
        }

    def share(self, intent: str) -> float:
        """Share of the intent's load that the present replicas serve; a pair of pools by its weaker side."""
        present = self.present.get(intent, Counter())
        parts = (share * min(present[key] / count for key, count in group) for share, group in self.worth[intent])
        return min(1.0, sum(parts))

    def dips(self) -> tuple[tuple[str, float], ...]:
        """(intent, share) of all that are served less than before and after."""
        now = {name: self.share(name) for name in self.floor}
        return tuple((name, share) for name, share in now.items() if share < self.floor[name] - 1e-9)

    def start_what_fits(self, starts: list[Move], pace: float) -> list[Move]:
        """Start in order what has room, at most `pace` GPUs (and at least one replica)."""
        begun: list[Move] = []
        gpus = 0.0
        for move in starts:
            size = _size(move)
            if begun and gpus + size > pace + 1e-9:
                continue
            if all(self.free.get(name, 0) >= need for name, need in move.nodes):
                self._apply(move, 1)
                begun.append(move)
                gpus += size
        return begun

    def stop_what_may(self, stops: list[Move], pace: float) -> list[Move]:
        """Stop in order what is not needed, within one failure domain and `pace`; removes it from the list."""
        ended: list[Move] = []
        gpus = 0.0
        where: str | None = None
        for move in list(stops):
            domain = self._domain(move)
            if (where is not None and domain != where) or (ended and gpus + _size(move) > pace + 1e-9):
                continue
            self._apply(move, -1)
            if self.share(move.intent) < self.floor[move.intent] - 1e-9:
                self._apply(move, 1)
                continue
            where = domain
            stops.remove(move)
            ended.append(move)
            gpus += _size(move)
        return ended

    def force(self, starts: list[Move], stops: list[Move]) -> Wave:
        """Stop what blocks one start, the one that costs least service, then start it."""
        ways = [
            (self._loss(blockers), at) for at, move in enumerate(starts) if (blockers := self._blockers(move, stops))
        ]
        _, at = min(ways)
        move = starts[at]
        blockers = self._blockers(move, stops)
        for blocker in blockers:
            self._apply(blocker, -1)
            stops.remove(blocker)
        dips = self.dips()
        self._apply(move, 1)
        starts.remove(move)
        return Wave(starts=(move,), stops=tuple(blockers), stops_first=True, dips=dips)

    def _blockers(self, move: Move, stops: Sequence[Move]) -> list[Move]:
        """Stops that make room for a start, fewest GPUs first on each node; empty where they cannot."""
        chosen: list[Move] = []
        for name, need in move.nodes:
            lacking = need - self.free.get(name, 0)
            freed = sum(dict(stop.nodes).get(name, 0) for stop in chosen)
            here = [stop for stop in stops if name in dict(stop.nodes) and not any(stop is other for other in chosen)]
            for stop in sorted(here, key=lambda stop: -dict(stop.nodes)[name]):
                if freed >= lacking:
                    break
                chosen.append(stop)
                freed += dict(stop.nodes)[name]
            if freed < lacking:
                return []
        return chosen

    def _loss(self, blockers: Sequence[Move]) -> float:
        for move in blockers:
            self._apply(move, -1)
        names = {move.intent for move in blockers}
        loss = sum(max(0.0, self.floor[name] - self.share(name)) for name in sorted(names))
        for move in blockers:
            self._apply(move, 1)
        return loss

    def _apply(self, move: Move, sign: int) -> None:
        key: Key = (move.role, move.pool.node_pool, move.pool.configuration)
        self.present.setdefault(move.intent, Counter())[key] += sign
        self._hold(move.nodes, -sign)

    def _hold(self, nodes: NodeGPUs, sign: int) -> None:
        for name, gpus in nodes:
            self.free[name] = self.free.get(name, 0) + sign * gpus

    def _domain(self, move: Move) -> str:
        parsed = node_index(move.nodes[0][0])
        bins = self.classes.get(parsed[0]) if parsed else None
        return bins.pool.failure_domain if bins else ""


def _worth(
    chosen: Sequence[Candidate], standing: Sequence[Candidate], runs: Mapping[Key, Sequence[NodeGPUs]]
) -> list[tuple[float, tuple[tuple[Key, int], ...]]]:
    """(share, ((key, replicas for that share), ...)) of all groups of replicas, each group of keys once.

    A group that is valued twice counts at the higher share per replica: shares end at 1, so both are lower bounds.
    What runs and is not valued tonight counts as serving everything together, in proportion to its GPUs.
    """
    best: dict[tuple[Key, ...], tuple[float, tuple[tuple[Key, int], ...]]] = {}
    for candidate in (*chosen, *standing):
        group = keys(candidate)
        name = tuple(key for key, _ in group)
        if name not in best or candidate.share / group[0][1] > best[name][0] / best[name][1][0][1]:
            best[name] = (candidate.share, group)
    groups = list(best.values())
    known = {key for name in best for key in name}
    unknown = {key: len(nodes) for key, nodes in runs.items() if key not in known}
    total = sum(key[2].gpus * len(nodes) for key, nodes in runs.items())
    return groups + [(key[2].gpus * count / total, ((key, count),)) for key, count in unknown.items()]


def _move(intent: str, key: Key, nodes: NodeGPUs) -> Move:
    return Move(intent=intent, role=key[0], pool=Pool(configuration=key[2], replicas=1, node_pool=key[1]), nodes=nodes)


def _size(move: Move) -> float:
    """GPUs that a replica takes of the fleet, a part of one as that part."""
    return move.pool.configuration.whole_gpus


def _sorted(nodes: NodeGPUs) -> NodeGPUs:
    return tuple(sorted(nodes))


def started(moves: Change) -> dict[str, tuple[int, float]]:
    """(replicas, GPUs) that start, by intent."""
    found: dict[str, tuple[int, float]] = {}
    for move in moves.starts:
        count, gpus = found.get(move.intent, (0, 0.0))
        found[move.intent] = (count + 1, gpus + _size(move))
    return found
