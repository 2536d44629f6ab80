"""`planner.outlook.switch`: what another strategy in quiet windows would save, against trying every way."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_fleets import candidate

from planner.outlook.switch import WORTH, switch
from planner.plan import DayPart, IntentDay

PEAK = 60.0


def day_of(costs, rates=None):
    """A day of equal windows, dollars per hour and requests per second of each."""
    width, rates = 24.0 / len(costs), rates or [PEAK] * len(costs)
    parts = tuple(
        DayPart(start_hour=i * width, end_hour=(i + 1) * width, rate=rate, replicas=1, gpus=1, cost_per_hour=cost)
        for i, (cost, rate) in enumerate(zip(costs, rates, strict=True))
    )
    return IntentDay(parts=parts, cost=width * sum(costs), peak_cost=0.0, refunded=0.0, starts=0, freed_gpu_hours=0.0)


def by_hand(costs, other, path, lead):
    """Dollars of a day: windows, and a lead of whatever begins."""
    hourly = [other if state else cost for cost, state in zip(costs, path, strict=True)]
    total = 24.0 / len(costs) * sum(hourly)
    for w, state in enumerate(path):
        total += lead * (hourly[w] if state != path[w - 1] else max(0.0, hourly[w] - hourly[w - 1]))
    return total


COSTS = st.lists(st.integers(1, 20).map(float), min_size=1, max_size=6)


@given(COSTS, st.integers(1, 20), st.sampled_from([0.0, 0.25, 2.0]), st.data())
def test_no_way_round_the_day_is_cheaper(costs, other, lead, data):
    """The saving equals the best of all ways in which the other runs in windows that it can serve."""
    rates = [data.draw(st.sampled_from([0.2, 0.5, 1.0])) * PEAK for _ in costs]
    day = day_of(costs, rates)
    one = candidate(share=0.5, cost=float(other))
    found = switch(day, [one], rate=PEAK, free=[{"a": 1}] * len(costs), lead_hours=lead)
    ways = product(*(((False, True) if rate <= 0.5 * PEAK else (False,)) for rate in rates))
    stays = by_hand(costs, float(other), (False,) * len(costs), lead)
    best = stays - min(by_hand(costs, float(other), path, lead) for path in ways)
    if best > WORTH * day.cost + 1e-6:
        assert found is not None
        assert found.saves == pytest.approx(best)
        assert all(rates[w] <= 0.5 * PEAK for w in found.windows)
    elif best < WORTH * day.cost - 1e-6:
        assert found is None


def test_only_on_gpus_that_are_free_then():
    """A window whose GPUs others hold keeps the day's strategy."""
    day = day_of([10.0] * 4, [10.0, 10.0, 10.0, PEAK])
    one = candidate(share=0.5, cost=1.0, replicas=2)
    free = [{"a": 2}, {"a": 1}, {"a": 2}, {"a": 2}]
    found = switch(day, [one], rate=PEAK, free=free, lead_hours=0.25)
    assert found is not None
    assert found.windows == (0, 2)


def test_transitions_are_paid():
    """What a switch saves must exceed the starts of both ways; at a lead of a whole window none does."""
    day = day_of([10.0, 10.0, 10.0, 10.0], [10.0, PEAK, 10.0, PEAK])
    one = candidate(share=0.5, cost=6.0)
    free = [{"a": 1}] * 4
    assert switch(day, [one], rate=PEAK, free=free, lead_hours=0.25) is not None
    assert switch(day, [one], rate=PEAK, free=free, lead_hours=6.0) is None
