"""DECISIONS: `Placed`: which candidates run where, how good that provably is, and in which order to get there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from planner.plan import Role, Solved, Status
from planner.strategies import Candidate, Configuration, Pool

#: What one replica holds: ((node name, GPUs), ...). A node is named `<node pool>-<index>`.
NodeGPUs = tuple[tuple[str, int], ...]
#: Replicas that are equal in this key can stand in for each other without a restart.
Key = tuple[Role, str, Configuration]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seats:
    """Where the replicas of one pool of a chosen candidate run."""

    role: Role
    pool: Pool
    nodes: tuple[NodeGPUs, ...]
    """One entry per replica."""
    kept: int = 0
    """How many of them, the first ones, already run there."""

    @property
    def key(self) -> Key:
        """What a replica must match to be kept."""
        return (self.role, self.pool.node_pool, self.pool.configuration)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What one intent gets."""

    intent: str
    candidates: tuple[Candidate, ...]
    """One strategy or a mix of two, each evaluated at its own share of the load; empty = nothing runs."""
    share: float
    """Share of the intent's rate that is served within the SLO at the slow end."""
    seats: tuple[Seats, ...]
    status: Status
    reason: str
    """One sentence: why met with this strategy, or why not met."""
    binding: str = ""
    """What kept the intent from a cheaper strategy; empty where nothing did."""
    cost_per_hour: float = 0.0
    runner_up: tuple[Candidate, ...] = ()
    """The best column that was not chosen."""
    runner_up_extra: float | None = None
    """Dollars per hour that it would cost more at the current shadow prices, what it would start charged."""
    starts: int = 0
    """Replicas that start tonight, forced moves included."""
    started_gpus: float = 0.0
    """Parts of a GPU as parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of the lexicographic objective."""

    name: str
    value: float
    unit: str
    bound: float | None
    """Proven lower bound of the stage, given the stages before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One replica that starts or stops."""

    intent: str
    role: Role
    pool: Pool
    """With `replicas` = 1."""
    nodes: NodeGPUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """One step of the change: first all starts, and when they serve, all stops."""

    starts: tuple[Move, ...]
    stops: tuple[Move, ...]
    stops_first: bool = False
    """True where nothing can start before something stops: the dips below are the price."""
    dips: tuple[tuple[str, float], ...] = ()
    """(intent, share served until the wave's starts are up) where that is below both before and after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The night's placement. Every field is a value: equal inputs give an equal Placed."""

    served: tuple[Served, ...]
    """In the order of the fleet's intents."""
    solved: Solved
    stages: tuple[Stage, ...]
    shadow_prices: dict[str, float | None]
    """Dollars per hour that one more GPU (as part of a whole node) of the pool would save."""
    missing_gpus: dict[str, int] = field(default_factory=dict)
    """GPUs that are short, by node pool, for everything to be served (the cheapest way to add them)."""
    cost_per_hour: float = 0.0
    starts: int = 0
    started_gpus: float = 0.0
    """Parts of a GPU as parts."""
    movement_gpus: int | None = None
    """GPUs that may start tonight beyond what unmet demand forces; None without an incumbent."""
    forced_gpus: int = 0
    """GPUs beyond that limit that service, or a node that went away, forces to start."""
    settled: tuple[str, ...] = ()
    """Intents that what runs already serves enough: their starts count against the movement limit."""
    waves: tuple[Wave, ...] = ()

    def __getitem__(self, intent: str) -> Served:
        """What the intent of that name gets; KeyError if there is none."""
        return {served.intent: served for served in self.served}[intent]


Ending = Literal["proven", "within_gap", "time_limit", "rounded", "greedy", "kept_last"]


def roles(candidate: Candidate) -> tuple[tuple[Role, Pool], ...]:
    """The pools of a candidate, each with the role its replicas play."""
    strategy = candidate.strategy
    if strategy.kind == "collocated":
        return (("both", strategy.pool),)
    return (("prefill", strategy.prefill), ("decode", strategy.decode))


def keys(candidate: Candidate) -> tuple[tuple[Key, int], ...]:
    """(key, replicas) of each pool of a candidate."""
    return tuple(((role, pool.node_pool, pool.configuration), pool.replicas) for role, pool in roles(candidate))
