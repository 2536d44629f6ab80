"""`flows.size` and the prices that decide: node counts and tiers on a small fleet, measured by a fake."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_flows import FLEET, Counted, site

from catalog.cluster import Purchase
from catalog.errors import BadInput
from flows.fleet import read_fleet
from flows.night import plan_night
from flows.size import size_fleet

TWO = """
    - {name: two, gpu: h100_sxm, gpus_per_node: 4, nodes: {at_most: 5}, TERMS}
"""
INTENTS = FLEET[FLEET.index("intents:") :]


def written(folder: Path, terms: str, *, extra: str = "", nodes: str = "2") -> Path:
    """fleet.yaml with the pool `one` at 2.29 USD/GPU/h on demand and the pool `two` on other terms."""
    head = FLEET[: FLEET.index("intents:")].rstrip().replace("nodes: 2", f"nodes: {nodes}")
    path = folder / "fleet.yaml"
    path.write_text(head + TWO.replace("TERMS", terms).rstrip() + extra + "\n" + INTENTS, encoding="utf-8")
    return path


def pool_of(folder: Path, terms: str, *, extra: str = "") -> str:
    """The node pool that the night chooses where both have nodes."""
    path = written(folder, terms, extra=extra)
    path.write_text(path.read_text(encoding="utf-8").replace("{at_most: 5}", "2"), encoding="utf-8")
    (group,) = plan_night(read_fleet(path), site(folder), dry_run=True).plan.placements
    return group.node_pool


@pytest.mark.parametrize(
    ("terms", "extra", "chosen"),
    [
        ("price: 2.20 USD/GPU/h, tier: spot", "", "two"),
        ("price: 2.40 USD/GPU/h, tier: reserved", "", "one"),
        ("price: 2.20 USD/GPU/h, tier: owned", "", "two"),
        ("price: 2.20 USD/GPU/h, tier: owned", "\n  power_price: 0.5 USD/kWh", "one"),
        ("tier: owned, purchase: {price: 120000 USD, years: 4.0}", "", "two"),
        ("tier: owned, purchase: {price: 120000 USD, years: 1.0}", "", "one"),
        ("tier: owned, purchase: {price: 120000 USD, years: 4.0, upkeep: 6 USD/h}", "", "one"),
    ],
)
def test_terms_of_payment_decide_the_plan(tmp_path: Path, terms: str, extra: str, chosen: str) -> None:
    """A lower price, whatever its tier, wins; energy, a shorter life or upkeep of owned hardware turns it round.

    By hand: 120,000 USD over 4 years of 8,760 h and 4 GPUs are 0.86 USD/GPU/h, over one year 3.42; 6 USD/h of upkeep
    are 1.50 USD/GPU/h more. 2.20 plus half a dollar per kWh times several hundred watts exceeds 2.29.
    """
    assert pool_of(tmp_path, terms, extra=extra) == chosen


def test_a_purchase_is_an_annuity() -> None:
    """By hand: 87,600 USD over one year of 8,760 h are 10 USD/h; at 10 % over 2 years a payment is P·0.1/(1-1.1^-2)."""
    assert Purchase(price="87600 USD", years=1.0).per_hour == pytest.approx(10.0)
    found = Purchase(price="87600 USD", years=2.0, interest=0.1, upkeep="3 USD/h").per_hour
    assert found == pytest.approx(10.0 * 0.1 / (1 - 1.1**-2) + 3.0)
    nearly = Purchase(price="87600 USD", years=2.0, interest=1e-9).per_hour
    assert nearly == pytest.approx(Purchase(price="87600 USD", years=2.0).per_hour)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ("tier: spot, purchase: {price: 120000 USD}", "its tier must be owned"),
        ("tier: owned, price: 1 USD/GPU/h, purchase: {price: 120000 USD}", "its price left out"),
        ("price: 1 USD/GPU/h, at_most: 9", "is neither a number nor"),
    ],
)
def test_contradictory_terms_are_refused(tmp_path: Path, terms: str, said: str) -> None:
    """What is bought is owned, has one price, and a limit is stated once."""
    with pytest.raises(BadInput, match=said):
        read_fleet(written(tmp_path, terms))


def test_the_cheapest_counts_are_told_with_their_proof(tmp_path: Path) -> None:
    """A pool that has no node yet is asked for where that is cheapest: whole nodes, at most what may be had."""
    loaded = read_fleet(written(tmp_path, "price: 1.00 USD/GPU/h, tier: reserved"))
    found = size_fleet(loaded, site(tmp_path), spare=1)
    rows = {row["pool"]: row for row in found.rows}
    assert (rows["one"]["nodes"], rows["two"]["nodes"], rows["two"]["have"]) == (0, 1, 0)
    assert rows["two"]["at_most"] == 5
    assert found.json()["cost_per_hour"] == pytest.approx(8.0)  # a node and its spare, 4 USD/h each
    assert found.sized.gap == 0.0
    assert found.unmet == {}
    assert found.json()["tiers"].keys() == {"on_demand", "reserved"}


def test_limits_are_checked(tmp_path: Path) -> None:
    """A limit on a pool that is not there names near ones; no node anywhere is an error that says what to write."""
    loaded = read_fleet(written(tmp_path, "price: 1.00 USD/GPU/h"))
    with pytest.raises(BadInput, match="did you mean 'two'"):
        size_fleet(loaded, site(tmp_path), limits={"twoo": 3})
    with pytest.raises(BadInput, match="no pool may have a node"):
        size_fleet(loaded, site(tmp_path), limits={"one": 0, "two": 0})


def test_an_intent_that_no_fleet_meets_is_named_with_what_would_help(tmp_path: Path) -> None:
    """Its reason and its nearest relaxation come with it, and the rest is sized all the same."""
    path = written(tmp_path, "price: 1.00 USD/GPU/h")
    path.write_text(path.read_text(encoding="utf-8").replace("tpot: 60 ms", "tpot: 100 us"), encoding="utf-8")
    found = size_fleet(read_fleet(path), site(tmp_path, Counted()))
    assert "allow TPOT" in found.unmet["chat"]
