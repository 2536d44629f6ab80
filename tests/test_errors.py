"""Errors: one sentence that says where, what and what to do."""

from __future__ import annotations

import pytest

from catalog.errors import BadInput, CorruptRecord, FleetplanError, StalePlan, near_names


def test_bad_input_reads_place_what_mend() -> None:
    """The text is `place: what; mend`, and the parts are kept."""
    error = BadInput("unknown GPU 'h10'", place="fleet.yaml:3", mend="did you mean 'h100_sxm'?")
    assert str(error) == "fleet.yaml:3: unknown GPU 'h10'; did you mean 'h100_sxm'?"
    assert (error.place, error.what, error.mend) == ("fleet.yaml:3", "unknown GPU 'h10'", "did you mean 'h100_sxm'?")


def test_bad_input_without_place_or_mend_has_no_punctuation() -> None:
    """Empty parts leave no trace."""
    assert str(BadInput("is empty")) == "is empty"


@pytest.mark.parametrize("kind", [BadInput, CorruptRecord, StalePlan])
def test_every_error_on_purpose_is_a_fleetplan_error(kind: type[FleetplanError]) -> None:
    """One `except FleetplanError` catches all of them."""
    assert issubclass(kind, FleetplanError)


def test_near_names_suggests_by_likeness_whatever_the_case() -> None:
    """A misspelt name gets the name that was meant, as it is spelt."""
    assert near_names("l40S_", ["L40s", "h100_sxm"]) == "did you mean 'L40s'?"


def test_near_names_lists_some_where_nothing_is_like_it() -> None:
    """Without a likeness the known names are listed in order, at most twelve."""
    assert near_names("zzz", ["b", "a"]) == "known names: a, b"
    assert near_names("zzz", [f"n{i:02}" for i in range(20)]).endswith("n11, ...")
    assert near_names("zzz", []) == "no names are known"
