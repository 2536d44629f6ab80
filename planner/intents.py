"""WISHES: `SLO`, `Goal`, `Intent`: what one service needs, never how to get it."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from catalog.cluster import Cluster, Fact, Name
from catalog.quantizations import KVDtype, QuantizationName
from catalog.units import SECONDS_PER_HOUR, DollarsPerHour, Seconds
from planner.workload import Telemetry, Workload

Goal = Literal["min_cost", "min_latency", "latency_target", "cost_target"]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?$")]


DAY_S = 24 * SECONDS_PER_HOUR


class SLO(Fact):
    """Latency limits that a share of the requests must keep. Always a constraint."""

    ttft: Seconds | None = None
    """Time to first token."""
    tpot: Seconds | None = None
    """Mean time per output token after the first, of one request."""
    e2e: Seconds | None = None
    """Whole request."""
    attainment: float = Field(default=0.9, ge=0.5, le=0.999)
    """Share of requests that must keep each limit."""
    joint: bool = False
    """True: the share must keep all limits at once; False: each limit by itself (P90 TTFT and P90 TPOT)."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.ttft is None and self.tpot is None and self.e2e is None:
            msg = "slo names no limit: give ttft, tpot or e2e, or leave slo out"
            raise ValueError(msg)
        return self


class Availability(Fact):
    """What must survive a loss."""

    spares: int = Field(default=0, ge=0, le=8)
    """Replicas beyond what the load needs."""
    survive: Literal["none", "node", "failure_domain"] = "none"
    """After losing the largest such unit, `share` of the demand is still served within the SLO."""
    share: float = Field(default=0.8, gt=0.0, le=1.0)


class Intent(Fact):
    """One service's wish."""

    name: Name
    model: ModelName
    workload: Workload
    slo: SLO | None = None
    goal: Goal = "min_cost"
    budget: DollarsPerHour | None = None
    quality: float = Field(default=0.0, ge=0.0, le=1.0)
    """Floor, as a share of the unquantized model's score."""
    priority: int = Field(default=1, ge=0, le=9)
    """0 is served first when not everything fits."""
    team: Name | None = None
    availability: Availability = Availability()
    min_replicas: int = Field(default=1, ge=0, le=10_000)
    max_replicas: int | None = Field(default=None, ge=1, le=10_000)
    pools: tuple[str, ...] | None = None
    """Node pools it may use; by default all."""
    forbidden_pools: tuple[str, ...] = ()
    gpus: tuple[str, ...] | None = None
    """GPU types it may use; by default all."""
    forbidden_gpus: tuple[str, ...] = ()
    quantizations: tuple[QuantizationName, ...] | None = None
    """Weight formats it may use; by default all that reach the quality floor."""
    kv_dtypes: tuple[KVDtype, ...] | None = None
    disaggregated: Literal["allowed", "forbidden", "required"] = "allowed"
    max_model_len: int | None = Field(default=None, ge=16, le=10_000_000)
    """Longest request; by default what the workload's longest requests need."""
    overrides: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Arguments of `vllm serve` (long flags without dashes) that win over what was planned, such as `{seed: 1}`."""

    @model_validator(mode="after")
    def _goal_has_what_it_needs(self) -> Self:
        if self.goal == "latency_target" and self.slo is None:
            msg = f"intent {self.name!r} has goal latency_target and no slo: add one, such as slo: {{ttft: 500 ms}}"
            raise ValueError(msg)
        if self.goal == "cost_target" and self.budget is None:
            msg = f"intent {self.name!r} has goal cost_target and no budget: add one, such as budget: 20 USD/h"
            raise ValueError(msg)
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            msg = f"intent {self.name!r} has min_replicas {self.min_replicas} above max_replicas {self.max_replicas}"
            raise ValueError(msg)
        return self


class Team(Fact):
    """What one team may take."""

    name: Name
    quota: dict[str, int] = Field(default_factory=dict)
    """Most GPUs by GPU type."""
    budget: DollarsPerHour | None = None


class DayRules(Fact):
    """How finely the day is planned where an intent's load changes over it."""

    windows: int = Field(default=6, ge=1, le=48)
    """Equal windows from 00:00 UTC; each gets its bounds for autoscalers."""
    start_time: Seconds = 900.0
    """From asking for a replica until it serves: node, image, weights, graphs. It starts so long before its window."""

    @model_validator(mode="after")
    def _starts_within_a_window(self) -> Self:
        if self.start_time * self.windows > DAY_S:
            msg = f"a start of {self.start_time:g} s is longer than one of {self.windows} windows: have fewer windows"
            raise ValueError(msg)
        return self


class Fleet(Fact):
    """fleet.yaml: the cluster, the teams, the intents and the rules of change."""

    cluster: Cluster
    intents: tuple[Intent, ...] = Field(min_length=1)
    teams: tuple[Team, ...] = ()
    vllm_version: str = Field(default="0.32.0", pattern=r"^\d+\.\d+\.\d+$")
    models: tuple[str, ...] = ()
    """Paths of further config.json files, relative to fleet.yaml; each adds a model named by its folder or stem."""
    movement: float = Field(default=0.25, gt=0.0, le=1.0)
    """Largest share of the GPUs in use that one night may start, beyond what unmet demand forces."""
    day: DayRules = DayRules()
    retired: tuple[Name, ...] = ()
    """Services that are gone for good: without their name here, no plan that drops a running one is published."""

    prometheus: Telemetry | None = None
    """Where the metrics of services are whose workload says `prometheus`."""

    @model_validator(mode="after")
    def _telemetry_has_a_server(self) -> Self:
        watched = [intent.name for intent in self.intents if intent.workload.prometheus is not None]
        if watched and self.prometheus is None:
            msg = f"the workload of {watched[0]!r} is read from Prometheus: add prometheus: {{url: http://host:9090}}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for what, names in (("intent", [i.name for i in self.intents]), ("team", [t.name for t in self.teams])):
            for name, count in Counter(names).items():
                if count > 1:
                    msg = f"{what} {name!r} is declared twice: give each {what} a name of its own"
                    raise ValueError(msg)
        for name in self.retired:
            if name in {intent.name for intent in self.intents}:
                msg = f"intent {name!r} is declared and retired: take it out of intents or out of retired"
                raise ValueError(msg)
        return self
