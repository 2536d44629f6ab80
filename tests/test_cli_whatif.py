"""`fleetplan whatif`: what it prints, what it draws, and what it refuses, on the hand-made world."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hand_world import intent, world

from catalog.cluster import Cluster, Network, NodePool
from flows.cli.main import main
from planner.intents import SLO
from planner.whatif import Study

FLEET = """
cluster: {pools: [{name: one, gpu: h100_sxm, gpus_per_node: 8, nodes: 1, price: 2 USD/GPU/h}]}
intents:
  - name: chat
    model: meta-llama/Llama-3.1-8B-Instruct
    workload: {rate: 2 /s, prompt: {mean: 500}, output: {mean: 100}}
"""
SLOW = Network(kind="infiniband", bandwidth="10 Gbit/s")
POOL = NodePool(name="big-a", gpu="big", gpus_per_node=8, nodes=4, network=SLOW)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Run the command on the hand-made study: (exit code, standard output, standard error)."""
    (tmp_path / "fleet.yaml").write_text(FLEET)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **changes: object) -> tuple[int, str, str]:
        wish = intent(rate=120.0, **({"slo": SLO(ttft="300 ms", tpot="13 ms")} | changes))
        study = Study(intent=wish, **world(wish, cluster=Cluster(pools=(POOL,))))
        monkeypatch.setattr("flows.sweeps.study_of", lambda *_, **__: study)
        monkeypatch.setattr(sys, "argv", ["fleetplan", "whatif", "fleet.yaml", "chat", *arguments])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_every_sweep_is_printed(asked):
    """Each sweep by name gives its frames in JSON, one point per factor or step of the network."""
    code, out, _ = asked("--sweep", "load", "--sweep", "slo", "--sweep", "jitter", "--factor", "1", "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found["sweeps"]) == {"rate", "ttft", "tpot", "jitter"}
    assert [point["value"] for point in found["sweeps"]["rate"]["points"]] == [120.0]
    assert {"points", "pays_between"} == set(found["sweeps"]["jitter"])
    assert found["sweeps"]["jitter"]["points"][0]["disaggregated_cost"] > 0


def test_by_default_the_first_four_are_asked(asked):
    """Price, SLO, load and length; nothing of the network."""
    code, out, _ = asked("--factor", "1", "--json")
    assert code == 0
    assert set(json.loads(out)["sweeps"]) == {"price", "rate", "prompt", "output", "ttft", "tpot"}


def test_tables_say_where_disaggregation_pays(asked):
    """A network sweep names both costs, the pair, and the points between which it starts paying."""
    code, out, _ = asked("--sweep", "bandwidth")
    assert code == 0
    assert "network bandwidth" in out
    assert "P" in out
    assert "disaggregation" in out.rsplit("└", 1)[1]


def test_an_upgrade_is_judged_alone(asked):
    """With --upgrade and no sweep one sentence answers, at the price named."""
    code, out, _ = asked("--upgrade", "400 Gbit/s", "--at", "0.01 USD/GPU/h", disaggregated="required")
    assert code == 0
    assert "50 GB/s per GPU" in " ".join(out.split())
    code, out, _ = asked("--upgrade", "400 Gbit/s", "--json", disaggregated="required")
    assert json.loads(out)["upgrade"]["bandwidth"] == 50e9


@pytest.mark.parametrize("form", ["png", "svg"])
def test_plots_are_drawn_and_repeatable(asked, form):
    """One file per frame, the same bytes each time."""
    drawn = []
    for folder in ("a", "b"):
        sweeps = ("--sweep", "load", "--sweep", "latency", "--factor", "1", "--factor", "40")
        code, out, _ = asked(*sweeps, "--plots", folder, "--format", form)
        assert code == 0
        drawn.append([path.read_bytes() for path in sorted(Path(folder).iterdir())])
        assert f"drawn {folder}/chat-rate.{form}" in out
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 2
    assert all(data.startswith(b"\x89PNG" if form == "png" else b"<?xml") for data in drawn[0])


@pytest.mark.parametrize(
    ("arguments", "changes", "said"),
    [
        (["--sweep", "lod"], {}, "did you mean 'load'"),
        (["--factor", "-1"], {}, "above 0"),
        (["--factor", "nan"], {}, "above 0"),
        (["--upgrade", "400"], {}, "unit"),
        (["--upgrade", "400 Gbit/s", "--at", "-1 USD/GPU/h"], {}, "refused"),
        (["--sweep", "price", "--pool", "big-b"], {}, "did you mean 'big-a'"),
        (["--sweep", "slo"], {"slo": None}, "no slo"),
        (["--sweep", "bandwidth"], {"disaggregated": "forbidden"}, "forbids disaggregation"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line(asked, arguments, changes, said):
    """What cannot be asked ends with exit code 2 and one line that says what to do."""
    code, out, err = asked(*arguments, **changes)
    assert (code, out) == (2, "")
    assert said in err
    assert err.strip().count("\n") == 0
