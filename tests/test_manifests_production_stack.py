"""`planner.manifests.production_stack`: Helm values that the chart reads."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml
from random_plans import random_plan
from schemas import errors, needs, values

from planner.manifests import render
from planner.plan import Plan, from_json

SAMPLE = Path(__file__).parent / "plans" / "sample.json"
SCHEMA = "production-stack-0.1.12-values.schema.json"


def sample() -> Plan:
    """The hand-made plan."""
    return from_json(SAMPLE.read_text(encoding="utf-8"))


def stacks(plan: Plan) -> dict[str, dict]:
    """Every values file."""
    return {path: yaml.safe_load(text) for path, text in render(plan, formats=["production-stack"]).items()}


@needs(SCHEMA)
@pytest.mark.parametrize("seed", [None, *range(6)])
def test_values_match_the_chart_and_use_known_keys(seed: int | None) -> None:
    """The chart's schema is not strict: besides passing it, every key must be one that it lists."""
    schema = values(SCHEMA)
    engine = schema["properties"]["servingEngineSpec"]["properties"]
    spec_keys = engine["modelSpec"]["items"]["properties"]
    for value in stacks(sample() if seed is None else random_plan(seed)).values():
        assert errors(jsonschema.Draft202012Validator(schema), value) == []
        assert set(value) <= set(schema["properties"])
        assert set(value["routerSpec"]) <= set(schema["properties"]["routerSpec"]["properties"])
        assert set(value["servingEngineSpec"]) <= set(engine)
        for spec in value["servingEngineSpec"]["modelSpec"]:
            assert set(spec) <= set(spec_keys)
            assert set(spec["vllmConfig"]) <= set(spec_keys["vllmConfig"]["properties"])


def test_prefix_caching_is_always_stated() -> None:
    """The chart turns prefix caching off where it is not stated."""
    plan = sample()
    specs = {s["name"]: s for v in stacks(plan).values() for s in v["servingEngineSpec"]["modelSpec"]}
    assert specs["chat"]["vllmConfig"]["enablePrefixCaching"] is True
    assert specs["retrieval-decode"]["vllmConfig"]["enablePrefixCaching"] is False
    assert not any("prefix-caching" in part for spec in specs.values() for part in spec["vllmConfig"]["extraArgs"])


def test_a_flag_that_the_version_has_no_more_is_not_left_to_the_chart() -> None:
    """The chart writes `--no-enable-prefix-caching`, which vLLM 0.33 does not know: such groups are left out, named."""
    plan = sample().model_copy(update={"vllm_version": "0.33.0"})
    for value in stacks(plan).values():
        assert all(spec["vllmConfig"]["enablePrefixCaching"] for spec in value["servingEngineSpec"]["modelSpec"])
    assert any(not group.enable_prefix_caching for group in plan.placements)
    assert "`retrieval-pd` has no prefix caching" in render(plan, formats=["readme"])["README.md"]


def test_no_argument_is_lost_or_said_twice() -> None:
    """What is typed is not repeated in extraArgs; KV space and batch limits are enforced."""
    spec = next(s for s in stacks(sample())["production-stack/values.yaml"]["servingEngineSpec"]["modelSpec"])
    extra = {part.split("=")[0] for part in spec["vllmConfig"]["extraArgs"]}
    assert {"--max-num-batched-tokens", "--kv-cache-memory-bytes", "--kv-cache-dtype"} <= extra
    assert not {"--max-num-seqs", "--tensor-parallel-size", "--max-model-len"} & extra


def test_a_pair_is_a_release_of_its_own() -> None:
    """Routing is a setting of the whole release: pairs do not share one with collocated models."""
    found = stacks(sample())
    assert set(found) == {"production-stack/values.yaml", "production-stack/retrieval-pd.values.yaml"}
    pair = found["production-stack/retrieval-pd.values.yaml"]
    assert pair["routerSpec"]["routingLogic"] == "disaggregated_prefill_orchestrated"
    names = [spec["name"] for spec in pair["servingEngineSpec"]["modelSpec"]]
    assert pair["routerSpec"]["extraArgs"] == [
        f"--prefill-model-labels={names[0]}",
        f"--decode-model-labels={names[1]}",
    ]
    releases = [value["servingEngineSpec"]["labels"] for value in found.values()]
    assert len({str(labels) for labels in releases}) == len(releases)


def test_the_charts_own_defaults_do_not_stop_a_rollout() -> None:
    """It would start every replica twice, where no GPU is free, and give weights ten minutes to load."""
    for value in stacks(sample()).values():
        engine = value["servingEngineSpec"]
        assert sorted(engine["strategy"]["rollingUpdate"].values()) == [0, 1]
        assert engine["startupProbe"]["failureThreshold"] * engine["startupProbe"]["periodSeconds"] == 2400
