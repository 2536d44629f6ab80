"""fleet.yaml: the example loads, and every fault is one clear error with file, line, key and what to do."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import BadInput
from flows.fleet import LoadedFleet, read_fleet
from planner.intents import Fleet, Intent

EXAMPLE = Path(__file__).parents[1] / "examples" / "fleet.yaml"
GOOD = """\
cluster:
  pools:
    - {name: a, gpu: H100 SXM, gpus_per_node: 8, nodes: 2}
    - {name: b, gpu: l4, gpus_per_node: 4, nodes: 1, price: 0.7 USD/GPU/h}
teams:
  - {name: core, quota: {H100: 8}}
intents:
  - name: chat
    team: core
    model: Qwen/Qwen3-8B
    workload: {rate: 1 /s, prompt: {mean: 100}, output: {mean: 10}}
    slo: {ttft: 500 ms}
    pools: [a]
"""
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4, "hidden_size": 1024, "intermediate_size": 2816,
    "vocab_size": 32000, "num_attention_heads": 16, "max_position_embeddings": 4096,
}  # fmt: skip


def load(folder: Path, text: str) -> LoadedFleet:
    """Write fleet.yaml into the folder and read it."""
    (folder / "fleet.yaml").write_text(text)
    return read_fleet(folder / "fleet.yaml")


# --- what is read ---


def test_the_example_is_what_it_says() -> None:
    """Ten intents, five GPU types, more than 100 GPUs, all goals, bursty and calm load, a quality floor, a trace."""
    loaded = read_fleet(EXAMPLE)
    intents, pools = loaded.fleet.intents, loaded.fleet.cluster.pools
    assert len(intents) == 10
    assert len({pool.gpu for pool in pools}) == 5
    assert sum(pool.nodes * pool.gpus_per_node for pool in pools) == 152
    assert {intent.goal for intent in intents} == {"min_cost", "min_latency", "latency_target", "cost_target"}
    assert max(intent.workload.arrival_cv for intent in intents) > 2
    assert any(intent.quality > 0.98 for intent in intents)
    assert [path.name for path in map(loaded.trace_path, intents) if path] == ["summaries.csv"]
    assert set(loaded.models) == {intent.model for intent in intents}


def test_names_become_the_catalogs(tmp_path: Path) -> None:
    """Whatever the spelling in the file, pools and quotas name GPUs as the catalog does."""
    loaded = load(tmp_path, GOOD)
    assert [pool.gpu for pool in loaded.fleet.cluster.pools] == ["h100_sxm", "l4"]
    assert loaded.fleet.teams[0].quota == {"h100_sxm": 8}
    assert loaded.fleet.intents[0].pools == ("a",)


def test_a_checkpoints_name_tells_the_format(tmp_path: Path) -> None:
    """`Qwen3-8B-AWQ` is Qwen3-8B held to int4, unless the intent says otherwise."""
    loaded = load(tmp_path, GOOD.replace("Qwen3-8B", "Qwen3-8B-AWQ"))
    assert loaded.implied == {"chat": "int4"}
    assert loaded.fleet.intents[0].quantizations == ("int4",)
    assert loaded.models["Qwen/Qwen3-8B-AWQ"].name == "Qwen/Qwen3-8B"
    free = load(tmp_path, GOOD.replace("Qwen3-8B", "Qwen3-8B-AWQ") + "    quantizations: [bf16, int4]\n")
    assert free.fleet.intents[0].quantizations == ("bf16", "int4")


def test_own_models_are_read_beside_the_file(tmp_path: Path) -> None:
    """A config.json under `models:` adds a model named by its folder."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text(json.dumps(CONFIG))
    loaded = load(tmp_path, GOOD.replace("Qwen/Qwen3-8B", "own") + "models: [own/config.json]\n")
    assert loaded.models["own"].num_layers == 4


def test_the_digest_follows_content_not_form(tmp_path: Path) -> None:
    """Comments and folders do not count; a rate, a trace's byte or a model's shape does."""
    other = tmp_path / "other"
    other.mkdir()
    first = load(tmp_path, GOOD)
    assert load(other, "# a comment\n" + GOOD).digest == first.digest
    assert load(tmp_path, GOOD.replace("1 /s", "60 /min")).digest == first.digest
    assert load(tmp_path, GOOD.replace("1 /s", "2 /s")).digest != first.digest
    traced = GOOD.replace("{rate: 1 /s, prompt: {mean: 100}, output: {mean: 10}}", "{trace: t.csv}")
    digests = set()
    for content in ("arrival_s,prompt,output\n0,1,1\n", "arrival_s,prompt,output\n0,1,2\n"):
        (tmp_path / "t.csv").write_text(content)
        digests.add(load(tmp_path, traced).digest)
    assert len(digests) == 2


# --- what is refused ---

REPLACED = [
    # what stands there, what is written instead, line, said
    ("rate:", "rat:", 11, "workload.rat: unknown key 'rat'; did you mean 'rate'"),
    ("ttft", "tfft", 12, "slo.tfft: unknown key 'tfft'; did you mean 'ttft'"),
    ("gpus_per_node: 8, ", "", 3, "gpus_per_node is missing; add gpus_per_node:"),
    ("H100 SXM", "H10O", 3, "cluster.pools[0].gpu: unknown GPU 'H10O'; did you mean"),
    ("Qwen/Qwen3-8B", "Qwen/Qwen3-9B", 10, "model: unknown model 'Qwen/Qwen3-9B'; did you mean 'Qwen/Qwen3-8B'"),
    ("Qwen/Qwen3-8B", "zai-org/GLM-5-FP8", 10, "unsupported: GlmMoeDsaForCausalLM"),
    ("Qwen/Qwen3-8B", '"../../etc/passwd"', 10, "no possible model"),
    ("Qwen/Qwen3-8B", "", 10, "model is empty"),
    ("rate: 1 /s", "rate: -1 /s", 11, "'-1 /s' is out of range"),
    ("rate: 1 /s", "rate: 1e12 /s", 11, "out of range"),
    ("rate: 1 /s", "rate: 1", 11, "1 has no unit; write one of /s"),
    ("500 ms", "500 GB", 12, "has the unit 'GB'; write one of ms"),
    ("mean: 100", "mean: .nan", 11, "finite"),
    ("mean: 100", "mean: 1e999", 11, "finite"),
    ("mean: 100", "mean: abc", 11, "'abc' is not possible here; it must be a valid number"),
    ("nodes: 2", "nodes: -2", 3, "-2 is not possible here"),
    ("nodes: 2", "nodes: 99999999999999999999", 3, "less than or equal to 100000"),
    ("nodes: 2", "nodes: 2.5", 3, "2.5 is not possible here"),
    ("nodes: 2", "nodes: yes", 3, "true or false; quote it"),
    ("nodes: 2", "nodes: 2, lost: 3", 3, "has lost 3 of 2 nodes"),
    ("nodes: 2", "nodes: 2, price: 0 USD/GPU/h", 3, "out of range"),
    (", price: 0.7 USD/GPU/h", "", 4, "no on_demand price is known for 'l4'; give the pool its own price:"),
    ("name: b", "name: a", 4, "pool 'a' is declared twice, first on line 3"),
    ("name: chat", "name: no", 8, "true or false; quote it: 'no'"),
    ("name: chat", "name: 1:30", 8, "quote it: '1:30'"),
    ("name: chat", "name: 2026-01-01", 8, "a date; quote it"),
    ("name: chat", "name: 12", 8, "12 is no text; quote it: '12'"),
    ("name: chat", "name: ../x", 8, "no possible name"),
    ("name: chat", "name: !!python/object:os.system x", 8, "tag"),
    ("team: core", "team: cores", 9, "unknown team 'cores'; did you mean 'core'"),
    ("pools: [a]", "pools: [c]", 13, "pools[0]: unknown pool 'c'; known names: a, b"),
    ("pools: [a]", "gpus: [h300]", 13, "gpus[0]: unknown GPU 'h300'"),
    ("pools: [a]", "goal: cheapest", 13, "'cheapest' is not possible here; write 'min_cost'"),
    ("pools: [a]", "goal: cost_target", 8, "has goal cost_target and no budget; add one"),
    ("{H100: 8}", "{H900: 8}", 6, "unknown GPU 'H900'"),
    ("{H100: 8}", "{H100: -1}", 6, "-1 is no possible quota"),
    ("{name: core", "{name: core: x", 6, "broken YAML"),
    ("    team", "\tteam", 9, "broken YAML"),
    ("    team", "    name: x\n    team", 9, "the key 'name' stands already on line 8"),
    ("{rate: 1 /s, prompt: {mean: 100}, output: {mean: 10}}", "{trace: none.csv}", 11, "'none.csv': no such file"),
    ("{rate: 1 /s, prompt: {mean: 100}, output: {mean: 10}}", "{trace: ../../x.csv}", 11, "leaves the folder"),
    ("{rate: 1 /s, prompt: {mean: 100}, output: {mean: 10}}", "{trace: .}", 11, "is no file"),
    ("{rate: 1 /s, prompt: {mean: 100}, output: {mean: 10}}", "{}", 11, "workload needs rate, prompt and output"),
]


@pytest.mark.parametrize(("old", "new", "line", "said"), REPLACED, ids=[row[1][:30] or row[0] for row in REPLACED])
def test_a_fault_names_file_line_and_mend(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    """One edit of a good file gives one error on its line, in one line of text."""
    assert GOOD.count(old) == 1
    with pytest.raises(BadInput) as caught:
        load(tmp_path, GOOD.replace(old, new))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'fleet.yaml'}:{line}:")
    assert said in text
    assert len(text.splitlines()) == 1


def test_intents_and_teams_cannot_be_declared_twice(tmp_path: Path) -> None:
    """The second of two equal names is where the error stands."""
    with pytest.raises(BadInput, match=r":14: intents\[1\]\.name: intent 'chat' is declared twice, first on line 8"):
        load(tmp_path, GOOD + GOOD.split("intents:\n")[1])
    with pytest.raises(BadInput, match=r":7: teams\[1\]\.name: team 'core' is declared twice"):
        load(tmp_path, GOOD.replace("intents:", "  - {name: core}\nintents:"))


def test_all_faults_are_told_at_once_the_first_one_first(tmp_path: Path) -> None:
    """Two faults, two lines, in the file's order."""
    with pytest.raises(BadInput) as caught:
        load(tmp_path, GOOD.replace("500 ms", "5 parsec").replace("rate:", "rat:"))
    first, second = str(caught.value).splitlines()
    assert "unknown key 'rat'" in first
    assert second.startswith("  also:")
    assert "parsec" in second


def test_models_of_ones_own_are_checked(tmp_path: Path) -> None:
    """A missing, broken, escaping or doubled config.json is an error of the line that names it."""
    for folder in ("x/own", "y/own"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "broken.json").write_text("{")
    for listed, said in {
        "[none.json]": "no such file",
        "[broken.json]": "broken JSON",
        "[../x.json]": "leaves the folder",
        '["a\\0b"]': "path",
        "[x/own/config.json, y/own/config.json]": "second model named 'own'",
    }.items():
        with pytest.raises(BadInput, match=said) as caught:
            load(tmp_path, GOOD + f"models: {listed}\n")
        assert f"{tmp_path / 'fleet.yaml'}:14:" in str(caught.value)


def test_a_link_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    """A symbolic link to a file elsewhere is refused as the path itself would be."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.csv").write_text("arrival_s,prompt,output\n")
    (tmp_path / "inside" / "t.csv").symlink_to(tmp_path / "secret.csv")
    text = GOOD.replace("{rate: 1 /s, prompt: {mean: 100}, output: {mean: 10}}", "{trace: t.csv}")
    with pytest.raises(BadInput, match="leaves the folder"):
        load(tmp_path / "inside", text)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "x", "- a\n", "{}", "cluster: 3\n", "intents: []\ncluster: {pools: []}\n"]
)
def test_what_is_no_fleet_is_refused(tmp_path: Path, text: str) -> None:
    """Empty files, lists, scalars and empty sections."""
    with pytest.raises(BadInput):
        load(tmp_path, text)


def test_missing_files_directories_and_binaries_are_refused(tmp_path: Path) -> None:
    """The path itself is checked first."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, said in {"none.yaml": "no such file", "": "directory", "binary": "UTF-8"}.items():
        with pytest.raises(BadInput, match=said):
            read_fleet(tmp_path / name)


def test_a_large_file_is_checked_in_time(tmp_path: Path) -> None:
    """Twenty thousand intents of one name (3 MiB) are refused in seconds, not in the square of their number."""
    row = "  - {name: chat, model: Qwen/Qwen3-8B, workload: {rate: 1 /s, prompt: {mean: 9}, output: {mean: 9}}}\n"
    started = time.perf_counter()
    with pytest.raises(BadInput, match="declared twice"):
        load(tmp_path, GOOD + row * 20_000)
    assert time.perf_counter() - started < 20


# --- fuzz ---

WORDS = [
    *Fleet.model_fields,
    *Intent.model_fields,
    "pools",
    "gpu",
    "gpus_per_node",
    "nodes",
    "rate",
    "prompt",
    "mean",
    "a",
]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["1 /s", "5 ms", "h100", "Qwen/Qwen3-8B", "chat", "a", -1, 10**400])
)  # fmt: skip
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=10,
)


def holes(tree: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Every place of a tree."""
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, child in children for place in holes(child, (*path, key)))]


@settings(max_examples=120)
@given(data=st.data())
def test_any_change_of_a_good_file_is_a_fleet_or_bad_input(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever is put at one place of a good file, reading gives a fleet or BadInput that names the file."""
    tree: Any = yaml.safe_load(GOOD)
    *above, last = data.draw(st.sampled_from(holes(tree)[1:]))
    node = tree
    for key in above:
        node = node[key]
    node[last] = data.draw(TREES)
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        assert load(folder, yaml.safe_dump(tree)).digest
    except BadInput as error:
        assert str(error).startswith(str(folder / "fleet.yaml"))  # noqa: PT017 - either outcome is lawful


@settings(max_examples=120)
@given(
    at=st.integers(0, len(GOOD)),
    cut=st.integers(0, 30),
    put=st.text(max_size=6) | st.sampled_from(list("{}[]:&*!|>'\"\t-#%@`")),
)
def test_any_edit_of_the_text_is_a_fleet_or_bad_input(
    tmp_path_factory: pytest.TempPathFactory, at: int, cut: int, put: str
) -> None:
    """Characters cut and put anywhere end in a fleet or in BadInput that names the file."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "fleet.yaml").write_bytes((GOOD[:at] + put + GOOD[at + cut :]).encode("utf-8", "surrogatepass"))
    try:
        assert read_fleet(folder / "fleet.yaml").digest
    except BadInput as error:
        assert str(error).startswith(str(folder / "fleet.yaml"))  # noqa: PT017 - either outcome is lawful
