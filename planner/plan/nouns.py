"""DECISIONS: `Plan` and its parts: what plan.json holds, and everything that is derived from it.

A plan is immutable and explains itself. `digest` is the sha256 of its canonical JSON without `serial` and `digest`;
manifests carry it, so an unchanged plan is a zero diff whatever its serial.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from catalog.cluster import Fact, PriceTier

Status = Literal["met", "margin_consumed", "unmet", "no_data"]
Role = Literal["both", "prefill", "decode"]
Argument = str | int | float | bool
Attention = Literal["full", "sliding", "sinks", "mla"]


class NodeShare(Fact):
    """GPUs of one node that a replica holds."""

    node: str
    """`<node pool>-<index>`."""
    gpus: int


class Window(Fact):
    """Bounds for an autoscaler in one part of the day."""

    start_hour: float = Field(ge=0.0, lt=24.0)
    """UTC."""
    end_hour: float = Field(gt=0.0, le=24.0)
    min_replicas: int = Field(ge=0)
    max_replicas: int = Field(ge=1)


class ReplicaGroup(Fact):
    """Equal replicas of one intent in one role on one node pool: one `vllm serve` command line."""

    intent: str
    role: Role
    model: str
    checkpoint: str
    """Hugging Face name that vLLM loads."""
    gpu: str
    node_pool: str
    replicas: int
    gpus_per_replica: int
    tp: int
    pp: int
    dp: int
    expert_parallel: bool
    quantization: str
    kv_dtype: str
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    enable_prefix_caching: bool
    kv_cache_memory_bytes: int
    """Per GPU."""
    router: str
    nodes: tuple[tuple[NodeShare, ...], ...]
    """One entry per replica."""
    online_quantization: str | None = None
    """What `--quantization` must say; None where the checkpoint says it."""
    max_num_queued_tokens: int | None = None
    """Prompt tokens that may wait in one replica before it answers 503: target TTFT x prefill throughput."""
    overrides: dict[str, Argument] = Field(default_factory=dict)
    """Long flags without dashes that the user sets by hand; merged last."""
    windows: tuple[Window, ...] = ()
    """Bounds by time of day; without them an autoscaler may go from one replica to what was planned."""
    engines_per_gpu: int = 1
    """Engines that share the replica's GPU, itself counted; above 1 `gpus_per_replica` and the nodes' `gpus` count
    parts of a GPU, and the field is written."""
    attention: Attention | None = None
    """How the model attends, where the plan states it: it decides which attention backends can serve it."""

    @property
    def gpus(self) -> int:
        """GPUs of all replicas, rounded up where they share them."""
        return -(-self.replicas * self.gpus_per_replica // self.engines_per_gpu)

    @model_serializer(mode="wrap")
    def _alone_goes_unsaid(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        written: dict[str, object] = write(self)
        if self.engines_per_gpu == 1:
            written.pop("engines_per_gpu", None)
        return written

    @property
    def nodes_per_replica(self) -> int:
        """Nodes that one replica spans, 1 unless it is larger than a node."""
        return max((len(replica) for replica in self.nodes), default=1)


class Latency(Fact):
    """Predicted latency of a strategy, seconds; `high` is the SLO's quantile at the slow end of the interval.

    None = without bound: the strategy does not keep up with the whole rate.
    """

    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    high_s: float | None


class Choice(Fact):
    """One strategy with its numbers: chosen, runner-up, or a point of the front."""

    strategy: str
    cost_per_hour: float
    quality: float
    ttft: Latency
    tpot: Latency
    e2e: Latency | None = None
    goodput: float
    goodput_low: float
    slo_probability: float
    utilisation: float
    watts_per_gpu: float | None
    method: str
    source: str


class Relaxation(Fact):
    """The nearest change of one dimension that would make an unmet intent feasible."""

    dimension: Literal["rate", "ttft", "tpot", "e2e", "budget", "quality", "nodes", "quota"]
    from_value: float | None
    to_value: float
    unit: str
    text: str


class DayPart(Fact):
    """One window of an intent's day: what is asked for, and what runs for it."""

    start_hour: float
    """UTC."""
    end_hour: float
    rate: float
    """Requests per second that it is sized for."""
    replicas: int
    """Of all the intent's groups."""
    gpus: int
    cost_per_hour: float


class IntentDay(Fact):
    """An intent's day: within the night's strategy, the replicas that each window needs."""

    parts: tuple[DayPart, ...]
    cost: float
    """Dollars a day; what starts is paid for from its start on."""
    peak_cost: float
    """Dollars a day with the busiest window's replicas all day."""
    refunded: float
    """Of what is saved, dollars a day on hardware that is paid by the hour; the rest is freed, not refunded."""
    starts: int
    """Replicas that start in a day."""
    freed_gpu_hours: float
    """GPU-hours a day that the busiest window needs and the others do not."""
    kept: str = ""
    """Why some replicas stay all day although the load does not; empty where none do."""
    switch: str = ""
    """Another strategy that would save more in some windows, its starts paid; empty where none is worth it."""
    switch_saves: float = 0.0
    """Dollars a day that it would save beyond this day; the plan keeps one strategy all day, and leaves it."""


class FreedGPUs(Fact):
    """GPUs that one window of the day leaves free of those that are placed."""

    start_hour: float
    end_hour: float
    gpus: dict[str, int]
    """By node pool."""
    cost_per_hour: float
    """Of what runs then."""


class FleetDay(Fact):
    """The day of all intents, those whose profile nobody knows at their full count."""

    parts: tuple[FreedGPUs, ...]
    cost: float
    """Dollars a day."""
    peak_cost: float
    """Dollars a day of the plan at its full count."""
    refunded: float


class Stress(Fact):
    """How an intent fares when a prediction errs by its interval, or the network is slower than said."""

    case: Literal["as_predicted", "slow_end", "fast_end", "half_bandwidth"]
    breaks_at: float
    """Load, as a multiple of the rate that was planned for, up to which the SLO holds with all replicas running."""
    first_to_break: str
    """`ttft`, `tpot` or `e2e`, whichever is missed by most beyond that load; `capacity` where the queue grows first."""
    holds_at: tuple[float, ...]
    """Loads of those that were tried (-20 %, as planned, +20 %) at which the SLO holds."""


class IntentDecision(Fact):
    """What was decided for one intent, and why."""

    name: str
    model: str
    goal: str
    status: Status
    reason: str
    """Why it is met with this strategy, or why it is unmet: one plain sentence."""
    served_share: float
    rate: float
    slo: dict[str, float]
    budget: float | None
    quality_floor: float
    chosen: tuple[Choice, ...] = ()
    runner_up: Choice | None = None
    runner_up_extra_per_hour: float | None = None
    """Dollars per hour that the runner-up would cost more, scarce GPUs valued at their shadow price and
    what it would start charged (`placement.Rules`)."""
    binding: str = ""
    """The constraint that bound the choice."""
    relaxations: tuple[Relaxation, ...] = ()
    front: tuple[Choice, ...] = ()
    """Pareto front of cost, latency and quality, for the plots."""
    priority: int = 1
    cost_per_hour: float = 0.0
    """Of what was chosen, 0 where nothing was."""
    day: IntentDay | None = None
    """None where the profile of the load over the day is not known, or nothing runs."""
    robustness: tuple[Stress, ...] = ()


class RejectedFamily(Fact):
    """Strategies of one intent that fell to one reason."""

    intent: str
    strategy: str
    reason: str
    detail: str
    count: int
    nearest: dict[str, float] = Field(default_factory=dict)


class PoolUse(Fact):
    """One node pool tonight."""

    name: str
    gpu: str
    gpus: int
    used: int
    price_per_gpu_hour: float | None
    """Dollars; None where no price is known, and then nothing is placed there."""
    shadow_price: float | None
    """Dollars per hour that one more GPU would save; None where not known."""
    vendor: Literal["nvidia", "amd", "intel", "cpu"] = "nvidia"
    gpus_per_node: int = 8
    tier: PriceTier = "on_demand"
    """What its price stands for (`catalog.cluster.TIER_WORDS`)."""


class PlannedMove(Fact):
    """Equal replicas of one intent that start or stop together in one wave of the change."""

    intent: str
    role: Role
    node_pool: str
    configuration: str
    """Short form, such as `h100_sxm-tp4-fp8`."""
    replicas: int = Field(ge=1)
    gpus: int
    """Of all of them, rounded up where they share GPUs."""
    nodes: tuple[str, ...] = ()
    """One entry per replica; the nodes of a replica that spans several are joined by `+`."""
    group: int | None = None
    """Index of the replica group in `placements`; None where the replicas are of a plan before."""


class Dip(Fact):
    """An intent that a wave serves less than before and after the change."""

    intent: str
    served_share: float


class PlannedWave(Fact):
    """One step of the change: all starts, and when they serve, all stops. A wave begins when the one before is done."""

    starts: tuple[PlannedMove, ...] = ()
    stops: tuple[PlannedMove, ...] = ()
    stops_first: bool = False
    """True where nothing can start before something stops; then `dips` says what that costs."""
    dips: tuple[Dip, ...] = ()


class Movement(Fact):
    """How much the change from the plan in force may move."""

    share: float
    """Largest share of the GPUs in use that may start in one night, beyond what service forces."""
    forced_gpus: int = 0
    """GPUs beyond that share that unmet demand, or a node that went away, forces to start."""
    settled: tuple[str, ...] = ()
    """Intents that what runs already serves enough: their starts count against the share."""


class Solved(Fact):
    """How the placement was found and how good it provably is."""

    solver: str
    status: Literal["proven", "within_gap", "time_limit", "rounded", "greedy", "kept_last"]
    gap: float
    bound: float | None
    columns: int
    notes: tuple[str, ...] = ()


class Provenance(Fact):
    """What the numbers rest on."""

    fingerprints: tuple[str, ...]
    """Records of the fingerprints that the chosen engines' predictions rest on: of the tables, and the user's own."""
    tables: str
    constants: str
    """Digest of the fitted constants."""
    sources: dict[str, int] = Field(default_factory=dict)
    """How many of the chosen strategies rest on which source, the weakest of each."""
    prices: dict[str, str] = Field(default_factory=dict)
    """Node pool -> where its price was read, and when."""
    corrections: tuple[str, ...] = ()
    """Records of measured runs, and of what production measured, that corrected these predictions."""
    notes: tuple[str, ...] = ()


class Plan(Fact):
    """The night's decision. Serialised as plan.json."""

    schema_version: Literal["fleetplan/plan/v1"] = "fleetplan/plan/v1"
    serial: int
    digest: str = ""
    fleet_digest: str
    vllm_version: str
    image: str
    cost_per_hour: float
    baseline_cost_per_hour: float | None
    """One stated naive baseline: one configuration for all."""
    baseline: str
    intents: tuple[IntentDecision, ...]
    placements: tuple[ReplicaGroup, ...]
    rejections: tuple[RejectedFamily, ...]
    pools: tuple[PoolUse, ...]
    solved: Solved
    provenance: Provenance
    waves: tuple[PlannedWave, ...] = ()
    """The order of the change from the plan with digest `changed_from`; empty where nothing ran or nothing moves."""
    changed_from: str = ""
    """Digest of the plan in force when this one was made; empty for the first."""
    day: FleetDay | None = None
    """None where no intent's load changes over the day."""
    movement: Movement | None = None
    retired: tuple[str, ...] = ()
    """Services that the fleet names as retired: publishing may take their last replica away."""
