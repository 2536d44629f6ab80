"""`planner.manifests`: names, arguments, and what all formats share."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from random_plans import golden_plans
from regold import EXAMPLE, planned

from catalog.errors import BadInput
from catalog.flags import check_arguments, load_flags
from flows.fleet import read_fleet
from planner.manifests import FORMATS, arguments, argv, render
from planner.manifests.arguments import queue_limit
from planner.manifests.names import dump, dump_all, group_names, label_value, safe
from planner.plan import NodeShare, Plan, from_json, seal

ROOT = Path(__file__).parent.parent
PLANS = ROOT / "tests" / "plans"
HOSTILE = st.text(min_size=1, max_size=80)


def sample() -> Plan:
    """The hand-made plan."""
    return from_json((PLANS / "sample.json").read_text(encoding="utf-8"))


def with_group(plan: Plan, index: int = 0, **update: Any) -> Plan:
    """The plan with one group changed."""
    groups = list(plan.placements)
    groups[index] = groups[index].model_copy(update=update)
    return seal(plan.model_copy(update={"placements": tuple(groups)}))


def renamed(plan: Plan, name: str, model: str) -> Plan:
    """The plan with the first intent and its model called otherwise."""
    intents = (plan.intents[0].model_copy(update={"name": name, "model": model}), *plan.intents[1:])
    group = plan.placements[0].model_copy(update={"intent": name, "model": model, "checkpoint": model})
    return seal(plan.model_copy(update={"intents": intents, "placements": (group, *plan.placements[1:])}))


PLAIN = sample()
KNOWN = render(PLAIN)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(JSON)
def test_yaml_reads_back_as_what_was_written(value: Any) -> None:
    """parse(render(x)) == x, control characters, words like `no` and `1:30` and line separators included."""
    assert yaml.safe_load(dump(value)) == value
    assert list(yaml.safe_load_all(dump_all([value, {"a": value}]))) == [value, {"a": value}]


def test_yaml_of_long_and_of_many_lines_reads_back() -> None:
    """Keys that YAML reads on no single line, and strings of many lines, at any depth, in sequences too."""
    key, text = "k" * 2000, "a: b\n\n  'c'\t# d\n" + "word " * 2000
    for inner in (text, [text, {key: [text]}], {key: {key: text}, "b": [[text], {}], "c": []}):
        value = {key: inner, "a": [[inner, [inner]], {"z": inner}]}
        assert yaml.safe_load(dump(value)) == value


@given(HOSTILE, HOSTILE)
def test_names_are_safe_and_stay_apart(one: str, other: str) -> None:
    """Every name becomes an RFC 1123 label; different names become different labels; a good name is kept."""
    for name in (one, other):
        assert len(safe(name)) <= 52
        assert safe(name) == safe(name).lower().strip("-")
        assert all(c in "abcdefghijklmnopqrstuvwxyz0123456789-" for c in safe(name))
        assert safe(name)[0].isalpha()
        assert safe(safe(name)) == safe(name)
        assert len(label_value(name)) <= 63
    assert (safe(one) == safe(other)) == (one == other)


@settings(max_examples=25)
@given(HOSTILE, HOSTILE)
def test_hostile_names_stay_values(name: str, model: str) -> None:
    """A name with newlines, quotes or control characters adds no key, no document and no path."""
    plan = renamed(PLAIN, name, model)
    files, known = render(plan), KNOWN
    assert len(files) == len(known)
    own = group_names(plan)[0]
    for path, text in files.items():
        assert path == str(Path(path))
        assert ".." not in Path(path).parts
        plain = [part.split(".")[0] for part in Path(path).parts]
        assert path == "README.md" or [safe(part, 80) for part in plain] == plain
        if path.endswith((".yaml", ".yml")) and own in path:
            assert all(isinstance(document, dict) for document in yaml.load_all(text, Loader=LOADER))
    settings = yaml.safe_load(files[f"vllm/{group_names(plan)[0]}.yaml"])
    assert settings["model"] == model
    assert settings["served-model-name"] == [model]
    assert set(settings) == set(yaml.safe_load(known["vllm/chat.yaml"]))


def test_intents_that_look_alike_get_files_of_their_own() -> None:
    """`Chat` and `chat`, or an intent called like another one's role, collide in nothing."""
    plan = sample()
    twin = plan.placements[0].model_copy(update={"intent": "retrieval-prefill"})
    case = plan.placements[0].model_copy(update={"intent": "Chat"})
    again = plan.placements[0].model_copy(update={"max_num_seqs": 3})
    names = group_names(plan.model_copy(update={"placements": (*plan.placements, twin, case, again)}))
    assert len(set(names)) == len(plan.placements) + 3


def test_the_serial_stands_in_no_manifest() -> None:
    """An unchanged plan of another night is a zero diff."""
    plan = sample()
    assert render(plan) == render(plan.model_copy(update={"serial": 8_765_432}))
    assert not any("8765432" in text for text in render(plan.model_copy(update={"serial": 8_765_432})).values())


def test_every_file_names_plan_fleet_version_and_image() -> None:
    """Each folder or file states the digests, the vLLM version and the image it is for."""
    plan = sample()
    for path, text in render(plan).items():
        if Path(path).name == "kustomization.yaml":
            continue
        for said in (plan.digest, plan.fleet_digest, plan.vllm_version, plan.image):
            assert said in text, path


def test_what_was_planned_is_what_is_enforced() -> None:
    """Parallelism, batch limits, KV space, length, formats and prefix caching stand in the arguments as planned."""
    plan = sample()
    for group in plan.placements:
        found = arguments(plan, group)
        assert (found["tensor-parallel-size"], found["pipeline-parallel-size"]) == (group.tp, group.pp)
        assert found.get("data-parallel-size", 1) == group.dp
        assert found.get("enable-expert-parallel", False) == group.expert_parallel
        assert found["max-num-seqs"] == group.max_num_seqs
        assert found["max-num-batched-tokens"] == group.max_num_batched_tokens
        assert found["max-model-len"] == group.max_model_len
        assert found["kv-cache-memory-bytes"] == group.kv_cache_memory_bytes
        assert found["kv-cache-dtype"] == {"bf16": "bfloat16"}.get(group.kv_dtype, group.kv_dtype)
        assert found.get("quantization") == group.online_quantization
        assert ("enable-prefix-caching" in found) == group.enable_prefix_caching
        assert ("no-enable-prefix-caching" in found) != group.enable_prefix_caching
        if group.dp == 1:
            assert found.get("max-num-queued-tokens") == group.max_num_queued_tokens


@pytest.mark.parametrize(("dp", "planned", "told"), [(1, 9000, 9000), (4, 100_000, 25_000), (8, 9000, 8192), (2, 9, 9)])
def test_the_servers_of_a_replica_share_its_queue(dp: int, planned: int, told: int) -> None:
    """Each API server, one per data-parallel rank, counts its own requests: together they let wait what was planned."""
    update = {"max_model_len": 8192, "dp": dp, "max_num_queued_tokens": planned}
    assert queue_limit(sample().placements[0].model_copy(update=update)) == told


def test_the_slo_is_a_bucket_edge() -> None:
    """Attainment can be read off exactly: each limit is an edge of the histogram that measures it."""
    plan = sample()
    found = arguments(plan, plan.placements[0])["custom-histogram-buckets"]
    assert 0.5 in found["time_to_first_token"]
    assert 0.04 in found["inter_token_latency"]
    assert found["inter_token_latency"] == sorted(set(found["inter_token_latency"]))


@pytest.mark.parametrize("version", sorted(load_flags()))
def test_arguments_pass_the_recorded_table(version: str) -> None:
    """Every group's arguments are accepted by the table of the version that the plan is for."""
    version = f"{version}.0"
    plan = seal(sample().model_copy(update={"vllm_version": version}))
    for group in plan.placements:
        assert check_arguments(version, arguments(plan, group)) == []


def test_unknown_versions_and_formats_are_refused() -> None:
    """A version without a table and a misspelt format are errors that say what is known."""
    with pytest.raises(BadInput, match="no recorded table"):
        render(seal(sample().model_copy(update={"vllm_version": "0.11.0"})))
    with pytest.raises(BadInput, match="did you mean 'kubernetes'"):
        render(sample(), formats=["kubernets"])


def test_overrides_win_and_are_checked() -> None:
    """What the user sets by hand is merged last; what vLLM would refuse is refused here."""
    plan = with_group(sample(), overrides={"max-num-seqs": 7, "seed": 3})
    assert arguments(plan, plan.placements[0])["max-num-seqs"] == 7
    with pytest.raises(BadInput, match="max-num-seq: unknown argument"):
        render(with_group(sample(), overrides={"max-num-seq": 7}))


@pytest.mark.parametrize(
    ("index", "update", "said"),
    [
        (3, {"tp": 1, "gpus_per_replica": 1}, "no multiple of prefill TP"),
        (3, {"kv_dtype": "fp8"}, "differ in kv_dtype"),
        (3, {"checkpoint": "x/y"}, "differ in checkpoint"),
        (3, {"pp": 2}, "cannot be pipelined"),
        (3, {"intent": "other"}, "has no partner"),
    ],
)
def test_pairs_that_nixl_would_refuse_are_refused(index: int, update: dict[str, Any], said: str) -> None:
    """Prefill and decode must agree in what NixlConnector's handshake compares, decode at least as wide."""
    with pytest.raises(BadInput, match=said):
        render(with_group(sample(), index, **update))


def test_a_command_line_says_the_same_as_the_file() -> None:
    """The model comes first, every flag once, JSON in one argument."""
    plan = sample()
    line = argv(arguments(plan, plan.placements[2]))
    assert line[0] == "Qwen/Qwen3-32B"
    assert "--tensor-parallel-size=2" in line
    assert '"kv_role":"kv_producer"' in next(part for part in line if part.startswith("--kv-transfer-config="))
    assert not any(part.startswith("--model") for part in line)


#: How a line may name the token: as a reference to a secret, from the caller's environment, or left for the user.
REFERENCES = {"- name: HF_TOKEN", "key: HF_TOKEN", "secretKey: HF_TOKEN", "HF_TOKEN: ${HF_TOKEN:-}", "HF_TOKEN: null"}


def test_secrets_are_references() -> None:
    """A token occurs as a reference alone: no line gives it a value."""
    files = {path: text for path, text in render(PLAIN).items() if path != "README.md"}  # that one names it in prose
    lines = {line.strip() for text in files.values() for line in text.splitlines() if "HF_TOKEN" in line}
    assert lines <= REFERENCES
    assert "key: HF_TOKEN" in lines


def many(plan: Plan, count: int) -> Plan:
    """A plan of that many intents with one group each."""
    first, group = plan.intents[0], plan.placements[0]
    names = [f"chat-{index}" for index in range(count)]
    intents = tuple(first.model_copy(update={"name": name}) for name in names)
    groups = tuple(group.model_copy(update={"intent": name}) for name in names)
    return plan.model_copy(update={"intents": intents, "placements": groups})


def test_a_thousand_placements_render_quickly() -> None:
    """1,000 placements in all formats together take about two seconds of CPU (a loaded machine gets six)."""
    plan = many(sample(), 1000)
    start = time.process_time()
    assert render(plan)
    assert time.process_time() - start < 6.0


PROGRAM = """
import hashlib, sys
from pathlib import Path
from planner.manifests import render
from planner.plan import from_json
files = render(from_json(Path(sys.argv[1]).read_text(encoding="utf-8")))
print(hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest())
"""


def test_bytes_do_not_depend_on_the_hash_seed() -> None:
    """Two runs under different hash seeds write the same bytes."""
    runs = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(PLANS / "sample.json")],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(runs) == 1


def test_replicas_do_not_restart_because_another_moved() -> None:
    """Pod templates name no digest: a plan that changes elsewhere leaves the pods of a group as they are."""
    plan = sample()
    other = with_group(plan, 1, replicas=9, nodes=((NodeShare(node="l40s-eu-0", gpus=1),),) * 9)
    one, two = (yaml.safe_load(render(p)["kubernetes/base/chat/deployment.yaml"]) for p in (plan, other))
    assert one["metadata"]["annotations"] != two["metadata"]["annotations"]
    assert one["spec"] == two["spec"]


@pytest.mark.parametrize("name", sorted(golden_plans()))
def test_golden_files(name: str) -> None:
    """Manifests of the sealed plans are those that were reviewed; `python -m tests.regold` writes them anew."""
    files = render(golden_plans()[name])
    folder = PLANS / name
    written = {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    assert sorted(files) == sorted(written)
    assert files == written


def test_the_example_plan_is_of_the_example_fleet() -> None:
    """The reviewed plan is of the fleet that users start from; `python -m tests.regold --plan` makes it anew."""
    mend = "the example fleet has changed: python -m tests.regold --plan"
    assert golden_plans()["example"].fleet_digest == read_fleet(EXAMPLE).digest, mend


@pytest.mark.slow
def test_the_example_fleet_still_plans_to_it() -> None:
    """Planned from nothing, the same intents are met with the same models, for nearly the same money."""
    kept, now = golden_plans()["example"], planned()
    statuses = [{decision.name: (decision.status, decision.model) for decision in p.intents} for p in (kept, now)]
    assert statuses[0] == statuses[1]
    assert now.cost_per_hour == pytest.approx(kept.cost_per_hour, rel=0.05)


def test_golden_plans_are_sealed() -> None:
    """Each golden plan carries the digest of its content, so that its manifests name it, and every format occurs."""
    plans = golden_plans()
    assert {"sample", "example"} <= set(plans)
    assert {name: seal(plan).digest for name, plan in plans.items()} == {n: plan.digest for n, plan in plans.items()}
    for plan in plans.values():
        assert {path.split("/")[0] for path in render(plan)} == {*FORMATS, "README.md"} - {"readme"}
