"""config.json: shapes by the rules of each architecture, formats by each quantizer's spelling, and no absurd value."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import BadInput
from catalog.models import (
    ARCHITECTURES,
    Layer,
    Model,
    MoE,
    find_model,
    load_models,
    parse_config,
    read_config,
    weight_elements,
)

CONFIGS = Path(__file__).parents[2] / "shared" / "data" / "model_configs"
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4, "hidden_size": 1024, "intermediate_size": 2816,
    "vocab_size": 32000, "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 4096,
}  # fmt: skip


def parsed(config: dict[str, Any] | None = None, /, **keys: object) -> Model:
    """A small config.json with some keys changed."""
    return parse_config((config or LLAMA) | keys, name="m", source="config.json")


def counted(model: Model) -> list[tuple[str, int, str, int]]:
    """Attention, window, FFN and number of each block."""
    return [(layer.attention, layer.window, layer.ffn, count) for layer, count in model.layers]


def test_head_dim_defaults_to_hidden_over_heads() -> None:
    """1024 / 16 = 64 where the key is missing or null; the key wins where it is there."""
    assert parsed().layers == (
        (Layer(attention="full", num_heads=16, num_kv_heads=4, head_dim=64, intermediate_size=2816), 4),
    )
    assert parsed(head_dim=128).layers[0][0].head_dim == 128
    assert parsed(num_key_value_heads=None).layers[0][0].num_kv_heads == 16


@pytest.mark.parametrize(
    ("architecture", "keys", "expected"),
    [
        ("MistralForCausalLM", {"sliding_window": 512}, [("sliding", 512, "dense", 4)]),
        ("MistralForCausalLM", {"sliding_window": None}, [("full", 0, "dense", 4)]),
        ("LlamaForCausalLM", {"sliding_window": 512}, [("full", 0, "dense", 4)]),
        ("Qwen2ForCausalLM", {"sliding_window": 512, "max_window_layers": 3}, [("full", 0, "dense", 4)]),
        (
            "Qwen2ForCausalLM",
            {"sliding_window": 512, "max_window_layers": 3, "use_sliding_window": True},
            [("full", 0, "dense", 3), ("sliding", 512, "dense", 1)],
        ),
        ("Gemma2ForCausalLM", {"sliding_window": 512}, [("sliding", 512, "dense", 2), ("full", 0, "dense", 2)]),
        (
            "Gemma3ForCausalLM",
            {"sliding_window": 512, "num_hidden_layers": 13},
            [("sliding", 512, "dense", 11), ("full", 0, "dense", 2)],
        ),
        (
            "Cohere2ForCausalLM",
            {"sliding_window": 512, "sliding_window_pattern": 2},
            [("sliding", 512, "dense", 2), ("full", 0, "dense", 2)],
        ),
        (
            "Gemma3ForCausalLM",
            {"sliding_window": 512, "layer_types": ["full_attention"] * 3 + ["sliding_attention"]},
            [("full", 0, "dense", 3), ("sliding", 512, "dense", 1)],
        ),
    ],
)
def test_which_layers_slide(architecture: str, keys: dict[str, object], expected: list[object]) -> None:
    """Each architecture's rule, and `layer_types` above it."""
    assert counted(parsed(architectures=[architecture], **keys)) == expected


@pytest.mark.parametrize(
    ("keys", "moe_layers"),
    [({}, 4), ({"mlp_only_layers": [0, 2]}, 2), ({"decoder_sparse_step": 2}, 2), ({"num_experts": 0}, 0)],
)
def test_which_layers_of_qwen_have_experts(keys: dict[str, object], moe_layers: int) -> None:
    """`mlp_only_layers` are dense, and of the others each `decoder_sparse_step`-th has experts."""
    config = LLAMA | {
        "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8, "num_experts_per_tok": 2,
        "moe_intermediate_size": 256, "shared_expert_intermediate_size": 512,
    }  # fmt: skip
    model = parsed(config, **keys)
    assert sum(count for layer, count in model.layers if layer.ffn == "moe") == moe_layers
    expected = MoE(num_experts=8, top_k=2, intermediate_size=256, shared_intermediate_size=512)
    assert model.moe == (expected if moe_layers else None)


def test_which_layers_of_deepseek_have_experts() -> None:
    """From `first_k_dense_replace` on, each `moe_layer_freq`-th; shared experts add up; a null q_lora_rank is 0."""
    config = LLAMA | {
        "architectures": ["DeepseekV2ForCausalLM"], "n_routed_experts": 8, "n_shared_experts": 2,
        "num_experts_per_tok": 2, "moe_intermediate_size": 256, "first_k_dense_replace": 1, "moe_layer_freq": 2,
        "q_lora_rank": None, "kv_lora_rank": 128, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
    }  # fmt: skip
    model = parsed(config)
    assert counted(model) == [("mla", 0, "dense", 3), ("mla", 0, "moe", 1)]
    assert model.moe is not None
    assert model.moe.shared_intermediate_size == 512
    assert model.mla is not None
    assert model.mla.q_lora_rank == 0


def test_a_nested_text_config_is_read() -> None:
    """A multimodal wrapper's language model stands in text_config; its encoder's weights are estimated beside it."""
    wrapped = {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "text_config": {key: value for key, value in LLAMA.items() if key != "architectures"},
        "vision_config": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128},
        "tie_word_embeddings": True,
    }
    model = parse_config(wrapped, name="m", source="x")
    assert (model.num_layers, model.tie_word_embeddings) == (4, True)
    assert model.encoder_elements == 2 * (4 * 64 * 64 + 3 * 64 * 128)


def group(bits: int, kind: str, act: int | None, **weights: object) -> dict[str, object]:
    """A compressed-tensors group."""
    activations = None if act is None else {"num_bits": act, "type": kind}
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {
            "g": {"weights": {"num_bits": bits, "type": kind} | weights, "input_activations": activations}
        },
    }


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        (None, "bf16"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_block"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 4}, "int4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_algo": "FP8", "producer": {"name": "modelopt"}}, "fp8"),
        (group(8, "float", 8), "fp8"),
        (group(8, "float", 8, strategy="block"), "fp8_block"),
        (group(8, "int", 8), "int8"),
        (group(4, "int", None), "int4"),
        (group(4, "float", 4, group_size=16), "nvfp4"),
    ],
)
def test_formats_of_quantization_config(quantization: dict[str, object] | None, expected: str) -> None:
    """Each quantizer's spelling of its format."""
    model = parsed(quantization_config=quantization)
    assert model.native == expected
    assert model.unquantized == (() if expected == "bf16" else ("lm_head",))


def test_exempt_modules_are_recognised_by_pattern_and_by_layer() -> None:
    """A pattern exempts everywhere, listed layers where they are half of all; norms and gates inside do not count."""
    quantization = {"quant_method": "fp8", "modules_to_not_convert": [f"model.layers.{i}.self_attn" for i in range(2)]}
    assert parsed(quantization_config=quantization).unquantized == ("lm_head", "self_attn")
    quantization["modules_to_not_convert"] = ["model.layers.0.self_attn", "model.layers.0.mlp.gate", "x.self_attn.norm"]
    assert parsed(quantization_config=quantization).unquantized == ("lm_head",)


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "bitsandbytes"},
        {"quant_method": "gptq", "bits": 8},
        {"quant_method": "magic"},
        {},
        group(8, "int", None),
    ],
)
def test_other_quantizers_are_unsupported(quantization: dict[str, object]) -> None:
    """A format that the planner does not model is named, not guessed."""
    with pytest.raises(BadInput, match="unsupported: quantization"):
        parsed(quantization_config=quantization)


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("GlmMoeDsaForCausalLM", "sparse attention"),
        ("NemotronHForCausalLM", "Mamba"),
        ("LamaForCausalLM", "did you mean 'LlamaForCausalLM'"),
        ("EvilForCausalLM", "remote code"),
    ],
)
def test_unknown_architectures_are_unsupported(architecture: str, said: str) -> None:
    """`unsupported: NAME` and why; nothing is guessed and no remote code is run."""
    with pytest.raises(BadInput, match=f"unsupported: {architecture}.*{said}"):
        parsed(architectures=[architecture], auto_map={"AutoModel": "evil.py"})


def test_auto_map_of_a_known_architecture_is_ignored() -> None:
    """DeepSeek and MiniMax publish remote code that vLLM does not need: the shapes alone are read."""
    assert parsed(auto_map={"AutoModel": "evil.py--EvilModel"}) == parsed()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**308),
        ("num_hidden_layers", 1e308),
        ("num_hidden_layers", -1),
        ("num_hidden_layers", 0),
        ("num_attention_heads", 10**9),
        ("num_attention_heads", "16"),
        ("num_attention_heads", 0),
        ("num_key_value_heads", 5),
        ("hidden_size", float("nan")),
        ("hidden_size", True),
        ("hidden_size", None),
        ("vocab_size", [1]),
        ("intermediate_size", {}),
        ("max_position_embeddings", -5),
        ("tie_word_embeddings", "yes"),
        ("head_dim", 0),
        ("quantization_config", "fp8"),
        ("architectures", "LlamaForCausalLM"),
        ("architectures", []),
        ("architectures", [["x"]]),
    ],
)
def test_absurd_values_name_the_key_and_end_at_once(key: str, value: object) -> None:
    """Wrong type, negative, zero, absurd: one error that names the key, in milliseconds."""
    started = time.perf_counter()
    with pytest.raises(BadInput, match=key):
        parsed(**{key: value})
    assert time.perf_counter() - started < 0.5


def test_contradictory_experts_and_layers_are_refused() -> None:
    """More experts per token than experts, fewer layer types than layers, sliding layers without a window."""
    mixtral = LLAMA | {"architectures": ["MixtralForCausalLM"], "num_local_experts": 4, "num_experts_per_tok": 8}
    with pytest.raises(BadInput, match="num_experts_per_tok is 8"):
        parsed(mixtral)
    with pytest.raises(BadInput, match="layer_types"):
        parsed(architectures=["MistralForCausalLM"], sliding_window=5, layer_types=["full_attention"])
    with pytest.raises(BadInput, match="sliding_window"):
        parsed(architectures=["MistralForCausalLM"], layer_types=["sliding_attention"] * 4)
    with pytest.raises(BadInput, match="unsupported: layer type 'linear_attention'"):
        parsed(architectures=["MistralForCausalLM"], sliding_window=5, layer_types=["linear_attention"] * 4)
    with pytest.raises(BadInput, match="index_topk"):
        parsed(index_topk=2048)


def test_deep_values_are_refused_without_recursion() -> None:
    """Ten thousand nested lists in a dict end in BadInput, not in RecursionError."""
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(BadInput, match="nested"):
        parsed(extra=deep)


def test_a_file_is_named_by_its_folder_or_stem(tmp_path: Path) -> None:
    """`own/config.json` is `own`, `acme--x_config.json` is `acme/x`."""
    (tmp_path / "own").mkdir()
    for path in (tmp_path / "own" / "config.json", tmp_path / "acme--x_config.json", tmp_path / "y.json"):
        path.write_text(json.dumps(LLAMA))
    names = [read_config(tmp_path / path).name for path in ("own/config.json", "acme--x_config.json", "y.json")]
    assert names == ["own", "acme/x", "y"]


@pytest.mark.parametrize("text", ["", "[1]", "{", "3", "null", "[" * 100_000, '{"architectures": 1e999}'])
def test_files_that_are_no_config_are_bad_input(tmp_path: Path, text: str) -> None:
    """Broken, deep and foreign JSON is refused."""
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadInput):
        read_config(tmp_path / "config.json")


def test_every_row_is_read_as_its_publishers_file_is() -> None:
    """A row of models.yaml has the shapes of the whole config.json from which it was cut."""
    if not CONFIGS.exists():
        pytest.skip("needs ../shared/data/model_configs")
    rows = load_models()
    for path in sorted(CONFIGS.glob("*_config.json")):
        if path.name.startswith("zai-org--GLM-5"):
            with pytest.raises(BadInput, match="unsupported: GlmMoeDsaForCausalLM"):
                read_config(path)
            continue
        whole = read_config(path)
        assert whole.digest == find_model(whole.name).digest, whole.name
    assert len(rows) >= 40


KEYS = sorted(
    {
        *LLAMA, "head_dim", "sliding_window", "layer_types", "num_experts", "num_local_experts", "n_routed_experts",
        "num_experts_per_tok", "moe_intermediate_size", "text_config", "vision_config", "quantization_config",
        "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "mlp_only_layers",
        "use_sliding_window", "max_window_layers", "decoder_sparse_step", "interleave_moe_layer_step", "index_topk",
    }
)  # fmt: skip
WEIRD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([0, 1, 2, 64, 10**9, 10**308, "full_attention", "sliding_attention", "fp8"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=150)
@given(
    architecture=st.sampled_from(sorted(ARCHITECTURES)),
    changes=st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), WEIRD, max_size=6),
)
def test_any_config_is_a_model_or_bad_input(architecture: str, changes: dict[str, Any]) -> None:
    """Whatever stands in a config.json, reading it gives a sane model or BadInput, never another error or a hang."""
    try:
        model = parsed(**({"architectures": [architecture]} | changes))
    except BadInput as error:
        assert len(str(error)) < 2_000  # noqa: PT017 - either outcome is lawful
        return
    assert 1 <= model.num_layers <= 2_000
    assert 0 < weight_elements(model).total < 10**18


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_any_file_is_a_model_or_bad_input(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Random bytes are refused in order."""
    path = tmp_path_factory.mktemp("fuzz") / "config.json"
    path.write_bytes(content)
    with pytest.raises(BadInput):
        read_config(path)
