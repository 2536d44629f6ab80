"""`planner.manifests.vllm`: files and command lines that vLLM accepts, by its recorded table and by vLLM itself."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from random_plans import MODELS, formats, golden_plans, random_plan

from catalog.flags import check_arguments, load_flags
from catalog.quantizations import QUANTIZATIONS
from planner.manifests import arguments, argv, group_names, render
from planner.plan import Plan, from_json

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "tests" / "plans" / "sample.json"
VLLM = Path(os.environ.get("FLEETPLAN_VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
PLANS = 200
#: Architecture -> what transformers calls the model, for rows of which no whole config.json is at hand.
MODEL_TYPES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "MiniMaxM2ForCausalLM": "minimax_m2",
    "GptOssForCausalLM": "gpt_oss",
    "GemmaForCausalLM": "gemma",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3_text",
    "Phi3ForCausalLM": "phi3",
    "Glm4MoeForCausalLM": "glm4_moe",
    "DeepseekV2ForCausalLM": "deepseek_v2",
}
#: Models that also see: their text part is what a plan parallelises, and vLLM reads it without torchvision or a
#: processor, which the CPU environment and a bare config.json do not have. Architecture -> the text part's.
TEXT_PARTS = {
    "Llama4ForConditionalGeneration": ("Llama4ForCausalLM", "llama4_text"),
    "Gemma4ForConditionalGeneration": ("Gemma4ForCausalLM", "gemma4_text"),
    "KimiK25ForConditionalGeneration": ("DeepseekV3ForCausalLM", "deepseek_v3"),
    "Qwen3VLForConditionalGeneration": ("Qwen3ForCausalLM", "qwen3"),
    "Qwen3VLMoeForConditionalGeneration": ("Qwen3MoeForCausalLM", "qwen3_moe"),
}


def sample() -> Plan:
    """The hand-made plan."""
    return from_json(SAMPLE.read_text(encoding="utf-8"))


def test_file_and_command_line_say_the_same() -> None:
    """The YAML holds what was planned, and the shell script the same arguments in the same order."""
    plan = sample()
    files = render(plan, formats=["vllm"])
    for name, group in zip(group_names(plan), plan.placements, strict=True):
        assert yaml.safe_load(files[f"vllm/{name}.yaml"]) == arguments(plan, group)
        script = files[f"vllm/{name}.sh"].replace("\\\n", " ")
        (line,) = [line for line in script.splitlines() if line.startswith("exec vllm serve")]
        assert shlex.split(line)[3:] == [*argv(arguments(plan, group)), "$@"]


def test_random_plans_pass_the_recorded_tables() -> None:
    """Every argument set of 200 random plans is accepted by the tables of all recorded versions."""
    for seed in range(PLANS):
        plan = random_plan(seed)
        for version in sorted(load_flags()):
            moved = plan.model_copy(update={"vllm_version": f"{version}.0"})
            for group in moved.placements:
                assert check_arguments(f"{version}.0", arguments(moved, group)) == []


def test_random_plans_cover_what_they_claim() -> None:
    """Over the 200 plans every catalog model occurs, every format of any, every width, TP, PP, DP, EP and each role."""
    groups = [group for seed in range(PLANS) for group in random_plan(seed).placements]
    assert {group.model for group in groups} == set(MODELS)
    assert {group.role for group in groups} == {"both", "prefill", "decode"}
    assert {group.tp for group in groups} >= {1, 2, 4, 8}
    assert {group.pp for group in groups} >= {1, 2}
    assert {group.expert_parallel for group in groups} == {True, False}
    assert {group.quantization for group in groups} == {name for model in MODELS.values() for name in formats(model)}
    assert {group.online_quantization for group in groups} >= {one.vllm for one in QUANTIZATIONS.values()} - {None}
    assert {group.kv_dtype for group in groups} == {"bf16", "fp8"}
    assert {group.dp for group in groups} >= {1, 2, 4}


def config_of(model: str) -> dict[str, Any] | None:
    """A whole config.json where the kernel tables' package has one, else the row of the catalog; None for neither."""
    folder = resources.files("aiconfigurator_core").joinpath("model_configs")
    for name in (model, model.replace("Llama-3.1", "Meta-Llama-3.1"), model.replace("-Instruct", "")):
        file = folder.joinpath(name.replace("/", "--") + "_config.json")
        if file.is_file():
            return text_part(json.loads(file.read_text(encoding="utf-8")))
    rows = yaml.safe_load((ROOT / "catalog" / "models.yaml").read_text(encoding="utf-8"))
    row = rows[model]
    config = (rows[row["like"]]["config"] if "like" in row else {}) | row.get("config", {})
    if "text_config" in config:
        return text_part(config)
    kind = MODEL_TYPES.get(config.get("architectures", [""])[0])
    return config | {"model_type": kind} if kind else None


def text_part(config: dict[str, Any]) -> dict[str, Any]:
    """The config of the text model inside, where there is one inside."""
    if "text_config" not in config:
        return config
    architecture, kind = TEXT_PARTS[config["architectures"][0]]
    inner = {key: value for key, value in config["text_config"].items() if key != "auto_map"}
    return inner | {"architectures": [architecture], "model_type": kind}


def test_every_model_has_a_config_to_check_with() -> None:
    """What vLLM is asked with is at hand for every model of the catalog: none is left out silently."""
    assert [name for name in sorted(MODELS) if config_of(name) is None] == []


@pytest.mark.vllm
@pytest.mark.skipif(not VLLM.exists(), reason="needs .venv-vllm (make test-vllm)")
def test_vllm_accepts_every_argument_set(tmp_path: Path) -> None:
    """VLLM's parser and create_engine_config accept all sets of 200 random plans, from the file and the line."""
    cases, names = [], []
    for plan in [*golden_plans().values(), *(random_plan(seed) for seed in range(PLANS))]:
        for group in plan.placements:
            config = config_of(group.model)
            assert config is not None, group.model
            # what the checkpoint itself says of its format is not what is tested
            plain = {key: value for key, value in config.items() if key != "quantization_config"}
            settings = arguments(plan, group)
            cases.append({"config": plain, "arguments": settings, "line": argv(settings)})
            names.append(f"{group.model} {group.role} tp{group.tp} pp{group.pp} dp{group.dp} {group.quantization}")
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_TARGET_DEVICE": "cpu"}
    subprocess.run(
        [VLLM, ROOT / "tests" / "vllm_check.py", tmp_path / "cases.json", tmp_path / "answers.json"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "VLLM_LOGGING_LEVEL": "ERROR", **offline},
        check=True,
        timeout=1500,
    )
    answers = json.loads((tmp_path / "answers.json").read_text())
    refused = [f"{name}: {answer}" for name, answer in zip(names, answers, strict=True) if answer is not None]
    assert refused == []
