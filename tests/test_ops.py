"""Operators of a rank: counts, sizes per rank, formats by module."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.models import find_model
from catalog.quantizations import QUANTIZATIONS
from planner.ops import module_format, ops
from planner.roofline import work
from planner.strategies import Configuration

MODELS = ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-70B", "Qwen/Qwen3-30B-A3B", "openai/gpt-oss-120b",
          "deepseek-ai/DeepSeek-V3", "MiniMaxAI/MiniMax-M2.5", "google/gemma-4-26B-A4B")  # fmt: skip


def configured(model, **changes):
    """A model and a configuration of it."""
    found = find_model(model)
    return found, Configuration(model=found.name, gpu="h100_sxm", **changes)


def named(model, **changes):
    """Operators of a configuration by name."""
    return {op.name: op for op in ops(*configured(model, **changes))}


def weight_bytes(model, **changes):
    """Bytes that the GEMMs and experts of one rank hold."""
    total = 0.0
    for op in ops(*configured(model, **changes)):
        if op.kind in ("gemm", "lm_head"):
            total += op.count * op.size("n") * op.size("k") * QUANTIZATIONS[op.dtype].weight_bytes
        if op.kind == "moe":
            share = op.size("experts") / op.size("ep") * 3 * op.size("hidden") * op.size("inter") / op.size("tp")
            total += op.count * share * QUANTIZATIONS[op.dtype].weight_bytes
    return total


def test_llama_8b_by_hand():
    """Llama-3.1-8B on two GPUs: 16 of 32 heads, 4 of 8 KV heads, half of 14336, all of hidden 4096, 32 blocks."""
    found = named("meta-llama/Llama-3.1-8B", tp=2)
    assert found["qkv"].shape == (("k", 4096), ("n", (16 + 2 * 4) * 128))
    assert found["o_proj"].shape == (("k", 16 * 128), ("n", 4096))
    assert found["gate_up"].shape == (("k", 4096), ("n", 14336))
    assert found["down"].shape == (("k", 7168), ("n", 4096))
    assert found["lm_head"].shape == (("k", 4096), ("n", 64128))
    assert (found["qkv"].count, found["norm"].count, found["all_reduce"].count) == (32, 64, 64)


def test_kv_heads_are_repeated_beyond_their_number():
    """With more ranks than KV heads each rank still holds one."""
    assert named("Qwen/Qwen3-30B-A3B", tp=8)["attention_decode"].size("kv_heads") == 1


def test_a_single_gpu_sends_nothing():
    """Without parallelism there is no collective."""
    kinds = {op.kind for op in ops(*configured("Qwen/Qwen3-30B-A3B"))}
    assert not kinds & {"all_reduce", "all_gather", "reduce_scatter", "p2p"}


def test_mla_latents_are_whole_on_every_rank():
    """The down projection and the latent do not shrink with the ranks, the heads do."""
    one, eight = named("deepseek-ai/DeepSeek-V3"), named("deepseek-ai/DeepSeek-V3", tp=8)
    assert one["qkv_a_1"].shape == eight["qkv_a_1"].shape == (("k", 7168), ("n", 1536 + 512 + 64))
    assert eight["mla_decode_1"].size("heads") * 8 == one["mla_decode_1"].size("heads") == 128
    assert one["mla_decode_1"].count + one["mla_decode_0"].count == 61


def test_experts_see_the_tokens_of_the_group():
    """Data-parallel ranks pool their tokens before the experts: the group doubles them, EP divides the experts."""
    one = named("Qwen/Qwen3-30B-A3B")["moe"]
    pooled = named("Qwen/Qwen3-30B-A3B", dp=2, expert_parallel=True)
    assert (pooled["moe"].size("group"), pooled["moe"].size("ep"), pooled["moe"].size("tp")) == (2, 2, 1)
    # Every rank runs half of the experts for twice the tokens: as many FLOP as one rank alone.
    assert work(pooled["moe"], 64.0)[0] == work(one, 64.0)[0]
    assert pooled["all_gather"].size("elements") == 2 * 2048


def test_gpt_oss_multiplies_experts_alone_in_four_bits():
    """The checkpoint spares attention and head."""
    found = named("openai/gpt-oss-120b", quantization="mxfp4")
    assert {op.dtype for op in found.values() if op.kind in ("gemm", "lm_head")} == {"bf16"}
    assert found["moe_0"].dtype == "mxfp4"
    assert {found["attention_decode_0"].size("window"), found["attention_decode_1"].size("window")} == {0, 128}


@pytest.mark.parametrize(
    ("model", "quantization", "module", "expected"),
    [
        ("meta-llama/Llama-3.1-8B", "fp8", "attention", "fp8"),
        ("meta-llama/Llama-3.1-8B", "fp8", "lm_head", "bf16"),
        ("meta-llama/Llama-3.1-8B", "int4", "attention", "int4"),
        ("Qwen/Qwen3-30B-A3B", "int4", "attention", "bf16"),
        ("Qwen/Qwen3-30B-A3B", "int4", "experts", "int4"),
        ("deepseek-ai/DeepSeek-V3", "fp8_block", "attention", "fp8_block"),
        ("moonshotai/Kimi-K2.5", "int4", "shared", "bf16"),
    ],
)
def test_modules_run_in_their_format(model, quantization, module, expected):
    """Heads stay bf16, 4-bit checkpoints of MoE models keep the attention, a native format what it spares."""
    assert module_format(find_model(model), quantization, module) == expected


@given(st.sampled_from(MODELS), st.sampled_from(["bf16", "fp8"]), st.sampled_from([1, 2, 4]))
def test_more_ranks_never_hold_more_each(model, quantization, tp):
    """Doubling the tensor-parallel degree never adds weight bytes to a rank."""
    fewer = weight_bytes(model, quantization=quantization, tp=tp)
    assert weight_bytes(model, quantization=quantization, tp=2 * tp) <= fewer


@given(st.sampled_from(MODELS), st.sampled_from([1, 2, 4, 8]))
def test_names_tell_operators_apart(model, tp):
    """No two operators of a step share a name."""
    names = [op.name for op in ops(*configured(model, tp=tp))]
    assert len(names) == len(set(names))


def test_pipeline_stages_hand_over():
    """With p stages, they hand over p - 1 times in a step."""
    assert named("meta-llama/Llama-3.1-8B", pp=4)["p2p"].count == 3
