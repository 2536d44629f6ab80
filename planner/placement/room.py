"""`Room`: the free GPUs of one class while replicas are seated, and who holds what."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from planner.placement.bins import BinClass
from planner.placement.placed import Key, NodeGPUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Replicas of one intent and key that need places."""

    intent: str
    key: Key
    replicas: int
    slot: int
    """GPUs that one replica is charged."""
    per_node: int | None = None
    """Most of the intent's replicas that one node should hold (soft: as few over it as room allows); None = any."""


@dataclass(slots=True, eq=False)
class Piece:
    """One replica on its way to a place."""

    wanted: Wanted
    was: NodeGPUs | None = None
    """Where it runs now and stays if possible."""
    bins: list[tuple[int, int, int]] = field(default_factory=list)
    """(node, domain, GPUs charged)."""
    leaving: bool = False
    """It runs and is not wanted any more: it holds its bins until somebody needs them, so that others start first."""


class Room:
    """Free GPUs of one class, and who is where."""

    def __init__(self, bins: BinClass) -> None:
        self.bins = bins
        self.free = bins.free.copy()
        self.leaving = np.zeros_like(self.free)
        """GPUs held by what leaves, by (node, domain)."""
        self.held: dict[int, list[Piece]] = {}
        self.heaps: dict[int, list[int]] = {}
        self.of_intent: dict[str, dict[int, int]] = {}
        width = self.free.shape[1]
        for position, free in enumerate(self.free.reshape(-1).tolist()):
            if free:
                self.heaps.setdefault(free, []).append(position)
        self.width = max(1, width)

    def take(self, piece: Piece, bins: Sequence[tuple[int, int, int]]) -> None:
        """Seat a piece on (node, domain, GPUs) bins."""
        piece.bins = list(bins)
        for node, domain, gpus in bins:
            self._change(node, domain, -gpus)
            self.leaving[node, domain] += gpus * piece.leaving
        counts = self.of_intent.setdefault(piece.wanted.intent, {})
        for node in {node for node, _, _ in bins}:
            self.held.setdefault(node, []).append(piece)
            counts[node] = counts.get(node, 0) + (not piece.leaving)

    def give(self, piece: Piece) -> None:
        """Take a piece out again."""
        for node, domain, gpus in piece.bins:
            self._change(node, domain, gpus)
            self.leaving[node, domain] -= gpus * piece.leaving
        for node in {node for node, _, _ in piece.bins}:
            self.held[node].remove(piece)
            self.of_intent[piece.wanted.intent][node] -= not piece.leaving
        piece.bins = []

    def _change(self, node: int, domain: int, gpus: int) -> None:
        self.free[node, domain] += gpus
        heapq.heappush(self.heaps.setdefault(int(self.free[node, domain]), []), node * self.width + domain)

    def tightest(self, size: int) -> tuple[int, int] | None:
        """The fullest domain with room for `size`, lowest index first."""
        for free in sorted(amount for amount in self.heaps if amount >= size):
            heap = self.heaps[free]
            while heap:
                node, domain = divmod(heap[0], self.width)
                if self.free[node, domain] == free:
                    return node, domain
                heapq.heappop(heap)
        return None

    def spread(self, size: int, intent: str) -> tuple[int, int] | None:
        """The domain with room on the node that holds fewest replicas of the intent; among those the fullest."""
        counts = np.zeros(self.free.shape[0], dtype=np.int64)
        for node, count in self.of_intent.get(intent, {}).items():
            counts[node] = count
        score = np.where(self.free >= size, counts[:, None] * 1000 + self.free, np.iinfo(np.int64).max)
        if not score.size or score.min() == np.iinfo(np.int64).max:
            return None
        node, domain = divmod(int(score.argmin()), self.width)
        return node, domain
