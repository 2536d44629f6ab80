"""Overhead: what vLLM's start-up takes beside weights and KV space: activations, samplers, graphs, buffers.

vLLM measures these by a dummy run at `max_num_batched_tokens` and subtracts what it saw
(v1/worker/gpu_worker.py, determine_available_memory). Here they are bounded from above: predicting too much memory
wastes a little KV space, predicting too little breaks the start.

    forward peak   [tokens x 3 h + widest part of a block] x 2 B, plus MLA's up-projected context
    sampler peak   sequences x V x (logits and the sampler's working copies), plus the last hidden states
    activations    the larger of the two
"""

from __future__ import annotations

import math
from functools import cache

from catalog.models import Layer, Model
from catalog.units import GIB, MIB
from planner.memory.weights import BF16_BYTES, kv_heads_per_gpu
from planner.strategies import Configuration

Version = tuple[int, ...]

FORWARD_FACTOR = 1.25
"""Fragmentation and short-lived copies of torch.compile's schedule, over the sum of live tensors (assumed)."""

# Bytes per logit while sampling, of tensors alive at once. Sorting sampler: bf16 logits 2, fp32 copy 4, sorted values
# 4, their int64 indices 8, softmax 4, running sum 4. FlashInfer's sampler (default since 0.21: vLLM pull request
# 40376) does not sort: logits 2, fp32 copy 4, probabilities 4, workspace 4.
SORTING_SAMPLER_BYTES = 26.0
FLASHINFER_SAMPLER_BYTES = 14.0
FLASHINFER_SAMPLER_SINCE: Version = (0, 21)

GRAPHS_SUBTRACTED_SINCE: Version = (0, 21)
"""vLLM subtracts its estimate of CUDA-graph memory by default since then (its log line
"enabled by default since v0.21.0"); before, graphs were captured
in the share of memory that gpu_memory_utilization leaves free."""
GRAPH_POOL_BYTES = 0.3 * GIB
GRAPH_PIECE_BYTES = 0.25 * MIB
"""Per block and captured size, full and piecewise graph together (67 sizes of a 32-block model capture in about
0.5 GiB in piecewise mode alone)."""

RESERVED_BYTES = 0.7 * GIB
"""cuBLAS and attention workspaces, NCCL and custom all-reduce buffers: vLLM's start-up logs show 0.3-0.5 GiB of
`non_torch_memory` on one GPU and 0.5-1.2 GiB in a group of eight. One constant, whatever TP: buffers per peer would
make a tiny model larger with more TP, and what they lack at TP = 8 is far inside the 8-10 % that
gpu_memory_utilization leaves free."""
DISPATCH_BYTES = 0.5 * GIB
"""Send and receive buffers of expert-parallel dispatch, DP attention alike."""

PROCESS_BYTES = 0.7e9
"""CUDA context, kernels and cuBLAS workspaces of one process: of a lone engine they lie in what
gpu_memory_utilization leaves, of several on one GPU they do not. An assumption on the safe side, not a measurement."""
MLA_CONTEXT_TOKENS = 64 * 1024
"""Upper limit of the context that MLA's chunked prefill up-projects at once (mla/common.py)."""


MOE_CHUNK_TOKENS = 16 * 1024
"""Tokens that a fused MoE computes at once (VLLM_FUSED_MOE_CHUNK_SIZE): its workspaces are never larger."""


@cache
def parse_version(text: str | None) -> Version:
    """`'0.19.0'` -> (0, 19, 0); nightly builds and unknown texts count as the newest."""
    head = (text or "").split("+")[0].split(".")
    numbers = tuple(int(part) for part in head if part.isdigit())
    return numbers if len(numbers) >= 2 else (99, 0)


def default_utilization(vllm_version: str | None) -> float:
    """Default of --gpu-memory-utilization: 0.92 (config/cache.py of 0.33), assumed since 0.21, and 0.9 before."""
    return 0.92 if parse_version(vllm_version) >= GRAPHS_SUBTRACTED_SINCE else 0.9


def _attention_width(model: Model, layer: Layer, tp: int) -> float:
    """Elements per token of queries, keys, values and their result, on one rank."""
    heads = math.ceil(layer.num_heads / tp)
    if model.mla is None or layer.attention != "mla":
        return layer.head_dim * (2 * heads + 2 * kv_heads_per_gpu(layer, tp))
    query = model.mla.qk_nope_head_dim + model.mla.qk_rope_head_dim
    return heads * (2 * query + 2 * model.mla.v_head_dim) + model.mla.q_lora_rank + model.mla.kv_lora_rank


def _ffn_elements(model: Model, layer: Layer, configuration: Configuration) -> float:
    """Elements alive inside one block's FFN at `max_num_batched_tokens`."""
    tokens, tp = configuration.max_num_batched_tokens, configuration.tp
    if layer.ffn == "dense" or model.moe is None:
        return 3.0 * tokens * math.ceil(layer.intermediate_size / tp)
    # Fused MoE keeps top_k rows per token: gate and up (or the output, which shares the buffer), and their product.
    width = model.moe.intermediate_size
    width = width if configuration.expert_parallel else math.ceil(width / (tp * configuration.dp))
    rows = model.moe.top_k * (max(2 * width, model.hidden_size) + width)
    gathered = tokens * configuration.dp  # DP attention gathers the tokens of all ranks before the experts
    shared = 3.0 * tokens * math.ceil(model.moe.shared_intermediate_size / tp)
    return min(gathered, MOE_CHUNK_TOKENS) * rows + gathered * model.hidden_size + shared


def _mla_context(model: Model, configuration: Configuration, block_size: int) -> float:
    """Bytes of K and V that MLA prefill up-projects from cached latents."""
    if model.mla is None:
        return 0.0
    heads = math.ceil(max(layer.num_heads for layer, _ in model.layers) / configuration.tp)
    tokens = max(8 * configuration.max_model_len, 4 * configuration.max_num_seqs * block_size)
    tokens = min(tokens, MLA_CONTEXT_TOKENS)
    width = model.mla.qk_nope_head_dim + model.mla.qk_rope_head_dim + model.mla.v_head_dim
    return BF16_BYTES * tokens * heads * width


def activation_bytes(model: Model, configuration: Configuration, *, version: Version, block_size: int) -> float:
    """Peak of the dummy run at `max_num_batched_tokens`, per GPU."""
    tokens = configuration.max_num_batched_tokens
    widest = max(
        max(tokens * _attention_width(model, layer, configuration.tp), _ffn_elements(model, layer, configuration))
        for layer, _ in model.layers
    )
    forward = FORWARD_FACTOR * BF16_BYTES * (3 * tokens * model.hidden_size + widest)
    forward += _mla_context(model, configuration, block_size)
    per_logit = FLASHINFER_SAMPLER_BYTES if version >= FLASHINFER_SAMPLER_SINCE else SORTING_SAMPLER_BYTES
    sequences = min(configuration.max_num_seqs, tokens)
    sampler = per_logit * sequences * model.vocab_size + BF16_BYTES * tokens * model.hidden_size
    return max(forward, sampler)


def capture_sizes(max_num_seqs: int) -> int:
    """How many batch sizes vLLM captures: 1, 2, 4, then steps of 8 to 256, then of 16 to min(2 max_num_seqs, 512)."""
    largest = min(2 * max_num_seqs, 512)
    return 3 + min(largest, 256) // 8 + max(0, largest - 256) // 16


def graph_bytes(model: Model, configuration: Configuration) -> float:
    """CUDA graphs of all captured sizes, per GPU."""
    blocks = math.ceil(model.num_layers / configuration.pp)
    return GRAPH_POOL_BYTES + GRAPH_PIECE_BYTES * blocks * capture_sizes(configuration.max_num_seqs)


def communication_bytes(configuration: Configuration) -> float:
    """Buffers and workspaces outside torch's allocator, per GPU."""
    dispatched = configuration.expert_parallel or configuration.dp > 1
    return RESERVED_BYTES + DISPATCH_BYTES * dispatched
