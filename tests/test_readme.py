"""README.md says what a newcomer sees."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli.main import app
from planner.intents import Intent

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_intent_shown_is_read() -> None:
    """The YAML that README shows is a fleet's intents, as the reader takes them."""
    shown = re.search(r"```yaml\n(intents:.*?)\n```", README, re.DOTALL)
    assert shown is not None
    for intent in yaml.safe_load(shown[1])["intents"]:
        assert Intent.model_validate_json(json.dumps(intent)).name == intent["name"]


def test_the_night_shown_names_every_intent() -> None:
    """The worked night has one row for each intent of the example fleet."""
    night = re.search(r"<!-- night -->(.*?)<!-- /night -->", README, re.DOTALL)
    assert night is not None
    names = re.findall(
        r"^  - name: (\S+)$", (ROOT / "examples" / "fleet.yaml").read_text().split("intents:")[1], re.MULTILINE
    )
    assert len(names) >= 8
    for name in names:
        assert f"| {name} |" in night[1]


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^\| `fleetplan ([a-z-]+)", README, re.MULTILINE))))
def test_every_command_shown_exists(command: str) -> None:
    """Each row of the command table is a command with a help page."""
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^\$ make ([a-z-]+)", README, re.MULTILINE))))
def test_every_make_target_shown_exists(target: str) -> None:
    """Each `make` line of README is a target of the Makefile."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
