"""OPTIONS: `Configuration`, `Pool`, `Strategy`, and what became of each: `Estimate`, `Candidate`, `Rejection`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from catalog.fingerprints import Source
from catalog.quantizations import KVDtype, QuantizationName

Router = Literal["round_robin", "least_requests", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One way to run one vLLM replica. Field names are vLLM's."""

    model: str
    gpu: str
    tp: int = 1
    pp: int = 1
    dp: int = 1
    """Data-parallel attention ranks inside one replica (MoE models only)."""
    expert_parallel: bool = False
    quantization: QuantizationName = "bf16"
    kv_dtype: KVDtype = "bf16"
    max_num_seqs: int = 256
    """Per engine."""
    max_num_batched_tokens: int = 8192
    """Per engine."""
    max_model_len: int = 8192
    enable_prefix_caching: bool = True
    engines_per_gpu: int = 1
    """Engines that share the GPU with this one, itself counted; above 1 the replica holds one part of one GPU."""

    @property
    def gpus(self) -> int:
        """GPUs of one replica; parts of one where engines share it."""
        return self.tp * self.pp * self.dp

    @property
    def whole_gpus(self) -> float:
        """GPUs of one replica, a part of one as that part: what it takes of the fleet."""
        return self.gpus / self.engines_per_gpu

    @property
    def ep(self) -> int:
        """Size of the expert-parallel group, 1 = experts are split by TP."""
        return self.tp * self.dp if self.expert_parallel else 1

    @property
    def engines(self) -> int:
        """Batches that a replica keeps in flight, each with its own scheduler state."""
        return self.pp * self.dp

    @property
    def schedules_ahead(self) -> bool:
        """Whether its engine may schedule ahead: vLLM never does on a CPU (platforms/cpu.py)."""
        return self.gpu != "cpu"

    def __str__(self) -> str:
        """Short form: `h100_sxm-tp4-fp8`."""
        parts = [self.gpu, f"tp{self.tp}"]
        parts += [f"pp{self.pp}"] * (self.pp > 1) + [f"dp{self.dp}"] * (self.dp > 1)
        parts += [f"ep{self.ep}"] * self.expert_parallel
        parts += [self.quantization] * (self.quantization != "bf16") + ["kv8"] * (self.kv_dtype == "fp8")
        parts += [f"1of{self.engines_per_gpu}"] * (self.engines_per_gpu > 1)
        return "-".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Equal replicas of one configuration on one node pool."""

    configuration: Configuration
    replicas: int
    node_pool: str

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return self.replicas * self.configuration.gpus

    def __str__(self) -> str:
        """Short form: `h100_sxm-tp4 x3`."""
        return f"{self.configuration} x{self.replicas}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collocated:
    """Prefill and decode on the same replicas."""

    pool: Pool
    router: Router = "least_requests"
    kind: Literal["collocated"] = "collocated"

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The pools that the strategy uses."""
        return (self.pool,)

    def __str__(self) -> str:
        """Short form: `h100_sxm-tp4-fp8 x3`."""
        return str(self.pool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disaggregated:
    """Prefill replicas hand their KV blocks over the network to decode replicas."""

    prefill: Pool
    decode: Pool
    transfer_bandwidth: float
    """Bytes per second from one prefill replica to one decode replica."""
    transfer_latency: float
    """Seconds before the first byte."""
    router: Router = "least_requests"
    kind: Literal["disaggregated"] = "disaggregated"

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The pools that the strategy uses, prefill first."""
        return (self.prefill, self.decode)

    def __str__(self) -> str:
        """Short form: `1P3D h100_sxm-tp2 / h100_sxm-tp4`."""
        counts = f"{self.prefill.replicas}P{self.decode.replicas}D"
        return f"{counts} {self.prefill.configuration} / {self.decode.configuration}"


Strategy = Collocated | Disaggregated


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """A latency over requests, in seconds."""

    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a strategy does under a workload; `low` and `high` ends come from the predictor's interval.

    Latencies are at the workload's rate and at the middle of the interval; `ttft_high` and `tpot_high` are the same
    quantile that the SLO asks for (its attainment) at the slow end. `goodput` is the highest rate (requests/s) at
    which the SLO holds, middle; `goodput_low` at the slow end: that one decides.
    """

    ttft: Quantiles
    tpot: Quantiles
    e2e: Quantiles
    ttft_high: float
    tpot_high: float
    attainment: float
    """Share of requests that meet the whole SLO at the workload's rate, middle of the interval; 1 without an SLO."""
    goodput: float
    goodput_low: float
    slo_probability: float
    """Probability that the SLO holds at the workload's rate, over the predictor's interval."""
    utilisation: float
    """Load over capacity, 1 = unstable."""
    kv_utilisation: float
    watts_per_gpu: float | None
    method: Literal["closed_form", "simulated", "replayed"]
    source: Source
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A strategy that serves an intent, what it costs, and what quality it gives."""

    intent: str
    strategy: Strategy
    estimate: Estimate
    cost_per_hour: float
    """Dollars per hour of all GPUs used, energy included where the cluster prices it."""
    quality: float
    """Share of the unquantized model's score."""
    gpus: tuple[tuple[str, int], ...]
    """(node pool, GPUs)."""
    share: float = 1.0
    """Share of the intent's rate that it serves within the SLO at the slow end; below 1: a rung, or part of a mix."""
    headroom: float = 1.0
    """What it could serve at the slow end over what its share asks for; at least 1. It is what a loss may take."""


Reason = Literal[
    "unsupported_by_gpu",
    "does_not_divide",
    "does_not_fit_memory",
    "context_too_long",
    "quality_below_floor",
    "ttft_above_slo",
    "tpot_above_slo",
    "unstable_at_this_load",
    "goodput_below_rate",
    "over_budget",
    "forbidden_by_intent",
    "not_enough_gpus",
    "no_price",
    "no_data",
    "pairing_not_allowed",
    "dominated",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A strategy (or a family of them) that was ruled out, and why. Infeasible is an answer, not an error."""

    intent: str
    strategy: str
    """Short form of the strategy or family, as `str(strategy)` prints it."""
    reason: Reason
    detail: str
    count: int = 1
    """Strategies that fell to the same reason."""
    nearest: dict[str, float] = field(default_factory=dict)
    """Numbers that show how far it was: {'ttft_s': 0.71, 'slo_s': 0.5}."""
