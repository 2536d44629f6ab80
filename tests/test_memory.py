"""Laws and hand-worked examples of `planner.memory`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.gpus import GPU, NUMERIC
from catalog.models import MLA, Layer, Model, MoE
from planner.memory import DoesNotFit, default_utilization, hold, memory
from planner.memory.weights import kv_heads_per_gpu, weights_bytes
from planner.strategies import Configuration

ENGINE = Path(__file__).parents[1] / "../shared/data/e2e/llama8b_rtx4090_requests/engine.json"


def gpu(gib: float = 80.0) -> GPU:
    """A card of `gib` GiB."""
    return GPU(
        name="card", vendor="nvidia", compute_capability=90, peak={"bf16": "989 TFLOP/s"}, memory=f"{gib!r} GiB",
        bandwidth="3350 GB/s", link="nvlink", link_bandwidth="450 GB/s", link_latency="3 us", link_domain=8,
        power="700 W", sources=dict.fromkeys(NUMERIC, "test"),
    )  # fmt: skip


def model(**changes) -> Model:
    """Llama-3.1-8B, or with changes."""
    layer = Layer(attention="full", num_heads=32, num_kv_heads=8, head_dim=128, intermediate_size=14336)
    given = {
        "name": "llama-8b", "architecture": "LlamaForCausalLM", "hidden_size": 4096, "vocab_size": 128256,
        "layers": ((layer, 32),), "max_position_embeddings": 131072, "digest": "0", "source": "test",
    }  # fmt: skip
    return Model(**(given | changes))


def windowed() -> Model:
    """gpt-oss-120b."""
    full = Layer(attention="full", num_heads=64, num_kv_heads=8, head_dim=64, ffn="moe")
    sliding = replace(full, attention="sliding", window=128)
    return model(
        name="oss", hidden_size=2880, vocab_size=201088, layers=((sliding, 18), (full, 18)), native="mxfp4",
        moe=MoE(num_experts=128, top_k=4, intermediate_size=2880), unquantized=("model.layers.*.self_attn", "lm_head"),
    )  # fmt: skip


def latent() -> Model:
    """DeepSeek-V3."""
    dense = Layer(attention="mla", num_heads=128, num_kv_heads=128, head_dim=192, intermediate_size=18432)
    sparse = replace(dense, ffn="moe", intermediate_size=0)
    return model(
        name="deepseek", hidden_size=7168, vocab_size=129280, layers=((dense, 3), (sparse, 58)), native="fp8_block",
        mla=MLA(q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128),
        moe=MoE(num_experts=256, top_k=8, intermediate_size=2048, shared_intermediate_size=2048),
    )  # fmt: skip


MODELS = (model(), windowed(), latent())


def configuration(**changes) -> Configuration:
    """One engine on one card, or with changes."""
    given = {"model": "llama-8b", "gpu": "card", "max_num_seqs": 256, "max_num_batched_tokens": 2048}
    return Configuration(**(given | changes))


def test_weights_of_llama_8b_are_its_published_parameter_count():
    """8.03 billion parameters x 2 bytes, on one GPU in bf16."""
    assert weights_bytes(model(), configuration()) == pytest.approx(8.03e9 * 2, rel=2e-3)


def test_weights_of_deepseek_are_its_published_parameter_count():
    """671 billion parameters at about one byte; tables, router and MLA's absorbed copies are bf16."""
    total = 16 * weights_bytes(latent(), configuration(tp=16, quantization="fp8_block"))
    assert total == pytest.approx(671e9, rel=0.04)


def test_weights_of_gpt_oss_are_its_published_size():
    """117 billion parameters, MXFP4 experts: the checkpoint is 65.2 GB; padded kernels take a little more."""
    assert 65e9 < weights_bytes(windowed(), configuration(quantization="mxfp4")) < 72e9


def test_measured_engine_is_predicted_within_ten_percent_and_from_below():
    """Llama-3.1-8B on one RTX 4090 with vLLM 0.19 had 2588 blocks of 16 tokens."""
    if not ENGINE.exists():
        pytest.skip("the measured engine ../shared/data/e2e/llama8b_rtx4090_requests is absent")
    engine = json.loads(ENGINE.read_text())
    card = gpu(engine["hardware"]["device_total_memory_bytes"] / 2**30)
    found = memory(
        model(), card, configuration(max_model_len=32768), vllm_version=engine["vllm_version"],
        gpu_memory_utilization=engine["kv_cache"]["gpu_memory_utilization"],
    )  # fmt: skip
    measured = engine["kv_cache"]["num_gpu_blocks"]
    assert 0.9 * measured <= found.num_blocks <= measured
    assert found.kv_bytes_per_token * 16 * measured == pytest.approx(2588 * 2 * 2**20)


def test_default_utilization_follows_the_version():
    """0.9 until 0.20, 0.92 from 0.21; an unknown version counts as the newest."""
    assert [default_utilization(v) for v in ("0.19.0", "0.20.1", "0.21.0", "0.33.0", "nightly-5b8c")] == [
        0.9, 0.9, 0.92, 0.92, 0.92,
    ]  # fmt: skip


def test_graphs_are_subtracted_since_0_21_alone():
    """Before 0.21 CUDA graphs live outside the share that gpu_memory_utilization names."""
    old = memory(model(), gpu(), configuration(), vllm_version="0.20.0", gpu_memory_utilization=0.9)
    new = memory(model(), gpu(), configuration(), vllm_version="0.21.0", gpu_memory_utilization=0.9)
    sampler = old.activation_bytes - new.activation_bytes
    assert new.kv_bytes - old.kv_bytes == pytest.approx(sampler - new.graph_bytes, abs=2 * 2**21)


def test_a_windowed_request_keeps_its_window_whatever_its_length():
    """gpt-oss: 18 full and 18 sliding layers make two groups; a long request holds the window plus one block."""
    found = memory(windowed(), gpu(), configuration(quantization="mxfp4", tp=2, max_model_len=32768))
    assert found.groups.windows == ((0, 1), (128, 1))
    assert hold(found, 16000) == 1000 + 128 // 16 + 1
    assert hold(found, 32000) - hold(found, 16000) == 1000
    assert hold(found, 16) == 2
    assert found.tokens_at(1000) < found.tokens_at(30000)


def test_mla_keeps_one_latent_per_token_on_every_rank():
    """(512 + 64) x 2 bytes x 61 layers, at TP = 8 as at TP = 16."""
    for tp in (8, 16):
        found = memory(latent(), gpu(192), configuration(tp=tp, quantization="fp8_block"))
        assert found.kv_bytes_per_token == 576 * 2 * 61


def test_kv_heads_are_replicated_beyond_their_number():
    """8 KV heads over 16 ranks: one each."""
    layer = model().layers[0][0]
    assert [kv_heads_per_gpu(layer, tp) for tp in (1, 2, 8, 16)] == [8, 4, 1, 1]


def test_pipeline_stages_share_layers_and_the_largest_counts():
    """Two stages hold half the blocks and one of the two tables each."""
    whole, half = weights_bytes(model(), configuration()), weights_bytes(model(), configuration(pp=2))
    assert half == pytest.approx(whole / 2)


def test_experts_are_spread_over_the_whole_group():
    """With expert parallelism over TP x DP = 16 each GPU holds 16 of 256 experts; without it a slice of each."""
    spread = weights_bytes(latent(), configuration(tp=4, dp=4, expert_parallel=True, quantization="fp8_block"))
    sliced = weights_bytes(latent(), configuration(tp=4, dp=4, quantization="fp8_block"))
    assert spread == pytest.approx(sliced)


def test_what_does_not_fit_says_by_how_much():
    """Llama-8B in bf16 does not fit into 16 GiB, nor a request of a million tokens into 80."""
    with pytest.raises(DoesNotFit, match="nothing is left") as found:
        memory(model(), gpu(16), configuration())
    assert found.value.shortfall > 0
    with pytest.raises(DoesNotFit, match="one request of max_model_len"):
        memory(model(), gpu(), configuration(max_model_len=1_000_000))


@given(
    shape=st.sampled_from(MODELS), tp=st.sampled_from([1, 2, 4, 8]), pp=st.sampled_from([1, 2]),
    dp=st.sampled_from([1, 2, 4]), ep=st.booleans(), seqs=st.sampled_from([8, 64, 1024]),
    tokens=st.sampled_from([512, 8192, 16384]), version=st.sampled_from(["0.12.0", "0.20.0", "0.32.0"]),
)  # fmt: skip
def test_more_tp_never_takes_more_memory_per_gpu(shape, tp, pp, dp, ep, seqs, tokens, version):  # noqa: PLR0917 - drawn
    """Doubling TP lowers or keeps every part, and never holds fewer tokens."""
    few = configuration(
        tp=tp, pp=pp, dp=dp, expert_parallel=ep, quantization=shape.native, max_num_seqs=seqs,
        max_num_batched_tokens=tokens,
    )  # fmt: skip
    a = memory(shape, gpu(2000), few, vllm_version=version)
    b = memory(shape, gpu(2000), replace(few, tp=2 * tp), vllm_version=version)
    for part in ("weights_bytes", "activation_bytes", "graph_bytes", "communication_bytes", "used_bytes"):
        assert getattr(b, part) <= getattr(a, part)
    assert b.kv_tokens >= a.kv_tokens
    assert b.kv_bytes_per_token <= a.kv_bytes_per_token


@given(shape=st.sampled_from(MODELS), gib=st.floats(100, 2000), more=st.floats(0, 1000), tp=st.sampled_from([1, 8]))
def test_more_memory_never_holds_fewer_tokens(shape, gib, more, tp):
    """Neither HBM nor a larger share of it takes tokens away."""
    wanted = configuration(tp=tp, quantization=shape.native)
    try:
        small = memory(shape, gpu(gib), wanted)
    except DoesNotFit:
        return
    assert memory(shape, gpu(gib + more), wanted).kv_tokens >= small.kv_tokens
    assert memory(shape, gpu(gib), wanted, gpu_memory_utilization=0.95).kv_tokens >= small.kv_tokens


@given(shape=st.sampled_from(MODELS), gib=st.floats(800, 2000))
def test_fp8_kv_holds_twice_the_tokens(shape, gib):
    """Half the bytes per token, twice the blocks, up to one block of rounding."""
    wanted = configuration(quantization=shape.native)
    full = memory(shape, gpu(gib), wanted)
    half = memory(shape, gpu(gib), replace(wanted, kv_dtype="fp8"))
    assert 2 * full.num_blocks <= half.num_blocks <= 2 * full.num_blocks + 1


@given(shape=st.sampled_from(MODELS), length=st.integers(1, 200_000), more=st.integers(0, 5000))
def test_longer_requests_hold_no_fewer_blocks(shape, length, more):
    """And the prompt being computed holds at least what a decode of the same length does."""
    found = memory(shape, gpu(2000), configuration(quantization=shape.native))
    assert hold(found, length + more) >= hold(found, length)
    assert hold(found, length, prefilling=True) >= hold(found, length)
