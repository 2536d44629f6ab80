"""Prices: dated, sourced, and missing where nobody publishes one."""

from __future__ import annotations

import re

import pytest

from catalog.errors import BadInput
from catalog.gpus import load_gpus
from catalog.prices import price, prices_of


def test_the_lower_median_serves() -> None:
    """B200 on demand: 4.89, 5.50 and 9.36 are asked, 5.50 serves; H100: 2.29 and 2.95, 2.29 serves."""
    assert (price("b200_sxm", "on_demand").value, price("b200_sxm", "on_demand").others) == (5.5, (4.89, 9.36))
    assert (price("h100_sxm", "on_demand").value, price("h100_sxm", "on_demand").others) == (2.29, (2.95,))


@pytest.mark.parametrize("gpu", sorted(load_gpus()))
def test_prices_are_plausible_dated_and_sourced(gpu: str) -> None:
    """0.1 to 20 dollars, a month, a named commit; spot is cheaper than on demand."""
    known = prices_of(gpu)
    for found in known.values():
        assert 0.1 <= found.value <= 20
        assert re.fullmatch(r"20\d\d-\d\d", found.date)
        assert "commit" in found.source
    if {"spot", "on_demand"} <= set(known):
        assert known["spot"].value < known["on_demand"].value


def test_any_spelling_of_the_gpu_serves() -> None:
    """The price is the GPU's, however it is spelt."""
    assert price("H100 SXM", "spot") == price("h100_sxm", "spot")


def test_a_missing_price_says_so_and_what_to_do() -> None:
    """No guess: L4 has no price, GB200 none on demand; the mend is `price:` of the pool."""
    assert prices_of("l4") == {}
    with pytest.raises(BadInput, match=r"no on_demand price is known for 'l4'; give the pool its own price:"):
        price("l4", "on_demand")
    with pytest.raises(BadInput, match=r"known tiers: reserved, owned"):
        price("gb200", "on_demand")
