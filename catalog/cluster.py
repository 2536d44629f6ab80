"""`Cluster`: the GPUs that exist, as pools of equal nodes."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from catalog.units import BytesPerSecond, DollarsPerGPUHour, DollarsPerKWh, SecondsOrZero

#: Names from outside: no path, no template, no surprise in YAML or Kubernetes.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]

PriceTier = Literal["on_demand", "reserved", "spot", "owned"]


class Fact(BaseModel):
    """Root of what a user writes: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Network(Fact):
    """What joins the nodes of one pool, and pools of one fabric."""

    kind: Literal["infiniband", "roce", "ethernet"] = "ethernet"
    bandwidth: BytesPerSecond = 12.5e9
    """Per GPU and direction, such as `400 Gbit/s`."""
    latency: SecondsOrZero = 10e-6
    fabric: Name | None = None
    """Pools that name the same fabric can exchange KV blocks; by default each pool is its own."""


class NodePool(Fact):
    """Equal nodes: one GPU type, one price, one failure domain."""

    name: Name
    gpu: str
    gpus_per_node: int = Field(ge=1, le=72)
    nodes: int = Field(ge=0, le=100_000)
    price: DollarsPerGPUHour | None = None
    """Such as `2.29 USD/GPU/h`; by default the catalog's dated price of the tier."""
    tier: PriceTier = "on_demand"
    failure_domain: Name = "default"
    link_domain: int | None = Field(default=None, ge=1, le=72)
    """GPUs joined by NVLink or an equal; by default the whole node where the GPU has NVLink, else 1."""
    network: Network = Network()
    lost: int = Field(default=0, ge=0)
    """Nodes of the pool that are cordoned or broken tonight."""
    reserved_gpus: int = Field(default=0, ge=0)
    """GPUs of the pool that others hold."""

    @model_validator(mode="after")
    def _has_what_it_lost(self) -> Self:
        if self.lost > self.nodes:
            msg = f"pool {self.name!r} has lost {self.lost} of {self.nodes} nodes: lost cannot exceed nodes"
            raise ValueError(msg)
        if self.reserved_gpus > self.nodes * self.gpus_per_node:
            msg = f"pool {self.name!r} reserves {self.reserved_gpus} GPUs and has {self.nodes * self.gpus_per_node}"
            raise ValueError(msg)
        return self

    @property
    def gpus(self) -> int:
        """GPUs that a plan may use."""
        return max(0, (self.nodes - self.lost) * self.gpus_per_node - self.reserved_gpus)


class Cluster(Fact):
    """All pools, and what electricity costs there."""

    pools: tuple[NodePool, ...] = Field(min_length=1)
    power_price: DollarsPerKWh | None = None
    """If given, energy is added to the cost of owned hardware."""
    power_overhead: float = Field(default=1.3, ge=1.0, le=3.0)
    """Facility power per IT power (PUE)."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for name, count in Counter(pool.name for pool in self.pools).items():
            if count > 1:
                msg = f"pool {name!r} is declared twice: give each pool a name of its own"
                raise ValueError(msg)
        return self

    def pool(self, name: str) -> NodePool:
        """The pool of that name; KeyError if there is none."""
        return {pool.name: pool for pool in self.pools}[name]
