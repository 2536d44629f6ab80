"""Sweeps in words: where disaggregation turns, and what an upgrade is worth."""

from __future__ import annotations

import polars as pl

from flows.sweep_tables import sweep, turn, upgrade
from planner.whatif import NETWORK, SCHEMA, Upgrade


def network(gains: list[float | None], name: str = "bandwidth") -> pl.DataFrame:
    """A network sweep of these gains at 1, 2, ... GB/s."""
    rows = [
        {"sweep": name, "value": 1e9 * (i + 1), "unit": "B/s", "feasible": True, "gain": gain}
        for i, gain in enumerate(gains)
    ]
    return pl.DataFrame(rows, schema=NETWORK)


def test_where_it_turns_is_said():
    """Starts along bandwidth, never, always; nothing of a sweep that has no network."""
    assert list(turn(network([None, -1.0, 2.0]))) == ["disaggregation starts paying between 2 and 3 GB/s per GPU"]
    assert list(turn(network([None, -1.0]))) == ["disaggregation does not pay at any of these points"]
    assert list(turn(network([1.0, 2.0]))) == ["disaggregation pays at any of these points"]
    assert list(turn(pl.DataFrame({"sweep": ["rate"]}))) == []


def test_an_upgrade_in_words():
    """Gains, losses, what becomes feasible, and what stays as it is."""

    def said(**changes: object) -> str:
        known = {"cost_now": 20.0, "cost_then": 15.0, "worth": 6.0, "gain": 5.0, "strategy": "1P1D a / b"}
        return " ".join(upgrade(Upgrade(bandwidth=50e9, **(known | changes))))

    assert "gains 5.00 USD/h: 15.00 instead of 20.00" in said()
    assert "worth at most 6.00 USD/h" in said()
    assert "loses 2.00 USD/h" in said(cost_then=22.0, gain=-2.0)
    assert "becomes feasible, for 15.00" in said(cost_now=None, gain=None, worth=None)
    assert "a collocated strategy at 20.00" in said(strategy=None)
    assert "nothing is feasible" in said(cost_now=None, cost_then=None, gain=None, worth=None, strategy=None)


def test_a_row_per_point():
    """What is not feasible is said in words."""
    row = {"sweep": "rate", "value": 2.0, "unit": "/s", "feasible": False}
    table = sweep(pl.DataFrame([row], schema=SCHEMA), title="chat along load")
    assert table.row_count == 1
    assert "none is feasible" in list(table.columns[2].cells)
