"""A stand-in keeps one block of every kind, and nothing that runs code."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import BadInput
from catalog.models.config import parse_config
from catalog.models.weights import weight_elements
from probes.standin import cut, kinds, write

GPT_OSS = {
    "architectures": ["GptOssForCausalLM"],
    "num_hidden_layers": 36,
    "num_local_experts": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 18,
    "hidden_size": 2880,
}
DEEPSEEK = {
    "num_hidden_layers": 61,
    "n_routed_experts": 256,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "auto_map": {"AutoModel": "x.Y"},
}


def test_alternating_attention_keeps_one_of_each():
    """A model of sliding and full layers is cut to one of each, in order."""
    standin = cut(GPT_OSS)
    assert (standin.kept, standin.layers, standin.of_layers) == ((0, 1), 2, 36)
    assert standin.config["layer_types"] == ["sliding_attention", "full_attention"]
    assert kinds(GPT_OSS) == {("sliding_attention", "moe"): 18, ("full_attention", "moe"): 18}


def test_leading_dense_layers_survive():
    """DeepSeek's three dense layers and 58 MoE layers become one and one, and no code reference is kept."""
    standin = cut(DEEPSEEK)
    assert standin.kept == (0, 3)
    assert standin.config["first_k_dense_replace"] == 1
    assert "auto_map" not in standin.config


def test_one_kind_can_be_repeated_alone():
    """Repeats per kind make the designs from which a least-squares fit tells the kinds apart."""
    standin = cut(DEEPSEEK, {("attention", "dense"): 1, ("attention", "moe"): 4})
    assert standin.kept == (0, 3, 4, 5, 6)
    assert kinds(standin.config) == {("attention", "dense"): 1, ("attention", "moe"): 4}


@given(
    layers=st.integers(1, 64),
    dense=st.integers(0, 64),
    pattern=st.integers(1, 7),
    repeats=st.integers(1, 3),
)
def test_the_cut_model_has_the_kinds_of_the_whole(layers, dense, pattern, repeats):
    """Whatever the layout, the stand-in has exactly the model's kinds, each at most `repeats` times, in order."""
    config = {
        "num_hidden_layers": layers,
        "n_routed_experts": 8,
        "first_k_dense_replace": min(dense, layers),
        "moe_layer_freq": 1,
        "layer_types": ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(layers)],
    }
    whole, small = kinds(config), kinds(cut(config, repeats).config)
    assert small == {kind: min(count, repeats) for kind, count in whole.items()}


@pytest.mark.parametrize("layers", [0, -1, 1e308, "many", None, True, 10**9])
def test_absurd_layer_counts_are_refused(layers):
    """A config whose depth is not a sensible number is an error that names the key."""
    with pytest.raises(BadInput, match="num_hidden_layers"):
        cut({"num_hidden_layers": layers})


def test_the_written_config_is_readable_json(tmp_path):
    """What vLLM reads is what was cut."""
    folder = write(cut(GPT_OSS).config, tmp_path / "standin")
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 2


# (config.json, greatest share of the model's weights that one block of every kind and the embeddings may hold)
SHARES = {
    "Llama-3.1-70B": (
        {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 80, "hidden_size": 8192,
         "intermediate_size": 28672, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
         "max_position_embeddings": 131072, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}, 0.05),
    "Qwen3-30B-A3B": (
        {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_hidden_layers": 48,
         "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128,
         "num_experts_per_tok": 8, "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True,
         "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936,
         "max_position_embeddings": 40960, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}, 0.05),
    "Llama-3.1-8B": (
        {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096,
         "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
         "max_position_embeddings": 131072, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}, 0.17),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARES)
def test_a_stand_in_needs_a_sliver_of_the_memory(name):
    """One block and what stands outside the blocks: 5 % of the weights of a 70B, more where the embeddings weigh."""
    config, most = SHARES[name]
    full, small = (
        weight_elements(parse_config(each, name=name, source="test")).total for each in (config, cut(config).config)
    )
    assert 0 < small <= most * full
