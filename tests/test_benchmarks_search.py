"""The search benchmark: every strategy it counts was judged or rejected, and the figures are those of the search."""

from __future__ import annotations

from benchmarks.search import World, figures, the_intent


def test_figures_count_every_strategy():
    """Judged and rejected strategies add up, and copies of a GPU type multiply them."""
    one = figures(*World(("h100_sxm",)).search(the_intent(), simulated=0))
    two = figures(*World(("h100_sxm",), copies=2).search(the_intent(), simulated=0))
    assert one["strategies"] == one["judged"] + one["rejected_unjudged"] > 500
    assert two["strategies"] == 2 * one["strategies"]
    assert one["candidates"] > 0
