"""`planner.workload.observed`: too little is said to be too little, and what is absurd moves a plan a bounded step."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.workload import Lengths, Observed, Workload
from planner.workload.observed import MOST_CHANGE, bounded, cv_of, hit_share, peak, significant, too_little


def load(rate: float, prompt: float = 500.0, diurnal: tuple[float, ...] | None = None) -> Workload:
    """A workload of this rate."""
    return Workload(rate=f"{rate} /s", prompt=Lengths(mean=prompt), output=Lengths(mean=100.0), diurnal=diurnal)


def test_too_little_says_why() -> None:
    """No series, telemetry that ended, or a few hours of it carry no forecast; a day does."""
    assert "no series" in str(too_little(Observed(start_hour=0, rates=(None,) * 48), 48))
    assert "ended 29 hours ago" in str(too_little(Observed(start_hour=0, rates=(1.0,) * 18), 47))
    assert "only 3 hours" in str(too_little(Observed(start_hour=0, rates=(1.0,) * 3), 3))
    assert too_little(Observed(start_hour=0, rates=(1.0,) * 24), 24) is None


@given(st.floats(0.01, 1e4), st.floats(0.01, 1e4))
def test_a_night_changes_a_load_by_a_bounded_step(before: float, after: float) -> None:
    """Whatever was read, the planned peak is within a factor of 4 of the last good one, and a cut is said."""
    last, new = load(before, diurnal=(0.5, 2.0)), load(after, diurnal=(1.0, 3.0))
    found, notes = bounded(new, last)
    assert peak(last) / MOST_CHANGE * 0.99 <= peak(found) <= peak(last) * MOST_CHANGE * 1.01
    cut = not 1 / MOST_CHANGE <= peak(new) / peak(last) <= MOST_CHANGE
    assert bool(notes) == cut
    assert all("ABSURD" in note for note in notes)


def test_a_real_change_is_followed_in_a_few_nights() -> None:
    """A load that became 50 times larger is planned in full after three nights."""
    last = load(1.0)
    for _ in range(3):
        last, _ = bounded(load(50.0), last)
    assert peak(last) == pytest.approx(50.0)


def test_absurd_lengths_are_not_believed() -> None:
    """Prompts that became 100 times longer overnight keep their last good lengths; the rate is taken."""
    found, notes = bounded(load(2.0, prompt=50_000.0), load(1.0, prompt=500.0))
    assert found.prompt == Lengths(mean=500.0)
    assert found.rate == 2.0
    assert len(notes) == 1


def test_without_a_last_load_nothing_is_cut() -> None:
    """The first observation has nothing to be measured by."""
    assert bounded(load(1e5), None) == (load(1e5), ())


def test_numbers_that_are_none_become_the_plain_case() -> None:
    """NaN and impossible shares are Poisson and no prefix hits; beyond bounds they are cut."""
    assert [cv_of(x) for x in (None, math.nan, 0.2, 4.0, 1e9)] == [1.0, 1.0, 1.0, 2.0, 10.0]
    observed = Observed(start_hour=0, rates=())
    shares = [hit_share(observed.model_copy(update={"prefix_hit_share": x})) for x in (None, math.nan, -1.0, 0.5, 2.0)]
    assert shares == [0.0, 0.0, 0.0, 0.5, 0.99]


def test_three_digits_are_what_a_plan_states() -> None:
    """Noise in the fourth digit makes no new plan."""
    assert significant(12.3449) == significant(12.3351) == 12.3
