"""Contradictory wishes are named one by one, at their line, and nothing that could be kept is refused."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import pytest

from catalog.errors import BadInput
from catalog.gpus import load_gpus
from catalog.models import find_model, load_models
from catalog.quality import quality
from flows.cli.main import main
from flows.fleet import read_fleet
from planner.candidates.space import offered
from planner.contradictions import Known, contradictions
from planner.memory import DoesNotFit, memory
from planner.strategies import Configuration

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
FLEET = """\
cluster:
  pools:
    - {name: big, gpu: h100_sxm, gpus_per_node: 8, nodes: 2, price: 2 USD/GPU/h}
    - {name: small, gpu: l40s, gpus_per_node: 4, nodes: 2, price: 1 USD/GPU/h}
teams:
  - {name: core}
intents:
  - name: chat
    team: core
    model: meta-llama/Llama-3.1-8B-Instruct
    workload: {rate: 2 /s, prompt: {mean: 400}, output: {mean: 100}}
  - name: code
    team: core
    model: meta-llama/Llama-3.1-70B-Instruct
    quantizations: [bf16]
    workload: {rate: 1 /s, prompt: {mean: 400}, output: {mean: 100}}
"""


def edited(folder: Path, *edits: tuple[str, str]) -> Path:
    """fleet.yaml with texts replaced, each of which stands there once."""
    text = FLEET
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "fleet.yaml").write_text(text)
    return folder / "fleet.yaml"


CHAT = "    workload: {rate: 2 /s, prompt: {mean: 400}, output: {mean: 100}}\n"


def wish(*lines: str) -> tuple[str, str]:
    """Further keys of `chat`; the first stands on line 12."""
    return CHAT, CHAT + "".join(f"    {line}\n" for line in lines)


CASES: dict[str, tuple[list[tuple[str, str]], int, str]] = {
    "floor": ([wish("quality: 1.0", "quantizations: [int4]")], 12, "no format that it may use on its GPUs keeps more"),
    "min above max": ([wish("max_replicas: 2", "min_replicas: 4")], 12, "has min_replicas 4 above max_replicas 2"),
    "quota below the weights": (
        [("{name: core}", "{name: core, quota: {h100_sxm: 1, l40s: 1}}")],
        6,
        "'code' takes at least 1 replica of 2 h100_sxm or 3 l40s",
    ),
    "quota below min_replicas": (
        [("{name: core}", "{name: core, quota: {h100_sxm: 2, l40s: 0}}"), wish("min_replicas: 3")],
        6,
        "'chat' takes at least 3 replicas",
    ),
    "quota of all together": (
        [("{name: core}", "{name: core, quota: {h100_sxm: 2, l40s: 0}}")],
        6,
        "a quota of 2 GPUs in all, and 'chat' and 'code' take at least 3",
    ),
    "budget": ([wish("budget: 0.9 USD/h")], 12, "a budget of 0.9 USD/h, and 1 replica on the cheapest GPUs"),
    "budget of many": ([wish("budget: 2.9 USD/h", "min_replicas: 3")], 12, "and 3 replicas on the cheapest GPUs"),
    "team's budget": ([("{name: core}", "{name: core, budget: 2.5 USD/h}")], 6, "'chat' and 'code' cost 4 USD/h"),
    "pinned and forbidden": (
        [wish("pools: [small, big]", "forbidden_pools: [big]")],
        12,
        "pins pool 'big' and forbids",
    ),
    "GPU pinned and forbidden": ([wish("gpus: [H100]", "forbidden_gpus: [h100_sxm]")], 12, "pins GPU 'h100_sxm'"),
    "no pool left": (
        [wish("pools: [small]", "gpus: [h100_sxm]")],
        12,
        "may use no pool of the cluster: pools and gpus",
    ),
    "no nodes": ([("nodes: 2, price: 2", "nodes: 0, price: 2")], 3, "pool 'big' has no nodes"),
    "price zero": ([("price: 2 USD", "price: 0 USD")], 3, "'0 USD/GPU/h' is out of range"),
    "price negative": ([("price: 2 USD", "price: -2 USD")], 3, "'-2 USD/GPU/h' is out of range"),
    "price missing": ([("gpu: l40s", "gpu: l4"), (", price: 1 USD/GPU/h", "")], 4, "no on_demand price is known for"),
    "more lost than there": ([("nodes: 2, price: 2", "nodes: 2, lost: 3, price: 2")], 3, "has lost 3 of 2 nodes"),
    "more held than there": ([("nodes: 2, price: 2", "nodes: 2, reserved_gpus: 17, price: 2")], 3, "reserves 17 GPUs"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_contradiction_is_one_line_and_exit_code_2(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fleetplan plan` names file, line and what contradicts what, in one line, before anything is searched."""
    edits, line, said = CASES[case]
    path = edited(tmp_path, *edits)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fleetplan", "plan", str(path)])
    with pytest.raises(SystemExit) as end:
        main()
    text = capsys.readouterr().err
    assert end.value.code == 2
    assert len(text.strip().splitlines()) == 1
    assert f"{path}:{line}: " in text
    assert said in text
    assert "; " in text  # what to do
    assert [found.name for found in tmp_path.iterdir()] == ["fleet.yaml"]


def test_several_are_reported_together_in_the_files_order(tmp_path: Path) -> None:
    """Five contradictions of pools, teams and intents: five lines, none hides another."""
    path = edited(
        tmp_path,
        ("nodes: 2, price: 2", "nodes: 0, price: 2"),
        ("{name: core}", "{name: core, budget: 0.1 USD/h}"),
        wish("quality: 1", "quantizations: [int4]", "max_replicas: 1", "min_replicas: 2", "pools: [small]",
             "forbidden_pools: [small]", "budget: 0.2 USD/h"),
    )  # fmt: skip
    with pytest.raises(BadInput) as caught:
        read_fleet(path)
    lines = str(caught.value).splitlines()
    said = ("no nodes", "a budget of 0.1", "quality of 1", "above max_replicas 1", "pins pool 'small'", "budget of 0.2")
    assert [word in line for word, line in zip(said, lines, strict=True)] == [True] * 6
    assert all(line.startswith("  also:") for line in lines[1:])


def test_what_can_be_kept_is_not_refused(tmp_path: Path) -> None:
    """At the very limit there is no contradiction: quota, budgets, floor and replicas that just do."""
    path = edited(
        tmp_path,
        ("{name: core}", "{name: core, quota: {h100_sxm: 2, l40s: 1}, budget: 4 USD/h}"),
        wish("quality: 1", "max_replicas: 1", "budget: 1 USD/h"),
    )
    assert [intent.name for intent in read_fleet(path).fleet.intents] == ["chat", "code"]


def test_nodes_that_are_away_tonight_are_no_contradiction(tmp_path: Path) -> None:
    """All nodes cordoned, or all GPUs held by others: a night with unmet intents, not an error."""
    path = edited(
        tmp_path,
        ("nodes: 2, price: 2", "nodes: 2, lost: 2, price: 2"),
        ("nodes: 2, price: 1", "nodes: 2, reserved_gpus: 8, price: 1"),
    )
    assert [pool.gpus for pool in read_fleet(path).fleet.cluster.pools] == [0, 0]


def test_the_bound_is_never_above_what_fits() -> None:
    """Whatever number of GPUs memory says a model fits on, the least that its weights need is no more."""
    known = Known(models={}, gpus=load_gpus(), prices={}, quality_of=quality)
    fitting = 0
    for (name, model), gpu, tp in product(sorted(load_models().items()), ("h100_sxm", "l40s"), (1, 2, 4, 8)):
        for quantization in offered(model):
            shape = Configuration(
                model=name, gpu=gpu, tp=tp, quantization=quantization, max_num_seqs=8, max_model_len=2048,
                max_num_batched_tokens=2048,
            )  # fmt: skip
            try:
                memory(model, known.gpus[gpu], shape)
            except DoesNotFit:
                continue
            fitting += 1
            assert known.weights(model, quantization) / known.gpus[gpu].memory <= tp
    assert fitting > 100


def test_without_prices_of_its_own_the_catalogs_count() -> None:
    """The pure function takes facts as arguments: a dearer price is a contradiction where a cheaper is none."""
    fleet = read_fleet(Path(__file__).parents[1] / "examples" / "fleet.yaml").fleet
    models = {intent.model: find_model(intent.model) for intent in fleet.intents}
    cheap, dear = ({pool.name: price for pool in fleet.cluster.pools} for price in (0.01, 500.0))
    assert not contradictions(fleet, Known(models=models, gpus=load_gpus(), prices=cheap, quality_of=quality))
    found = contradictions(fleet, Known(models=models, gpus=load_gpus(), prices=dear, quality_of=quality))
    assert {one.at[-1] for one in found} == {"budget"}
