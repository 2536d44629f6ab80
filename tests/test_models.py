"""Models: published parameter counts, the formats of their modules, and names found leniently."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import BadInput
from catalog.models import MLA, Model, find_model, load_models, module_format, split_quantization, weight_elements


def counted(model: Model) -> list[tuple[str, int, str, int]]:
    """Attention, window, FFN and number of each block."""
    return [(layer.attention, layer.window, layer.ffn, count) for layer, count in model.layers]


# Billions of parameters as the publishers state them (model cards; Mixtral and DeepSeek: their papers).
PUBLISHED = {
    "meta-llama/Llama-3.1-8B-Instruct": 8.03,
    "meta-llama/Llama-3.1-70B-Instruct": 70.6,
    "meta-llama/Llama-3.1-405B-Instruct": 405.9,
    "meta-llama/Llama-3.2-1B-Instruct": 1.24,
    "meta-llama/Llama-3.2-3B-Instruct": 3.21,
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": 400.0,
    "Qwen/Qwen3-0.6B": 0.6,
    "Qwen/Qwen3-4B": 4.0,
    "Qwen/Qwen3-8B": 8.2,
    "Qwen/Qwen3-14B": 14.8,
    "Qwen/Qwen3-32B": 32.8,
    "Qwen/Qwen3-30B-A3B": 30.5,
    "Qwen/Qwen3-235B-A22B": 235.0,
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": 480.0,
    "Qwen/Qwen2.5-7B-Instruct": 7.61,
    "Qwen/Qwen2.5-72B-Instruct": 72.7,
    "deepseek-ai/DeepSeek-V3": 671.0,
    "moonshotai/Kimi-K2-Instruct": 1026.0,
    "MiniMaxAI/MiniMax-M2.5": 229.0,
    "openai/gpt-oss-20b": 20.9,
    "openai/gpt-oss-120b": 116.8,
    "mistralai/Mixtral-8x7B-v0.1": 46.7,
    "mistralai/Mixtral-8x22B-v0.1": 141.0,
    "mistralai/Mistral-7B-Instruct-v0.3": 7.25,
}


@pytest.mark.parametrize(("name", "billions"), PUBLISHED.items())
def test_weights_add_up_to_the_published_count(name: str, billions: float) -> None:
    """The sum over modules is the publisher's parameter count within 1 %."""
    assert math.isclose(weight_elements(load_models()[name]).total / 1e9, billions, rel_tol=0.01)


def test_gemma_4_text_and_vision_add_up() -> None:
    """25.2 B of text (tied embedding, one projection for K and V in the full layers) and a vision encoder of 0.5 B."""
    found = weight_elements(find_model("gemma-4-26B-A4B"))
    assert math.isclose((found.total - found.encoders) / 1e9, 25.2, rel_tol=0.01)
    assert 0.3e9 < found.encoders < 0.7e9


def test_weight_elements_worked_by_hand() -> None:
    """Llama-3.1-8B: attention 32 (2 4096² + 2 4096 1024), FFN 32 3 4096 14336, two 128256 x 4096 embeddings."""
    found = weight_elements(load_models()["meta-llama/Llama-3.1-8B-Instruct"])
    assert found.attention == 32 * (2 * 4096**2 + 2 * 4096 * 1024)
    assert found.dense_ffn == 32 * 3 * 4096 * 14336
    assert found.embedding == found.lm_head == 128256 * 4096
    assert found.routed_experts == found.shared_experts == found.router == 0


def test_mla_weights_worked_by_hand() -> None:
    """DeepSeek-V3, one layer: 7168 1536 + 1536 128 192 + 7168 576 + 512 128 256 + 128 128 7168 = 187.1 M."""
    model = load_models()["deepseek-ai/DeepSeek-V3"]
    per_layer = 7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168
    assert weight_elements(model).attention == 61 * per_layer
    assert model.mla == MLA(
        q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128
    )
    assert counted(model) == [("mla", 0, "dense", 3), ("mla", 0, "moe", 58)]
    assert model.layers[0][0].head_dim == 576


def test_kinds_of_layers_of_published_models() -> None:
    """Alternating, chunked, windowed and interleaved blocks are told apart and counted."""
    models = load_models()
    assert counted(models["openai/gpt-oss-120b"]) == [("sliding", 128, "moe", 18), ("full", 0, "moe", 18)]
    assert counted(models["google/gemma-4-26B-A4B"]) == [("sliding", 1024, "moe", 25), ("full", 0, "moe", 5)]
    assert counted(models["meta-llama/Llama-4-Scout-17B-16E-Instruct"]) == [
        ("sliding", 8192, "moe", 36),
        ("full", 0, "moe", 12),
    ]
    maverick = models["meta-llama/Llama-4-Maverick-17B-128E-Instruct"]
    assert sum(count for layer, count in maverick.layers if layer.ffn == "moe") == 24
    full = models["google/gemma-4-26B-A4B"].layers[1][0]
    assert (full.head_dim, full.num_kv_heads, full.key_is_value) == (512, 2, True)


def test_native_formats_of_published_models() -> None:
    """mxfp4 of gpt-oss keeps attention in bf16; int4 of Kimi quantizes routed experts alone; FP8 blocks of DeepSeek."""
    models = load_models()
    assert (models["openai/gpt-oss-120b"].native, models["openai/gpt-oss-120b"].unquantized) == (
        "mxfp4",
        ("lm_head", "self_attn"),
    )
    kimi = models["moonshotai/Kimi-K2.5"]
    assert (kimi.native, kimi.unquantized) == ("int4", ("lm_head", "mlp", "self_attn", "shared_experts"))
    assert models["deepseek-ai/DeepSeek-V3"].native == "fp8_block"
    assert models["MiniMaxAI/MiniMax-M2.5"].unquantized == ("lm_head",)


def test_the_format_of_a_module() -> None:
    """Linear layers take the format, unless the native checkpoint leaves them out; embeddings never do."""
    oss, llama = find_model("gpt-oss-20b"), find_model("Llama-3.1-8B-Instruct")
    assert module_format(oss, "routed_experts", "mxfp4") == "mxfp4"
    assert module_format(oss, "attention", "mxfp4") == "bf16"
    assert module_format(llama, "attention", "fp8") == "fp8"
    assert module_format(llama, "lm_head", "fp8") == module_format(llama, "norms", "fp8") == "bf16"


@pytest.mark.parametrize(
    ("written", "name", "quantization"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct", None),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct", None),
        ("llama 3.1 8b instruct", "meta-llama/Llama-3.1-8B-Instruct", None),
        ("Llama-3.1-8B", "meta-llama/Llama-3.1-8B", None),
        ("RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8", "meta-llama/Llama-3.1-70B-Instruct", "fp8"),
        ("Qwen/Qwen3-32B-FP8", "Qwen/Qwen3-32B", "fp8_block"),
        ("Qwen3-32B-AWQ", "Qwen/Qwen3-32B", "int4"),
        ("nvidia/Qwen3-235B-A22B-NVFP4", "Qwen/Qwen3-235B-A22B", "nvfp4"),
        ("Qwen3-4B-quantized.w8a8", "Qwen/Qwen3-4B", "int8"),
        ("gpt-oss-120b", "openai/gpt-oss-120b", None),
        ("deepseek-r1", "deepseek-ai/DeepSeek-R1", None),
    ],
)
def test_usual_spellings_are_found(written: str, name: str, quantization: str | None) -> None:
    """Case, punctuation, organisation, `Meta-` and the ending of a format do not count; the ending tells the format."""
    assert find_model(written).name == name
    assert split_quantization(written)[1] == quantization


def test_weights_are_never_exchanged_behind_a_name() -> None:
    """Another organisation's fine-tune has the shapes and its own name, and none of the known checkpoints."""
    tuned, base = find_model("acme/Llama-3.1-8B-Instruct"), find_model("Llama-3.1-8B-Instruct")
    assert (tuned.name, tuned.checkpoints, tuned.digest) == ("acme/Llama-3.1-8B-Instruct", (), base.digest)
    assert find_model("Qwen/Qwen3-8B-Instruct").name == "Qwen/Qwen3-8B-Instruct"
    named = find_model("nvidia/Llama-3.1-70B-Instruct-FP8")
    assert named.checkpoint("fp8") == "nvidia/Llama-3.1-70B-Instruct-FP8"
    assert named.checkpoint("bf16") == "meta-llama/Llama-3.1-70B-Instruct"


def test_own_models_come_first() -> None:
    """A model of the user's own file is found by its name, before the catalog's."""
    own = replace(find_model("gpt-oss-20b"), name="Qwen3-8B", source="own/config.json")
    assert find_model("Qwen3-8B", [own]) is own


def test_unknown_and_unsupported_names() -> None:
    """Near names for a typo; the reason for a known model that cannot be modelled."""
    with pytest.raises(BadInput, match=r"unknown model 'Qwen/Qwen3-33B'; did you mean 'Qwen/Qwen3-32B'"):
        find_model("Qwen/Qwen3-33B")
    with pytest.raises(BadInput, match="unsupported: GlmMoeDsaForCausalLM"):
        find_model("zai-org/GLM-5-FP8")


@pytest.mark.parametrize("model", load_models().values(), ids=load_models())
def test_rows_are_consistent(model: Model) -> None:
    """Published checkpoints are names of one organisation each, and none of them is of the native format."""
    assert all(path.count("/") == 1 for _, path in model.checkpoints)
    assert model.native not in dict(model.checkpoints)
    assert model.checkpoint(model.native) == model.name
    assert weight_elements(model).total > 0


@settings(max_examples=100)
@given(st.text(max_size=60))
def test_any_name_is_a_model_or_bad_input(name: str) -> None:
    """Names from outside find a model or raise BadInput."""
    try:
        assert find_model(name).num_layers > 0
    except BadInput as error:
        assert "model" in str(error) or "unsupported" in str(error)  # noqa: PT017 - either outcome is lawful


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("meta-llama/Meta-Llama-3-70B-Instruct", 70.55), ("Qwen/Qwen2.5-14B", 14.77), ("google/gemma-2-27b-it", 27.23),
        ("google/gemma-3-12b-it", 11.77), ("microsoft/phi-4", 14.66), ("zai-org/GLM-4.5-Air", 106.85),
        ("deepseek-ai/DeepSeek-V2-Lite", 15.71), ("mistralai/Mistral-Nemo-Instruct-2407", 12.25),
        ("Qwen/Qwen3-VL-235B-A22B-Thinking", 235.09), ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", 32.76),
    ],
)  # fmt: skip
def test_shapes_add_up_to_the_published_size(name, billions):
    """The weights that the shapes hold are as many as the publisher says, whatever the fine-tune is called."""
    assert weight_elements(find_model(name)).total / 1e9 == pytest.approx(billions, abs=0.01)
