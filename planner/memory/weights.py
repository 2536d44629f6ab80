"""Weights: bytes of the model's parameters that one GPU of a replica holds.

How vLLM shards a block over the t ranks of a tensor-parallel group (per rank):

    attention       h d (2 n_q/t + 2 max(1, n_kv/t))     KV heads are replicated when t exceeds them
    MLA             h (q_lora + kv_lora + rope) replicated, the up-projections and the output over t
    dense FFN       3 h I / t, shared experts alike
    routed experts  E/g experts whole with expert parallelism of group g = t·dp, else 3 h I_e / (t·dp) of every expert
    router, norms   replicated, always bf16
    embedding       V h / t on the first pipeline stage, lm_head V h / t on the last, bf16
    encoders        vision and audio towers, counted whole

The largest pipeline stage counts. A checkpoint's own list of unquantized modules (`Model.unquantized`) keeps bf16.
"""

from __future__ import annotations

import math

from catalog.models import Layer, Model
from catalog.quantizations import QUANTIZATIONS
from planner.ops import module_format
from planner.strategies import Configuration

BF16_BYTES = 2.0
VOCABULARY_PADDING = 64  # vLLM pads the vocabulary to a multiple (vocab_parallel_embedding.DEFAULT_VOCAB_PADDING_SIZE)
MXFP4_PADDING = 128  # its kernels pad a rank's expert width and the hidden size to this multiple
FOUR_BIT = ("int4", "mxfp4", "nvfp4")


def padded(size: int, multiple: int) -> int:
    """`size` rounded up to a multiple."""
    return math.ceil(size / multiple) * multiple


def kv_heads_per_gpu(layer: Layer, tp: int) -> int:
    """KV heads that one rank holds: at least one, so that more ranks replicate them (ModelConfig.get_num_kv_heads)."""
    return max(1, math.ceil(layer.num_kv_heads / tp))


def element_bytes(model: Model, module: str, configuration: Configuration) -> float:
    """Bytes per parameter of one module of a block (attention, dense, shared, experts)."""
    quantization = module_format(model, configuration.quantization, module)
    # Published 4-bit checkpoints of MoE models quantize the experts and most keep the attention: the safe assumption.
    if module == "attention" and model.moe is not None and quantization in FOUR_BIT:
        quantization = "bf16"
    return QUANTIZATIONS[quantization].weight_bytes


def attention_elements(model: Model, layer: Layer, tp: int) -> float:
    """Parameters of one block's attention on one rank."""
    h, heads = model.hidden_size, math.ceil(layer.num_heads / tp)
    if layer.attention != "mla" or model.mla is None:
        return h * layer.head_dim * (2 * heads + 2 * kv_heads_per_gpu(layer, tp))
    mla = model.mla
    query = mla.qk_nope_head_dim + mla.qk_rope_head_dim
    down = h * (mla.q_lora_rank + mla.kv_lora_rank + mla.qk_rope_head_dim)
    up = (mla.q_lora_rank or h) * heads * query + mla.kv_lora_rank * heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    return down + up + heads * mla.v_head_dim * h


def absorbed_bytes(model: Model, layer: Layer, tp: int) -> float:
    """The bf16 copies of W_UK and W_UV that MLA decode multiplies with (made after loading, beside the originals)."""
    if layer.attention != "mla" or model.mla is None:
        return 0.0
    heads = math.ceil(layer.num_heads / tp)
    return BF16_BYTES * heads * model.mla.kv_lora_rank * (model.mla.qk_nope_head_dim + model.mla.v_head_dim)


def routed_elements(model: Model, configuration: Configuration) -> float:
    """Parameters of one block's routed experts on one rank."""
    moe = model.moe
    if moe is None:
        return 0.0
    group = configuration.tp * configuration.dp
    experts, width = moe.num_experts, moe.intermediate_size
    if configuration.expert_parallel:
        experts = math.ceil(experts / group)
    else:
        width = math.ceil(width / group)
    hidden = model.hidden_size
    if configuration.quantization == "mxfp4":
        width, hidden = padded(width, MXFP4_PADDING), padded(hidden, MXFP4_PADDING)
    return 3.0 * experts * hidden * width


def block_bytes(model: Model, layer: Layer, configuration: Configuration) -> float:
    """Bytes of one block's parameters on one rank."""
    h, tp = model.hidden_size, configuration.tp
    total = attention_elements(model, layer, tp) * element_bytes(model, "attention", configuration)
    total += absorbed_bytes(model, layer, tp) + BF16_BYTES * 2 * h
    if layer.ffn == "dense" or model.moe is None:
        width = math.ceil(layer.intermediate_size / tp)
        return total + 3.0 * h * width * element_bytes(model, "dense", configuration)
    shared = 3.0 * h * math.ceil(model.moe.shared_intermediate_size / tp)
    total += shared * element_bytes(model, "shared", configuration)
    total += routed_elements(model, configuration) * element_bytes(model, "experts", configuration)
    return total + BF16_BYTES * h * model.moe.num_experts


def stage_layers(model: Model, pp: int) -> tuple[tuple[Layer, int], ...]:
    """Blocks of the largest pipeline stage, rounded up by kind."""
    return tuple((layer, math.ceil(count / pp)) for layer, count in model.layers)


def weights_bytes(model: Model, configuration: Configuration) -> float:
    """Bytes of parameters on the fullest GPU of a replica."""
    blocks = sum(
        count * block_bytes(model, layer, configuration) for layer, count in stage_layers(model, configuration.pp)
    )
    table = BF16_BYTES * model.hidden_size * math.ceil(padded(model.vocab_size, VOCABULARY_PADDING) / configuration.tp)
    tables = 1 if configuration.pp > 1 or model.tie_word_embeddings else 2
    return blocks + tables * table + BF16_BYTES * model.encoder_elements
