"""`planner.outlook.day`: counts through the day against brute force, and the bounds that follow."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.outlook.day import Course, cheapest, fewest, rates

NEEDS = st.lists(st.integers(0, 4), min_size=1, max_size=6)
LEADS = st.sampled_from([0.0, 0.25, 1.0, 4.0, 9.0])


def brute(needs, lead):
    """Least replica-hours over every course up to the largest need."""
    hours = 24 / len(needs)

    def paid(counts):
        rises = sum(max(0, now - before) for before, now in zip((counts[-1], *counts[:-1]), counts, strict=True))
        return hours * sum(counts) + lead * rises

    every = product(*(range(need, max(needs) + 1) for need in needs))
    return min(paid(counts) for counts in every)


@given(NEEDS, LEADS)
def test_the_course_is_the_cheapest_there_is(needs, lead):
    """Replica-hours equal those of the best of all courses that cover every window's need."""
    found = cheapest(needs, lead_hours=lead)
    assert all(count >= need for count, need in zip(found.counts, needs, strict=True))
    assert found.replica_hours == pytest.approx(brute(needs, lead))


def test_going_down_for_a_window_must_pay_for_the_way_back():
    """By hand: six windows of 4 h; one window down saves 4 replica-hours, so a lead of 3 h pays and one of 5 h not."""
    needs = (2, 2, 1, 2, 2, 2)
    assert cheapest(needs, lead_hours=3.0).counts == needs
    assert cheapest(needs, lead_hours=5.0).counts == (2,) * 6
    assert cheapest(needs, lead_hours=4.0).counts == (2,) * 6  # of equal cost: fewer starts


@given(NEEDS, st.sampled_from([0.0, 0.25, 1.0]))
def test_bounds_cover_the_day_and_every_need_when_its_window_begins(needs, lead):
    """Parts follow one another from 0 to 24 h; at any time the bound is at least the window's need, and rises early."""
    course = cheapest(needs, lead_hours=lead)
    bounds = course.bounds
    assert bounds[0][0] == 0.0
    assert bounds[-1][1] == 24.0
    assert all(one[1] == other[0] for one, other in pairwise(bounds))
    assert all(start < end for start, end, _ in bounds)
    for window, need in enumerate(needs):
        begin, end = window * course.window_hours, (window + 1) * course.window_hours
        assert all(count >= need for start, stop, count in bounds if start < end and stop > begin)
    assert sum((end - start) * count for start, end, count in bounds) == pytest.approx(course.replica_hours)


def test_what_starts_is_up_when_its_window_begins():
    """By hand: up at 08:00 with a lead of half an hour: from 07:30 on; a rise at midnight begins the day before."""
    assert Course(counts=(1, 1, 3, 3, 1, 1), lead_hours=0.5).bounds == ((0.0, 7.5, 1), (7.5, 16.0, 3), (16.0, 24.0, 1))
    assert Course(counts=(3, 1), lead_hours=0.5).bounds == ((0.0, 12.0, 3), (12.0, 23.5, 1), (23.5, 24.0, 3))
    assert Course(counts=(2, 2), lead_hours=0.5).bounds == ((0.0, 24.0, 2),)


def test_a_window_takes_the_busiest_factor_that_reaches_into_it():
    """By hand: hourly factors into six windows, and four windows into six, where each spans two of the four."""
    hourly = [0.0] * 24
    hourly[5] = 2.0
    assert rates(hourly, 6) == (0.0, 2.0, 0.0, 0.0, 0.0, 0.0)
    assert rates((0.4, 1.0, 1.6, 1.2), 6) == (0.4, 1.0, 1.0, 1.6, 1.6, 1.2)
    assert rates((1.0,), 3) == (1.0, 1.0, 1.0)


def test_the_fewest_replicas_that_reach_a_rate():
    """Any superadditive goodput is bracketed; what nothing reaches takes all; no load takes none."""
    assert fewest(lambda n: 1.1 * n, 3.3, 8) == 3
    assert fewest(lambda n: 1.0 * n, 99.0, 8) == 8
    assert fewest(lambda n: 1.0 * n, 0.0, 8) == 0
    assert fewest(lambda n: 0.5 * n**1.5, 4.0, 8) == 4
