"""`ops`: the operators that one rank of an engine runs in a step, with their sizes per rank.

Counts are per step of one engine: every block of the model once (a step passes all pipeline stages), the sampling end
once. Sizes follow SCIENCE.md section 2: query and KV heads and FFN width are divided by the tensor-parallel degree,
KV heads not below one; an MLA latent is not divided. With data-parallel attention the MoE layers see the tokens of
all ranks (`group` of an op's shape), sharded by expert (EP) or by width (TP) over the whole group.

Which format a module runs in: the configuration's quantization, but bf16 for the router, the LM head, and the modules
that the published 4-bit or native checkpoint leaves unquantized.
"""

from __future__ import annotations

from catalog.fingerprints import Op, OpKind
from catalog.models import Layer, Model
from catalog.quantizations import QuantizationName
from planner.strategies import Configuration

#: Modules by their names in `Model.unquantized`.
_MODULES = {"attention": "self_attn", "dense": "mlp", "shared": "shared_experts", "experts": "experts"}
#: Formats in which any checkpoint of a model spares what its native one spares.
_FOUR_BIT = ("int4", "mxfp4", "nvfp4")
#: Architectures that norm queries and keys over all heads at once: the ranks sum two fp32 variances per token (vLLM's
#: MiniMaxText01RMSNormTP).
_NORM_OVER_RANKS = ("MiniMaxM2ForCausalLM",)
#: Bytes per vocabulary entry and sequence that sampling moves: bf16 logits read, fp32 written, read for the
#: temperature, the softmax and the draw (vllm/v1/sample/sampler.py).
SAMPLING_BYTES = 18


def module_format(model: Model, quantization: QuantizationName, module: str) -> QuantizationName:
    """Format in which `module` (attention, dense, shared, experts, lm_head) of the model multiplies."""
    four_bit = quantization in _FOUR_BIT
    spared = (quantization == model.native or four_bit) and _MODULES.get(module) in model.unquantized
    # Published 4-bit checkpoints of MoE models quantize the experts and most keep the attention.
    if module == "lm_head" or spared or (four_bit and model.moe is not None and module == "attention"):
        return "bf16"
    return quantization


def ops(model: Model, configuration: Configuration) -> tuple[Op, ...]:
    """List the operators of one engine's step, per rank, equal blocks counted rather than repeated."""
    found: list[Op] = []
    for index, (layer, count) in enumerate(model.layers):
        mark = "" if len(model.layers) == 1 else f"_{index}"
        found += _attention(model, configuration, layer, count=count, mark=mark)
        found += _ffn(model, configuration, layer, count=count, mark=mark)
        found += _between(model, configuration, layer, count=count, mark=mark)
    return tuple(found) + tuple(_once(model, configuration))


def _op(name: str, kind: OpKind, count: int, dtype: str, **shape: int) -> Op:
    return Op(name=name, kind=kind, count=count, dtype=dtype, shape=tuple(sorted(shape.items())))


def _linear(name: str, count: int, dtype: str, *, n: int, k: int) -> list[Op]:
    """A GEMM, and the quantization of its input where it multiplies in 8 bits or fewer.

    Behind a norm or an activation the compiler fuses the quantization into that kernel, which then writes fewer bytes;
    behind attention it is a kernel of its own.
    """
    gemm = _op(name, "gemm", count, dtype, n=n, k=k)
    if dtype in ("fp8", "fp8_block", "int8", "nvfp4") and name.startswith(("o_proj", "q_b")):
        return [_op(f"{name}_quantize", "elementwise", count, dtype, read=2 * k, write=k), gemm]
    return [gemm]


def _share(size: int, ranks: int) -> int:
    """Part of one rank, rounded up (vLLM pads vocabularies, and the search rejects what does not divide)."""
    return max(1, -(-size // ranks))


def _attention(model: Model, configuration: Configuration, layer: Layer, *, count: int, mark: str) -> list[Op]:
    if layer.attention == "mla":
        return _mla(model, configuration, layer, count=count, mark=mark)
    tp, d = configuration.tp, layer.head_dim
    heads, kv_heads = _share(layer.num_heads, tp), max(1, layer.num_kv_heads // tp)
    dtype = module_format(model, configuration.quantization, "attention")
    shape = {"heads": heads, "kv_heads": kv_heads, "head_dim": d, "window": layer.window}
    kv = configuration.kv_dtype
    projections = 1 if layer.key_is_value else 2
    return [
        *_linear(f"qkv{mark}", count, dtype, n=(heads + projections * kv_heads) * d, k=model.hidden_size),
        # Rotary embedding (with q and k norms where the model has them) and the write to the KV space.
        _op(f"rope{mark}", "elementwise", count, "bf16", read=2 * (heads + 2 * kv_heads) * d,
            write=2 * (heads + 2 * kv_heads) * d),
        _op(f"attention_prefill{mark}", "attention_prefill", count, kv, **shape),
        _op(f"attention_decode{mark}", "attention_decode", count, kv, **shape),
        *_linear(f"o_proj{mark}", count, dtype, n=model.hidden_size, k=heads * d),
    ]  # fmt: skip


def _mla(model: Model, configuration: Configuration, layer: Layer, *, count: int, mark: str) -> list[Op]:
    mla = model.mla
    if mla is None:
        msg = f"{model.name} has an MLA layer but no MLA shape"
        raise ValueError(msg)
    heads = _share(layer.num_heads, configuration.tp)
    h, nope, rope, v = model.hidden_size, mla.qk_nope_head_dim, mla.qk_rope_head_dim, mla.v_head_dim
    dtype = module_format(model, configuration.quantization, "attention")
    shape = {"heads": heads, "latent": mla.kv_lora_rank, "nope": nope, "rope": rope, "v": v, "hidden": h,
             "q_lora": mla.q_lora_rank}  # fmt: skip
    q_in = mla.q_lora_rank or h
    down = mla.q_lora_rank + mla.kv_lora_rank + rope
    return [
        *_linear(f"qkv_a{mark}", count, dtype, n=down, k=h),
        *_linear(f"q_b{mark}", count, dtype, n=heads * (nope + rope), k=q_in),
        # W_UK and W_UV: one GEMM of the new tokens in prefill, two absorbed per-head products of equal FLOP in decode.
        _op(f"kv_b{mark}", "gemm", count, "bf16", n=heads * (nope + v), k=mla.kv_lora_rank),
        _op(f"mla_prefill{mark}", "mla_prefill", count, configuration.kv_dtype, **shape),
        _op(f"mla_decode{mark}", "mla_decode", count, configuration.kv_dtype, **shape),
        *_linear(f"o_proj{mark}", count, dtype, n=h, k=heads * v),
    ]


def _ffn(model: Model, configuration: Configuration, layer: Layer, *, count: int, mark: str) -> list[Op]:
    h, tp = model.hidden_size, configuration.tp
    if layer.ffn == "dense":
        dtype = module_format(model, configuration.quantization, "dense")
        return _gated(f"{mark}", count, dtype, hidden=h, width=_share(layer.intermediate_size, tp))
    moe = model.moe
    if moe is None:
        msg = f"{model.name} has an MoE layer but no MoE shape"
        raise ValueError(msg)
    group = configuration.tp * configuration.dp
    ep = group if configuration.expert_parallel else 1
    found = [
        _op(f"router{mark}", "gemm", count, "bf16", n=moe.num_experts, k=h),
        _op(f"moe{mark}", "moe", count, module_format(model, configuration.quantization, "experts"),
            hidden=h, inter=moe.intermediate_size, topk=moe.top_k, experts=moe.num_experts,
            tp=group // ep, ep=ep, group=configuration.dp),
    ]  # fmt: skip
    if moe.shared_intermediate_size:
        dtype = module_format(model, configuration.quantization, "shared")
        width = _share(moe.shared_intermediate_size, tp)
        found += _gated(f"_shared{mark}", count, dtype, hidden=h, width=width)
    return found


def _gated(mark: str, count: int, dtype: str, *, hidden: int, width: int) -> list[Op]:
    """Gate and up projection in one GEMM, SiLU and product, down projection."""
    return [
        *_linear(f"gate_up{mark}", count, dtype, n=2 * width, k=hidden),
        _op(f"act{mark}", "elementwise", count, "bf16", read=4 * width, write=2 * width),
        *_linear(f"down{mark}", count, dtype, n=hidden, k=width),
    ]


def _between(model: Model, configuration: Configuration, layer: Layer, *, count: int, mark: str) -> list[Op]:
    """What joins the parts of a block: two norms with their residual sums, and the collectives."""
    h = model.hidden_size
    found = [_op(f"norm{mark}", "elementwise", 2 * count, "bf16", read=4 * h, write=4 * h)]
    if configuration.tp > 1 and model.architecture in _NORM_OVER_RANKS:
        found.append(_op(f"qk_norm_reduce{mark}", "all_reduce", count, "bf16", elements=4, ranks=configuration.tp))
    if configuration.tp > 1:
        found.append(_op(f"all_reduce{mark}", "all_reduce", 2 * count, "bf16", elements=h, ranks=configuration.tp))
    if layer.ffn == "moe" and configuration.dp > 1:
        elements = h * configuration.dp  # the group's tokens, gathered before the experts and scattered after
        for kind in ("all_gather", "reduce_scatter"):
            found.append(_op(f"{kind}{mark}", kind, count, "bf16", elements=elements, ranks=configuration.dp))  # noqa: PERF401 - two lines read better
    return found


def _once(model: Model, configuration: Configuration) -> list[Op]:
    """Once per step: hand-over between stages, LM head of the sampled tokens, gather of the logits, sampling."""
    h, tp = model.hidden_size, configuration.tp
    vocab = _share(model.vocab_size, tp)
    found = [_op("lm_head", "lm_head", 1, "bf16", n=vocab, k=h)]
    if configuration.pp > 1:
        found.insert(0, _op("p2p", "p2p", configuration.pp - 1, "bf16", elements=h, ranks=2))
    if tp > 1:
        found.append(_op("logits_gather", "sampling", 1, "gather", elements=model.vocab_size, ranks=tp))
    found.append(_op("sampling", "sampling", 1, "bf16", read=model.vocab_size * SAMPLING_BYTES, write=0))
    return found
