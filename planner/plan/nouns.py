"""DECISIONS: `Plan` and its parts: what plan.json holds, and everything that is derived from it.

A plan is immutable and explains itself. `digest` is the sha256 of its canonical JSON without `serial` and `digest`;
manifests carry it, so an unchanged plan is a zero diff whatever its serial.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from catalog.cluster import Fact

Status = Literal["met", "margin_consumed", "unmet", "no_data"]
Role = Literal["both", "prefill", "decode"]
Argument = str | int | float | bool


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

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return self.replicas * self.gpus_per_replica

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

    dimension: Literal["rate", "ttft", "tpot", "e2e", "budget", "quality", "nodes"]
    from_value: float | None
    to_value: float
    unit: str
    text: str


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
    """Dollars per hour that the runner-up would cost more, scarce GPUs valued at their shadow price."""
    binding: str = ""
    """The constraint that bound the choice."""
    relaxations: tuple[Relaxation, ...] = ()
    front: tuple[Choice, ...] = ()
    """Pareto front of cost, latency and quality, for the plots."""
    priority: int = 1
    cost_per_hour: float = 0.0
    """Of what was chosen, 0 where nothing was."""


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
    """Digests of the fingerprint records used."""
    tables: str
    constants: str
    """Digest of the fitted constants."""
    sources: dict[str, int] = Field(default_factory=dict)
    """How many of the chosen strategies rest on which source, the weakest of each."""
    prices: dict[str, str] = Field(default_factory=dict)
    """Node pool -> where its price was read, and when."""
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
