"""`Columns`: whole plans per intent, everything non-linear settled before the integer program sees them.

A column is one candidate alone, a mix of two (each evaluated at its own share a, b of the load, a + b >= 1), what runs
now, or nothing. A column is dropped where another of the same intent is no worse in money, in every resource row, in
starts and (where the goal is latency) in latency: no solution needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.placement.availability import survives
from planner.placement.legal import Ground
from planner.placement.options import ClassRow, Floats, Ints, Offer, Options, offer
from planner.placement.running import Running

if TYPE_CHECKING:
    from planner.intents import Fleet, Intent
    from planner.placement.rules import Rules
    from planner.strategies import Candidate

FULL = 1 - 1e-9
LATENCY_GOALS = ("min_latency", "cost_target")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """All columns of all intents; those of intent i are `first[i]` to `first[i + 1]`, the empty one first."""

    names: tuple[str, ...]
    """Of the intents."""
    options: tuple[Options, ...]
    rows: tuple[ClassRow, ...]
    pools: tuple[str, ...]
    first: Ints
    intent: Ints
    one: Ints  # index into the intent's options, -1 = none
    two: Ints
    share: Floats
    """Share of the load that is served; what runs now counts as 1 while it covers `Rules.coverage`."""
    deficit: Floats
    """How far below the intent's best column the share lies."""
    standing: NDArray[np.bool_]
    cost: Floats
    money: Floats
    latency: Floats  # relative to the intent's fastest column, 0 where latency is not its goal
    starts: Floats
    start_gpus: Floats
    load: Floats
    nominal: Floats

    @property
    def count(self) -> int:
        """Number of columns."""
        return int(self.intent.size)

    def members(self, column: int) -> tuple[Candidate, ...]:
        """The candidates of a column."""
        options = self.options[self.intent[column]].candidates
        return tuple(options[index] for index in (self.one[column], self.two[column]) if index >= 0)

    def standing_of(self, intent: int) -> tuple[Candidate, ...]:
        """What runs for an intent, valued tonight; empty where nothing does or its worth is not known."""
        options = self.options[intent]
        return tuple(options.candidates[index] for index in options.standing)

    def settled(self, intent: int) -> bool:
        """Whether what runs serves as much as any column: its starts count against the movement limit."""
        mine = self.of(intent)
        return bool((self.standing[mine] & (self.deficit[mine] == 0.0)).any())

    def of(self, intent: int) -> slice:
        """The columns of one intent."""
        return slice(int(self.first[intent]), int(self.first[intent + 1]))


def build(  # noqa: PLR0913 - the inputs of the whole problem
    fleet: Fleet,
    candidates: Mapping[str, Sequence[Candidate]],
    *,
    ground: Ground,
    now: Running,
    rules: Rules,
    standing: Mapping[str, Sequence[Candidate]],
) -> Columns:
    """Enumerate the columns of every intent, in the fleet's order."""
    offered = offer(fleet, candidates, ground=ground, now=now, rules=rules, standing=standing)
    limits = np.array([row.limit for row in offered.rows], dtype=float)
    picked = [
        _of_intent(intent, opts, ground, rules, limits=limits, moving=bool(now.replicas))
        for intent, opts in zip(fleet.intents, offered.options, strict=True)
    ]
    return _join(fleet, offered, picked, rules)


def _of_intent(  # noqa: PLR0913 - one intent's whole problem
    intent: Intent, options: Options, ground: Ground, rules: Rules, *, limits: Floats, moving: bool
) -> tuple[Ints, Ints]:
    """(one, two): the columns of one intent as pairs of option indices, -1 = none; the empty column first."""
    rule = intent.availability.survive
    one, two = _usable(intent, options, ground, rules, limits=limits, moving=moving, apart=rule == "failure_domain")
    if rule == "node" and not (_total(options.share, one, two) >= FULL).any():
        one, two = _usable(intent, options, ground, rules, limits=limits, moving=moving, apart=True)
    share = np.minimum(1.0, _total(options.share, one, two))
    top = share.max(initial=0.0)
    full = share >= min(FULL, top - 1e-9)
    dims = _dimensions(intent, options, one, two, moving=moving)
    money = _total(options.money, one, two)
    load = _total(options.load, one, two)
    best = np.flatnonzero(full)[pareto(money[full], dims[full], load[full] > 0, rules.columns_per_intent)]
    part = np.flatnonzero(~full)
    rung_dims = np.column_stack((dims[part], -share[part]))
    rungs = part[pareto(money[part], rung_dims, load[part] > 0, rules.rungs_per_intent)]
    kept = np.concatenate((best, rungs))
    first, second = (*options.standing, -1, -1)[:2]
    head = [(-1, -1)] + [(first, second)] * bool(options.standing)
    front = np.array(head, dtype=np.int64)
    return np.concatenate((front[:, 0], one[kept])), np.concatenate((front[:, 1], two[kept]))


def _usable(  # noqa: PLR0913 - one intent's whole problem
    intent: Intent, options: Options, ground: Ground, rules: Rules, *, limits: Floats, moving: bool, apart: bool
) -> tuple[Ints, Ints]:
    """Candidates alone and in mixes of two, less what the intent's own limits rule out."""
    n = len(options.candidates)
    one, two = np.arange(n), np.full(n, -1)
    if rules.mixes and n > 1:
        a, b = _pairs(intent, options, n, rules, moving=moving, apart=apart)
        one, two = np.concatenate((one, a)), np.concatenate((two, b))
    return _allowed(intent, options, ground, one, two, limits=limits)


def _pairs(  # noqa: PLR0913 - one intent's whole problem
    intent: Intent, options: Options, n: int, rules: Rules, *, moving: bool, apart: bool
) -> tuple[Ints, Ints]:
    """Mixes of two candidates with different replicas that together serve everything, neither of them alone.

    `apart`: also of those that could, so that one is left when what the other stands on is lost.
    """
    alone = np.arange(n)
    partial = alone if apart else alone[options.share[:n] < FULL]
    nothing = np.full(partial.size, -1)
    dims = np.column_stack((_dimensions(intent, options, partial, nothing, moving=moving), -options.share[partial]))
    limit = 2 * rules.columns_per_intent
    partial = partial[pareto(options.money[partial], dims, options.load[partial] > 0, limit)]
    i, j = np.triu_indices(partial.size, k=1)
    a, b = partial[i], partial[j]
    one, two = options.first_key, options.second_key
    shared = (one[a] == one[b]) | (one[a] == two[b]) | (two[a] == one[b]) | (two[a] == two[b])
    keep = (options.share[a] + options.share[b] >= FULL) & ~shared
    return a[keep], b[keep]


def _allowed(  # noqa: PLR0913 - one intent's limits
    intent: Intent, options: Options, ground: Ground, one: Ints, two: Ints, *, limits: Floats
) -> tuple[Ints, Ints]:
    """Drop columns that the intent's own limits, or the size of a class, rule out."""
    replicas = _total(options.replicas, one, two)
    keep = replicas >= intent.min_replicas
    if intent.max_replicas is not None:
        keep &= replicas <= intent.max_replicas
    if intent.budget is not None:
        keep &= _total(options.cost, one, two) <= intent.budget * (1 + 1e-9)
    keep &= (_total(options.load, one, two) <= limits).all(axis=1)
    one, two = one[keep], two[keep]
    if intent.availability.survive == "none":
        return one, two
    parts = [tuple(options.candidates[x] for x in pair if x >= 0) for pair in zip(one, two, strict=True)]
    safe = np.array([survives(members, intent, ground.classes) for members in parts], dtype=bool)
    return one[safe], two[safe]


def _dimensions(intent: Intent, options: Options, one: Ints, two: Ints, *, moving: bool) -> Floats:
    """What a column must not be worse in, besides money, to make another superfluous."""
    dims = [_total(options.load, one, two), _total(options.shape, one, two), _total(options.cost, one, two)[:, None]]
    if moving:
        dims.append(_total(options.start_gpus, one, two)[:, None])
    if intent.goal in LATENCY_GOALS:
        dims.append(_slower(options.latency, one, two)[:, None])
    return np.column_stack(dims)


def pareto(money: Floats, dims: Floats, support: NDArray[np.bool_], limit: int) -> Ints:
    """Indices of the cheapest columns that no cheaper one equals or beats in every dimension.

    At `limit` the cheapest column of each further set of classes is still added (`support` (n, rows) says which
    classes a column uses), so that a full class never takes an intent's only way out.
    """
    left = np.lexsort((dims.sum(axis=1), money))
    rest = dims[left]
    out: list[int] = []
    while left.size and len(out) < limit:
        out.append(int(left[0]))
        ahead = (rest[1:] < rest[0] - 1e-12).any(axis=1)
        left, rest = left[1:][ahead], rest[1:][ahead]
    if left.size:
        _, new = np.unique(support[left], axis=0, return_index=True)
        out += [int(left[index]) for index in sorted(new)[:limit]]
    return np.array(out, dtype=np.int64)


def _total(values: Floats, one: Ints, two: Ints) -> Floats:
    second = values[np.maximum(two, 0)] if len(values) else values
    mask = (two >= 0).reshape((-1,) + (1,) * (values.ndim - 1))
    total: Floats = values[one] + np.where(mask, second, 0.0)
    return total


def _slower(latency: Floats, one: Ints, two: Ints) -> Floats:
    slow: Floats = np.maximum(latency[one], np.where(two >= 0, latency[np.maximum(two, 0)], 0.0))
    return slow


def _join(fleet: Fleet, offered: Offer, picked: Sequence[tuple[Ints, Ints]], rules: Rules) -> Columns:
    options, rows, pools = offered.options, offered.rows, offered.pools
    sizes = [one.size for one, _ in picked]
    total = sum(sizes)
    scalars, load, nominal = np.zeros((8, total)), np.zeros((total, len(rows))), np.zeros((total, len(pools)))
    first = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    standing = np.zeros(total, dtype=bool)
    for i, (intent, opts, (one, two)) in enumerate(zip(fleet.intents, options, picked, strict=True)):
        mine = slice(int(first[i]), int(first[i + 1]))
        filled = slice(int(first[i]) + 1, int(first[i + 1]))  # the empty column stays zero
        a, b = one[1:], two[1:]
        for row, values in enumerate((opts.share, opts.cost, opts.money, opts.starts, opts.start_gpus)):
            scalars[row, filled] = _total(values, a, b)
        load[filled], nominal[filled] = _total(opts.load, a, b), _total(opts.nominal, a, b)
        if opts.standing:
            standing[mine.start + 1] = True
        share = np.minimum(1.0, scalars[0, mine])
        share[standing[mine] & (share >= rules.coverage)] = 1.0
        scalars[0, mine], scalars[5, mine] = share, share.max() - share
        if intent.goal in LATENCY_GOALS and a.size:
            slow = _slower(opts.latency, a, b)
            slower = slow / slow[share[1:] >= share.max() - 1e-9].min() - 1
            scalars[6, filled] = np.round(slower - rules.doubt * standing[mine][1:], 2)
    scalars[5][scalars[5] < 1e-9] = 0.0
    return Columns(
        names=tuple(intent.name for intent in fleet.intents),
        options=options,
        rows=rows,
        pools=pools,
        first=first,
        intent=np.repeat(np.arange(len(sizes)), sizes),
        one=np.concatenate([one for one, _ in picked]),
        two=np.concatenate([two for _, two in picked]),
        share=scalars[0],
        deficit=scalars[5],
        standing=standing,
        cost=scalars[1],
        money=scalars[2],
        latency=np.maximum(0.0, scalars[6]),
        starts=scalars[3],
        start_gpus=scalars[4],
        load=load,
        nominal=nominal,
    )
