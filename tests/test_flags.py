"""`catalog.flags`: the recorded arguments of vLLM's versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import BadInput
from catalog.flags import BOUNDS, check_arguments, flags, load_flags, switch

GIVEN = Path(__file__).parent.parent / ".." / "shared" / "data" / "vllm" / "flags-0.33.0.json"
VERSIONS = sorted(load_flags())


def test_minor_versions_are_recorded() -> None:
    """The default version, its successor and three before it are there, with every argument that a plan needs."""
    assert VERSIONS == ["0.29", "0.30", "0.31", "0.32", "0.33"]
    for version in VERSIONS:
        assert len(flags(f"{version}.0")) > 290
        assert set(BOUNDS) <= set(flags(f"{version}.0"))


def test_patch_versions_share_a_table() -> None:
    """Arguments change between minor versions, not between patches."""
    assert flags("0.32.0") is flags("0.32.7")


@pytest.mark.parametrize("version", ["0.28.0", "9.0.0", "main", ""])
def test_unknown_versions_are_refused(version: str) -> None:
    """A version without a recorded parser is refused by name, never guessed."""
    with pytest.raises(BadInput, match="recorded"):
        flags(version)


def test_a_switch_is_spelled_as_its_version_spells_it() -> None:
    """Version 0.33 renamed the negative forms: `--no-enable-X` became `--disable-X`."""
    assert switch("0.32.0", "enable-prefix-caching", on=False) == "no-enable-prefix-caching"
    assert switch("0.33.0", "enable-prefix-caching", on=False) == "disable-prefix-caching"
    assert switch("0.33.0", "enable-prefix-caching", on=True) == "enable-prefix-caching"
    with pytest.raises(BadInput, match="cannot turn 'headless' off"):
        switch("0.32.0", "headless", on=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max-num-seq": 8}, "did you mean 'max-num-seqs'"),
        ({"max-num-seqs": 0}, "outside"),
        ({"max-num-seqs": "8"}, "not int"),
        ({"max-num-seqs": True}, "not int"),
        ({"max-model-len": "16k"}, "not int_or_auto"),
        ({"kv-cache-dtype": "fp9"}, "none of its choices"),
        ({"quantization": "fp7"}, "none of its choices"),
        ({"gpu-memory-utilization": 1.4}, "outside"),
        ({"gpu-memory-utilization": float("nan")}, "not float"),
        ({"enable-prefix-caching": False}, "not bool"),
        ({"enable-prefix-caching": True, "no-enable-prefix-caching": True}, "together"),
        ({"kv-transfer-config": "NixlConnector"}, "not json"),
        ({"swap-space": 4}, "unknown argument"),
    ],
)
def test_what_vllm_would_refuse_is_said(arguments: dict[str, object], said: str) -> None:
    """Unknown names, wrong types, values outside choices and bounds: one sentence each."""
    (problem,) = check_arguments("0.32.0", arguments)
    assert said in problem


def test_good_arguments_pass() -> None:
    """What a plan typically enforces has no problem in any recorded version that has the flag."""
    wanted = {
        "tensor-parallel-size": 4,
        "max-num-seqs": 256,
        "max-model-len": 8192,
        "kv-cache-dtype": "fp8",
        "quantization": "fp8",
        "enable-expert-parallel": True,
        "served-model-name": ["a", "b"],
        "kv-transfer-config": {"kv_connector": "NixlConnector", "kv_role": "kv_producer"},
    }
    assert [check_arguments(f"{version}.0", wanted) for version in VERSIONS] == [[] for _ in VERSIONS]
    edges = {"custom-histogram-buckets": {"time_to_first_token": [0.1, 0.5]}}
    known = [version for version in VERSIONS if not check_arguments(f"{version}.0", edges)]
    assert known == ["0.32", "0.33"]


@given(st.text(max_size=30), st.one_of(st.integers(), st.floats(), st.text(max_size=5), st.booleans()))
def test_checking_never_fails(name: str, value: object) -> None:
    """Any name with any value gives sentences, not an exception; an unknown name gives exactly one."""
    problems = check_arguments("0.33.0", {name: value})
    known = name in flags("0.33.0") or any(flag.negative == name for flag in flags("0.33.0").values())
    assert known or len(problems) == 1


@pytest.mark.skipif(not GIVEN.exists(), reason="needs shared/data/vllm/flags-0.33.0.json")
def test_the_table_of_0_33_is_the_given_list() -> None:
    """Every long option of the given list is a flag or a negative of the table, and the other way round."""
    options = {o[2:] for row in json.loads(GIVEN.read_text()) for o in row["opts"] if o.startswith("--")} - {"help"}
    table = flags("0.33.0")
    written = set(table) | {flag.negative for flag in table.values() if flag.negative}
    assert written <= options
    # a third spelling of one switch is the only thing that is left out
    assert options - written <= {"lightweight"} or len(options - written) < 5
