"""`Price`: what an hour of a GPU costs, dated and with its source (rows in prices.yaml)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.cluster import PriceTier
from catalog.documents import read_yaml
from catalog.errors import BadInput
from catalog.gpus import find_gpu
from catalog.units import GPU_PRICE, parse_quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One published price."""

    value: float
    """Dollars per GPU-hour."""
    source: str
    date: str
    """When the source was read, year and month."""
    others: tuple[float, ...] = ()
    """What the other sources of the same tier ask, ascending."""


@functools.cache
def _file() -> Mapping[str, Any]:
    found: dict[str, Any] = read_yaml(Path(__file__).with_name("prices.yaml")).value
    return found


def prices_of(gpu_name: str) -> dict[PriceTier, Price]:
    """Every known price of a GPU type by tier; empty where none is published."""
    tiers = _file()["prices"].get(find_gpu(gpu_name).name, {})
    return {tier: _lower_median(quotes) for tier, quotes in tiers.items()}


def price(gpu_name: str, tier: PriceTier) -> Price:
    """The lower median of the tier's published prices.

    Raises:
        BadInput: unknown GPU, or no price is known for the tier.
    """
    known = prices_of(gpu_name)
    if tier not in known:
        elsewhere = f" (known tiers: {', '.join(known)})" if known else ""
        raise BadInput(
            f"no {tier} price is known for {gpu_name!r}{elsewhere}",
            mend="give the pool its own price:, such as price: 1.20 USD/GPU/h",
        )
    return known[tier]


def _lower_median(quotes: Mapping[str, str]) -> Price:
    asked = sorted((parse_quantity(text, GPU_PRICE), source) for source, text in quotes.items())
    value, source = asked[(len(asked) - 1) // 2]
    others = tuple(other for other, name in asked if name != source)
    return Price(value=value, source=_file()["sources"][source], date=_file()["retrieved"], others=others)
