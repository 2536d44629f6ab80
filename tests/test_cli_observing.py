"""`fleetplan observe` and `fleetplan calibrate`: what they print, and with which code they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_prometheus import Vllm, serving
from test_cli import run
from test_observe import FLEET, NOW

from catalog.errors import BadInput
from flows.cli.observing import seconds

AT = "2024-10-04T02:00"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_time_is_utc_unless_it_says_otherwise() -> None:
    """Without a zone a time is UTC; what is no time is bad input."""
    assert seconds(AT) == seconds("2024-10-04T04:00+02:00") == NOW
    assert seconds(None) > NOW
    with pytest.raises(BadInput, match="no time"):
        seconds("yesterday")


def test_observe_shows_the_next_day(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table of the watched services, or JSON with their windows and records; exit 0 where all were read."""
    with serving(Vllm()) as fake:
        (here / "fleet.yaml").write_text(FLEET.format(url=fake.url))
        code, out, _ = run(capsys, "observe", "fleet.yaml", "--at", AT)
        assert (code, "chat" in out, "observed" in out) == (0, True, True)
        code, out, _ = run(capsys, "observe", "fleet.yaml", "--at", AT, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["at_hour"] == NOW // 3600
    first = found["services"][0]
    assert (first["intent"], first["source"], len(first["windows"])) == ("chat", "observed", 6)
    assert first["workload"]["rate"].endswith("/s")
    assert (here / "var" / "catalog" / first["record"]).is_file()


def test_missing_telemetry_ends_with_3(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a service could not be read, each reason is a note on standard error and the exit code is 3."""
    with serving(Vllm()) as fake:
        fake.fault = "not json"
        (here / "fleet.yaml").write_text(FLEET.format(url=fake.url))
        code, out, err = run(capsys, "observe", "fleet.yaml", "--at", AT)
    assert code == 3
    assert "none" in out
    assert "note: chat: the answer is no JSON of Prometheus" in err


def test_a_fleet_that_watches_nothing_is_told_how(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a workload that says prometheus there is nothing to observe: exit 2 and what to write."""
    text = FLEET.format(url="http://127.0.0.1:1")
    (here / "fleet.yaml").write_text(text[: text.index("  - name: chat")] + text[text.index("  - name: declared") :])
    code, _, err = run(capsys, "observe", "fleet.yaml")
    assert code == 2
    assert "select" in err


def test_calibrate_before_the_first_plan_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was predicted yet: a note, an empty scoreboard, exit 0; JSON holds the correction's record."""
    with serving(Vllm()) as fake:
        (here / "fleet.yaml").write_text(FLEET.format(url=fake.url))
        code, out, err = run(capsys, "calibrate", "fleet.yaml", "--at", AT)
        assert (code, out) == (0, "Nothing was compared yet.\n")
        assert "no plan is in force" in err
        code, out, _ = run(capsys, "calibrate", "fleet.yaml", "--at", AT, "--json")
    found = json.loads(out)
    assert found["comparisons"] == []
    assert found["record"].startswith("correction/")
