"""From counts to nodes: each replica gets a place, what runs keeps its own.

Per class: (1) the running replicas that are still wanted stay where they are; (2) the others are placed largest slot
first, each into the fullest bin that has room (intents that ask for spares: the node with fewest of their replicas);
(3) where what stayed left holes too small, the bin that loses least is cleared, and what was cleared is placed again.
With slots that divide one another this always succeeds when the counts fit (module `bins`); otherwise the class is
reported, packed by patterns (module `patterns`), or taken back to the integer program.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planner.placement.bins import BinClass
from planner.placement.placed import Key, NodeGPUs
from planner.placement.room import Piece, Room, Wanted
from planner.placement.running import node_index
from planner.placement.spread import thin_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Places for the replicas of one class, kept ones first."""

    places: Mapping[tuple[str, Key], tuple[NodeGPUs, ...]]
    kept: Mapping[tuple[str, Key], int]
    unplaced: int = 0
    """GPUs of replicas that found no room; 0 = everything has its place."""


def assign(
    bins: BinClass, wanted: Sequence[Wanted], running: Mapping[str, Mapping[Key, tuple[NodeGPUs, ...]]]
) -> Assignment:
    """Give every wanted replica of one class its nodes."""
    room = Room(bins)
    staying, moving = _split(wanted, running)
    lost = [piece for piece in staying if not _stay(room, piece)]
    moving += [Piece(wanted=piece.wanted) for piece in lost]
    staying = [piece for piece in staying if piece.bins]
    for piece in _leaving(running, staying, bins):
        _stay(room, piece)
    placed, unplaced = _place(room, moving)
    again = {id(piece) for piece in placed}  # what stayed, was cleared, and found another place
    pieces = [*(piece for piece in staying if piece.bins and id(piece) not in again), *placed]
    thin_out(room, pieces)
    return _result(bins, wanted, pieces, unplaced)


def _split(
    wanted: Sequence[Wanted], running: Mapping[str, Mapping[Key, tuple[NodeGPUs, ...]]]
) -> tuple[list[Piece], list[Piece]]:
    """(replicas that stay, replicas that start). Who leaves when fewer are wanted: those on the emptiest nodes.

    Emptiest counts only what is sure to stay, so that whole nodes come free; an intent that wants to be spread keeps
    one replica per node first.
    """
    load: dict[str, int] = {}
    for want in wanted:
        runs = running.get(want.intent, {}).get(want.key, ())
        if len(runs) <= want.replicas:
            for nodes in runs:
                for name, gpus in nodes:
                    load[name] = load.get(name, 0) + gpus
    staying: list[Piece] = []
    moving: list[Piece] = []
    for want in wanted:
        runs = running.get(want.intent, {}).get(want.key, ())
        seen: dict[str, int] = {}
        turn = []
        for nodes in runs:
            seen[nodes[0][0]] = seen.get(nodes[0][0], 0) + 1
            turn.append(seen[nodes[0][0]] if want.per_node is not None else 0)
        order = sorted(range(len(runs)), key=lambda i: (turn[i], -load.get(runs[i][0][0], 0), i))
        chosen = sorted(order[: want.replicas])
        staying += [Piece(wanted=want, was=runs[i]) for i in chosen]
        moving += [Piece(wanted=want) for _ in range(want.replicas - len(chosen))]
    staying.sort(key=lambda piece: -piece.wanted.slot)
    return staying, moving


def _leaving(
    running: Mapping[str, Mapping[Key, tuple[NodeGPUs, ...]]], staying: Sequence[Piece], bins: BinClass
) -> list[Piece]:
    """What runs in this class and does not stay."""
    stays: dict[tuple[str, Key], list[NodeGPUs | None]] = {}
    for piece in staying:
        stays.setdefault((piece.wanted.intent, piece.wanted.key), []).append(piece.was)
    found = []
    for intent, groups in running.items():
        for key, replicas in groups.items():
            slot = bins.slot(key[2]) if key[1] == bins.name else None
            if slot is None:
                continue
            keep = list(stays.get((intent, key), ()))
            want = Wanted(intent=intent, key=key, replicas=len(replicas), slot=slot)
            for nodes in replicas:
                if nodes in keep:
                    keep.remove(nodes)
                else:
                    found.append(Piece(wanted=want, was=nodes, leaving=True))
    return found


def _stay(room: Room, piece: Piece) -> bool:
    """Hold the places a replica runs on now, False where the room is no longer there."""
    bins, slot = room.bins, piece.wanted.slot
    nodes = [parsed[1] for name, _ in piece.was or () if (parsed := node_index(name)) and parsed[1] < bins.nodes]
    if len(nodes) != max(1, slot // bins.node if slot >= bins.node else 1):
        return False
    if slot >= bins.node:
        taken = [(node, d, int(room.free[node, d])) for node in nodes for d in range(room.width)]
    elif slot > bins.domain:
        whole = [d for d in range(room.width) if room.free[nodes[0], d] == bins.domain]
        taken = [(nodes[0], d, bins.domain) for d in whole[: slot // bins.domain]]
    else:
        fits = [d for d in range(room.width) if room.free[nodes[0], d] >= slot]
        taken = [(nodes[0], d, slot) for d in sorted(fits, key=lambda d: (int(room.free[nodes[0], d]), d))[:1]]
    if sum(gpus for _, _, gpus in taken) != slot:
        return False
    room.take(piece, taken)
    return True


def _place(room: Room, pieces: Sequence[Piece]) -> tuple[list[Piece], int]:
    """Place largest first; returns the placed pieces, those cleared on the way included, and GPUs left over."""
    heap: list[tuple[int, int, int, Piece]] = []
    serial = 0
    for piece in pieces:
        heapq.heappush(heap, (-piece.wanted.slot, piece.wanted.per_node is None, serial, piece))
        serial += 1
    placed: dict[int, Piece] = {}
    unplaced = 0
    while heap:
        *_, piece = heapq.heappop(heap)
        spot = _spot(room, piece.wanted)
        if spot is None:
            _clear(room, piece.wanted.slot, leaving=True)
            spot = _spot(room, piece.wanted)
        if spot is None:
            cleared = _clear(room, piece.wanted.slot, leaving=False)
            spot = _spot(room, piece.wanted)
            for other in cleared:
                heapq.heappush(heap, (-other.wanted.slot, other.wanted.per_node is None, serial, other))
                serial += 1
                placed.pop(id(other), None)
        if spot is None:
            unplaced += piece.wanted.slot
            continue
        room.take(piece, spot)
        placed[id(piece)] = piece
    return list(placed.values()), unplaced


def _spot(room: Room, want: Wanted) -> list[tuple[int, int, int]] | None:
    bins, slot = room.bins, want.slot
    if slot <= bins.domain:
        found = room.tightest(slot) if want.per_node is None else room.spread(slot, want.intent)
        return None if found is None else [(*found, slot)]
    if slot < bins.node:
        need = slot // bins.domain
        full = (room.free == bins.domain).sum(axis=1)
        ready = np.flatnonzero(full >= need)
        if not ready.size:
            return None
        node = int(ready[np.argmin(full[ready])])
        domains = np.flatnonzero(room.free[node] == bins.domain)[:need]
        return [(node, int(d), bins.domain) for d in domains]
    empty = np.flatnonzero(room.free.sum(axis=1) == bins.node)
    if empty.size < slot // bins.node:
        return None
    nodes = empty[: slot // bins.node].tolist()
    return [(node, d, int(room.free[node, d])) for node in nodes for d in range(room.width)]


def _clear(room: Room, slot: int, *, leaving: bool) -> list[Piece]:
    """Make room for one slot where that moves fewest GPUs: by what leaves anyway, or smaller pieces; return those."""
    bins = room.bins
    if slot <= bins.domain:
        return _clear_domain(room, slot, leaving=leaving)
    nodes = max(1, slot // bins.node)
    need = min(slot, bins.node)
    if leaving and not room.leaving.any():
        return []
    free = room.free.sum(axis=1)
    movable = [
        node
        for node in range(bins.nodes)
        if int(bins.free[node].sum()) >= need
        and all(_gives_way(piece, need, leaving=leaving) for piece in room.held.get(node, ()))
    ]
    movable.sort(key=lambda node: (-int(free[node]), node))
    if len(movable) < nodes:
        return []
    moved: list[Piece] = []
    for node in movable[:nodes]:
        moved += _evict(room, list(room.held.get(node, ())))
    return moved


def _gives_way(piece: Piece, slot: int, *, leaving: bool) -> bool:
    return piece.leaving if leaving else piece.leaving or piece.wanted.slot < slot


def _clear_domain(room: Room, slot: int, *, leaving: bool) -> list[Piece]:
    flat, going = room.free.reshape(-1), room.leaving.reshape(-1)
    useful = np.flatnonzero((flat + going >= slot) & (going > 0)) if leaving else np.arange(flat.size)
    found = None
    for position in useful[np.argsort(-flat[useful], kind="stable")].tolist():
        node, domain = divmod(position, room.width)
        inside = _inside(room, node, domain, slot, leaving)
        if int(flat[position]) + sum(_held(p, node, domain) for p in inside) >= slot:
            found = node, domain
            break
    if found is None:
        return []
    node, domain = found
    inside = _inside(room, node, domain, slot, leaving)
    inside.sort(key=lambda p: (not p.leaving, _held(p, node, domain)))
    moved: list[Piece] = []
    while room.free[node, domain] < slot:
        lacking = slot - int(room.free[node, domain])
        exact = [p for p in inside if _held(p, node, domain) >= lacking]
        piece = exact[0] if exact else inside[-1]
        inside.remove(piece)
        moved += _evict(room, [piece])
    return moved


def _inside(room: Room, node: int, domain: int, slot: int, leaving: bool) -> list[Piece]:  # noqa: FBT001 - passed on
    """Pieces of a domain that may give way to a slot."""
    pieces = room.held.get(node, ())
    return [p for p in pieces if _gives_way(p, slot, leaving=leaving) and _held(p, node, domain)]


def _held(piece: Piece, node: int, domain: int) -> int:
    return sum(gpus for where, at, gpus in piece.bins if (where, at) == (node, domain))


def _evict(room: Room, pieces: Sequence[Piece]) -> list[Piece]:
    """Take pieces out; returns those that need another place."""
    for piece in pieces:
        room.give(piece)
        piece.was = None
    return [piece for piece in pieces if not piece.leaving]


def _result(bins: BinClass, wanted: Sequence[Wanted], pieces: Sequence[Piece], unplaced: int) -> Assignment:
    places: dict[tuple[str, Key], tuple[NodeGPUs, ...]] = {}
    kept: dict[tuple[str, Key], int] = {}
    of_want: dict[tuple[str, Key], list[Piece]] = {(want.intent, want.key): [] for want in wanted}
    for piece in pieces:
        of_want[piece.wanted.intent, piece.wanted.key].append(piece)
    for name, mine in of_want.items():
        mine.sort(key=lambda piece: (piece.was is None, piece.bins))
        places[name] = tuple(_gpus_held(bins, piece) for piece in mine)
        kept[name] = sum(piece.was is not None for piece in mine)
    return Assignment(places=places, kept=kept, unplaced=unplaced)


def _gpus_held(bins: BinClass, piece: Piece) -> NodeGPUs:
    """GPUs that the replica uses, by node: its ranks fill the domains that it was charged in order."""
    configuration = piece.wanted.key[2]
    left, tp = configuration.gpus, configuration.tp
    held: dict[int, int] = {}
    for node, _, gpus in piece.bins:
        use = min(left, gpus if piece.wanted.slot <= bins.domain else gpus // tp * tp)
        held[node] = held.get(node, 0) + use
        left -= use
    return tuple((bins.node_name(node), gpus) for node, gpus in held.items() if gpus)


def fill_bins(
    bins: BinClass,
    wanted: Sequence[Wanted],
    running: Mapping[str, Mapping[Key, tuple[NodeGPUs, ...]]],
    filled: Sequence[tuple[int, Mapping[int, int]]],
) -> Assignment:
    """Seat replicas after a packing that is known to fit: what runs keeps its bin where the packing has its slot."""
    room = Room(bins)
    staying, moving = _split(wanted, running)
    at_home: dict[int, list[Piece]] = {}
    for piece in staying:
        parsed = node_index(piece.was[0][0]) if piece.was else None
        at_home.setdefault(parsed[1] if parsed else -1, []).append(piece)
    pieces: list[Piece] = []
    open_slots: list[tuple[int, int, int]] = []
    by_room: dict[int, list[Mapping[int, int]]] = {}
    for free, slots in filled:
        by_room.setdefault(free, []).append(slots)
    for node, domain in np.argwhere(bins.free > 0).tolist():
        ways = by_room.get(int(bins.free[node, domain]))
        if not ways:
            continue
        mine = at_home.get(node, [])
        have = [piece.wanted.slot for piece in mine]
        kept_gpus = [sum(min(n, have.count(size)) * size for size, n in way.items()) for way in ways]
        best = kept_gpus.index(max(kept_gpus))
        left = dict(ways.pop(best))
        for piece in list(mine):
            if left.get(piece.wanted.slot, 0):
                left[piece.wanted.slot] -= 1
                mine.remove(piece)
                room.take(piece, [(node, domain, piece.wanted.slot)])
                pieces.append(piece)
        open_slots += [(slot, node, domain) for slot, count in left.items() for _ in range(count)]
    for piece in (p for rest in at_home.values() for p in rest):
        piece.was = None
        moving.append(piece)
    unplaced = _fill_open(room, moving, open_slots, pieces)
    return _result(bins, wanted, pieces, unplaced)


def _fill_open(room: Room, moving: Sequence[Piece], open_slots: list[tuple[int, int, int]], pieces: list[Piece]) -> int:
    by_size: dict[int, list[tuple[int, int]]] = {}
    for slot, node, domain in reversed(open_slots):
        by_size.setdefault(slot, []).append((node, domain))
    unplaced = 0
    for piece in moving:
        spots = by_size.get(piece.wanted.slot, [])
        if not spots:
            unplaced += piece.wanted.slot
            continue
        counts = room.of_intent.get(piece.wanted.intent, {})
        if piece.wanted.per_node is None:
            spot = spots.pop()
        else:
            spot = min(spots, key=lambda at: (counts.get(at[0], 0), at))
            spots.remove(spot)
        room.take(piece, [(*spot, piece.wanted.slot)])
        pieces.append(piece)
    return unplaced
