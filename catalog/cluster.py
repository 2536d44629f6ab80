"""`Cluster`: the GPUs that exist, as pools of equal nodes."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from catalog.units import (
    HOURS_PER_MONTH,
    BytesPerSecond,
    Dollars,
    DollarsPerGPUHour,
    DollarsPerHour,
    DollarsPerKWh,
    SecondsOrZero,
)

#: Names from outside: no path, no template, no surprise in YAML or Kubernetes.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]

PriceTier = Literal["on_demand", "reserved", "spot", "owned"]
#: What a tier means, beside its price, to whoever reads a plan.
TIER_WORDS: dict[PriceTier, str] = {
    "on_demand": "rented by the hour and given back at will",
    "reserved": "paid for whether it is used or not: an hour is worth its price to whoever uses it",
    "spot": "rented by the hour and taken back at any time: a node that is taken counts as lost in the next plan",
    "owned": "bought: its purchase by the hour, and energy where the cluster prices power",
}


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


class Purchase(Fact):
    """What a bought node costs, spread over its life: an annuity of its price, and what it costs to keep."""

    price: Dollars
    """Of one node, with its share of network and racks."""
    years: float = Field(default=4.0, gt=0.0, le=25.0)
    """Over which it is written off."""
    interest: float = Field(default=0.0, ge=0.0, le=1.0)
    """A year, on what is not yet written off."""
    upkeep: DollarsPerHour | None = None
    """Of one node: space, network, staff, repairs; energy is counted apart (`power_price`)."""

    @property
    def per_hour(self) -> float:
        """Dollars per hour of one node: P i / (1 - (1 + i)^-n) a year, P / n without interest; and its upkeep."""
        factor = 1.0 / self.years
        if self.interest > 0:
            factor = self.interest / (1.0 - (1.0 + self.interest) ** -self.years)
        return self.price * factor / (12 * HOURS_PER_MONTH) + (self.upkeep or 0.0)


class NodePool(Fact):
    """Equal nodes: one GPU type, one price, one failure domain."""

    name: Name
    gpu: str
    gpus_per_node: int = Field(ge=1, le=72)
    nodes: int = Field(ge=0, le=100_000)
    price: DollarsPerGPUHour | None = None
    """Such as `2.29 USD/GPU/h`; by default the catalog's dated price of the tier."""
    tier: PriceTier = "on_demand"
    """What the price stands for; a spot node may be taken back at any time, and the next plan counts it as lost."""
    purchase: Purchase | None = None
    """Of an owned pool, instead of a price: what a node costs to buy and keep."""
    at_most: int | None = Field(default=None, ge=1, le=100_000)
    """Most nodes that `fleetplan size` may ask for; by default as many as there are. `nodes: {at_most: 20}` says that
    there is none yet."""
    failure_domain: Name = "default"
    link_domain: int | None = Field(default=None, ge=1, le=72)
    """GPUs joined by NVLink or an equal; by default the whole node where the GPU has NVLink, else 1."""
    network: Network = Network()
    lost: int = Field(default=0, ge=0)
    """Nodes of the pool that are cordoned or broken tonight."""
    reserved_gpus: int = Field(default=0, ge=0)
    """GPUs of the pool that others hold."""
    engines_per_gpu: int = Field(default=1, ge=1, le=8)
    """Engines of small models that share each GPU of the pool, every one with an equal part of its memory; 1 = none
    do. The device plugin must offer each GPU so many times (NVIDIA: time slicing, or MPS)."""

    @model_validator(mode="before")
    @classmethod
    def _nodes_may_be_open(cls, values: Any) -> Any:  # noqa: ANN401 - what a user wrote
        if not isinstance(values, dict) or not isinstance(values.get("nodes"), dict):
            return values
        wish = values["nodes"]
        if set(wish) != {"at_most"} or "at_most" in values:
            msg = f"nodes {wish!r} is neither a number nor {{at_most: NUMBER}}"
            raise ValueError(msg)
        return {**values, "nodes": 0, "at_most": wish["at_most"]}

    @model_validator(mode="after")
    def _is_bought_or_rented(self) -> Self:
        if self.purchase is not None and (self.tier != "owned" or self.price is not None):
            msg = f"pool {self.name!r} has a purchase: its tier must be owned, and its price left out"
            raise ValueError(msg)
        if self.at_most is not None and self.at_most < self.nodes:
            msg = f"pool {self.name!r} has {self.nodes} nodes and at_most {self.at_most}: raise at_most"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _has_what_it_lost(self) -> Self:
        if self.lost > self.nodes:
            msg = f"pool {self.name!r} has lost {self.lost} of {self.nodes} nodes: lost cannot exceed nodes"
            raise ValueError(msg)
        if self.reserved_gpus > self.nodes * self.gpus_per_node:
            there = self.nodes * self.gpus_per_node
            msg = f"pool {self.name!r} reserves {self.reserved_gpus} GPUs and has {there}: others cannot hold more"
            raise ValueError(msg)
        return self

    @property
    def own_price(self) -> float | None:
        """Dollars per GPU and hour that the pool states, by price or by purchase; None: the catalog's."""
        if self.purchase is not None:
            return self.purchase.per_hour / self.gpus_per_node
        return self.price

    @property
    def engine_slots(self) -> int:
        """Engines of one GPU or less that the pool holds: its GPUs, as often as each is shared."""
        return self.gpus * self.engines_per_gpu

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
