"""Overrides from fleet.yaml to the manifests: merged last, shown in the difference, refused where vLLM would."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from test_flows import FLEET, night

from catalog.errors import BadInput
from planner.diff import diff
from planner.manifests.arguments import SECRETS

OWN = FLEET.replace("    quantizations:", "    overrides: {max-num-seqs: 7, seed: 3}\n    quantizations:")


def test_an_override_of_the_fleet_reaches_every_format_and_the_difference(tmp_path: Path) -> None:
    """What a user sets by hand wins over the plan in the emitted arguments and stands in the difference, no more."""
    plain, own = night(tmp_path), night(tmp_path, OWN)
    settings = yaml.safe_load(own.files["manifests/vllm/chat.yaml"])
    assert (settings["max-num-seqs"], settings["seed"]) == (7, 3)
    before = yaml.safe_load(plain.files["manifests/vllm/chat.yaml"])
    assert {key for key in settings if settings[key] != before.get(key)} == {"max-num-seqs", "seed"}
    for path in ("kubernetes/base/chat/deployment.yaml", "compose/one-0.yaml", "kserve/chat.yaml"):
        assert "--max-num-seqs=7" in own.files[f"manifests/{path}"].decode()
    told = diff(plain.plan, own.plan).markdown()
    assert "override --max-num-seqs none → 7" in told
    assert "override --seed none → 3" in told
    assert not diff(own.plan, night(tmp_path, OWN).plan)


def test_an_override_that_vllm_would_refuse_is_bad_input(tmp_path: Path) -> None:
    """A flag that the version does not have ends the night before anything is published."""
    with pytest.raises(BadInput, match="max-num-seq: unknown argument"):
        night(tmp_path, OWN.replace("max-num-seqs: 7", "max-num-seq: 7"))
    assert not (tmp_path / "plans").exists()


@pytest.mark.parametrize(("name", "variable"), sorted(SECRETS.items()))
def test_an_override_that_is_a_secret_is_bad_input(tmp_path: Path, name: str, variable: str) -> None:
    """A key or token would stand in the plan, its manifests and Git: the message names the variable to use instead."""
    with pytest.raises(BadInput, match=f"{name}.*would write a secret.*{variable}") as refused:
        night(tmp_path, OWN.replace("max-num-seqs: 7", f"{name}: x9y8z7"))
    assert "x9y8z7" not in str(refused.value)
    assert not (tmp_path / "plans").exists()
