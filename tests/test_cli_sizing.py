"""`fleetplan size`: its limits are read strictly, and its exit code says whether everything is met."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_cli import FLEET, run

from catalog.errors import BadInput
from flows.cli.sizing import limits_of


def test_limits_are_for_all_pools_or_for_one() -> None:
    """The last of each counts; a pool's name may hold anything but an equals sign at its end."""
    assert limits_of([]) == (None, {})
    assert limits_of(["20", "h100-eu=8", "12", "h100-eu=9"]) == (12, {"h100-eu": 9})


@pytest.mark.parametrize("word", ["many", "-1", "=4", "h100=", "h100=x", "1.5", "999999999"])
def test_what_is_no_number_of_nodes_is_refused(word: str) -> None:
    """The error shows the word and what to write."""
    with pytest.raises(BadInput, match="is no number of nodes"):
        limits_of([word])


def test_bad_limits_end_with_code_two_before_anything_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on standard error, nothing written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.yaml").write_text(FLEET, encoding="utf-8")
    code, out, err = run(capsys, "size", "fleet.yaml", "--at-most", "lots")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fleet.yaml"]
