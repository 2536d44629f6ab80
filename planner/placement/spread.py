"""Spread replicas that must not share a node: by moving them, or by changing places with others."""

from __future__ import annotations

from collections.abc import Sequence

from planner.placement.room import Piece, Room


def thin_out(room: Room, pieces: Sequence[Piece]) -> None:
    """Move replicas off nodes that hold more of their intent than it wants there, as far as there is a way."""
    crowded = [piece for piece in pieces if _crowded(room, piece)]
    if crowded:
        for piece in [p for held in room.held.values() for p in held if p.leaving]:
            if piece.bins:
                room.give(piece)
    for piece in crowded:
        if _crowded(room, piece):
            _move_off(room, piece)


def _crowded(room: Room, piece: Piece) -> bool:
    most = piece.wanted.per_node
    if most is None or len(piece.bins) != 1 or piece.wanted.slot > room.bins.domain:
        return False
    return room.of_intent[piece.wanted.intent].get(piece.bins[0][0], 0) > most


def _move_off(room: Room, piece: Piece) -> None:
    """To a node with room and fewer of the intent; else change places with smaller or equal pieces of others."""
    counts = room.of_intent[piece.wanted.intent]
    home = piece.bins[0]
    here = counts[home[0]]
    room.give(piece)
    found = room.spread(piece.wanted.slot, piece.wanted.intent)
    if found is not None and counts.get(found[0], 0) < here - 1:
        piece.was = None
        room.take(piece, [(*found, piece.wanted.slot)])
        return
    others = sorted((counts.get(node, 0), node) for node in range(room.bins.nodes))
    for count, node in others:
        if count >= here - 1:
            break
        for domain in range(room.width):
            swap = _exchange(room, piece, node=node, domain=domain, home=home)
            if swap is not None:
                for other in swap:
                    room.give(other)
                    other.was = None
                piece.was = None
                room.take(piece, [(node, domain, piece.wanted.slot)])
                for other in swap:
                    room.take(other, [(home[0], home[1], other.wanted.slot)])
                return
    room.take(piece, [home])


def _exchange(room: Room, piece: Piece, *, node: int, domain: int, home: tuple[int, int, int]) -> list[Piece] | None:
    """Pieces of one domain that would make room for `piece` and fit where it was; None = there are none."""
    lacking = piece.wanted.slot - int(room.free[node, domain])
    if piece.wanted.slot > int(room.bins.free[node, domain]):
        return None
    back = int(room.free[home[0], home[1]])  # the piece itself is out already
    inside = [p for p in room.held.get(node, ()) if _may_go(room, p, piece, home[0]) and p.bins[0][1] == domain]
    chosen: list[Piece] = []
    moved = 0
    for other in sorted(inside, key=lambda p: -p.wanted.slot):
        if moved < lacking and moved + other.wanted.slot <= back:
            chosen.append(other)
            moved += other.wanted.slot
    return chosen if moved >= lacking else None


def _may_go(room: Room, other: Piece, piece: Piece, home: int) -> bool:
    if other.wanted.intent == piece.wanted.intent or other.wanted.slot > piece.wanted.slot or len(other.bins) != 1:
        return False
    most = other.wanted.per_node
    return most is None or room.of_intent[other.wanted.intent].get(home, 0) < most
