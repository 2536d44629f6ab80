"""Roofline: a lower bound on the time of an operator, from its FLOP and bytes and the GPU's data sheet.

    t >= max(W / peak, Q / bandwidth)      (SCIENCE.md 2; Williams et al., CACM 2009)

W and Q count only what cannot be avoided: weights and KV read once, activations at the format that the kernel reads.
A collective moves its payload over the fast link at least once per direction (a switch that reduces in flight, NVLS,
needs no more), so its bound is payload / link bandwidth. Everything takes a float or an array.
"""

from __future__ import annotations

import numpy as np

from catalog.fingerprints import Op
from catalog.gpus import GPU, PeakFormat
from catalog.predictors import Floats
from catalog.quantizations import KV_BYTES, QUANTIZATIONS, KVDtype

Size = float | Floats

#: A GPU without the format multiplies the dequantized weights in the next one (Marlin kernels, W8A16 and W4A16).
_FALLBACK: dict[str, tuple[PeakFormat, ...]] = {
    "fp4": ("fp4", "bf16"), "fp8": ("fp8", "bf16"), "int8": ("int8", "fp8", "bf16"), "bf16": ("bf16",),
}  # fmt: skip
_LINK_OPS = ("all_reduce", "all_to_all", "all_gather", "reduce_scatter", "p2p")


def op_time(op: Op, gpu: GPU, x: Size, y: Size = 0.0) -> Floats:
    """Least seconds of one execution at size (x, y), in the meaning of `catalog.fingerprints`' table."""
    flop, moved = work(op, x, y)
    if op.kind in _LINK_OPS or op.dtype == "gather":
        return np.asarray(moved / gpu.link_bandwidth)
    return np.maximum(flop / peak(gpu, op.dtype), moved / gpu.bandwidth)


def peak(gpu: GPU, dtype: str) -> float:
    """FLOP/s that no kernel of the format exceeds on the GPU."""
    if dtype == "mxfp4":  # 8-bit activations are a choice (mxfp8) where FP4 tensor cores exist
        return gpu.peak.get("fp8", gpu.peak["bf16"]) if "fp4" in gpu.peak else gpu.peak["bf16"]
    compute = QUANTIZATIONS[dtype].compute if dtype in QUANTIZATIONS else "bf16"
    return next(gpu.peak[name] for name in _FALLBACK[compute] if name in gpu.peak)


def work(op: Op, x: Size, y: Size = 0.0) -> tuple[Floats, Floats]:
    """(FLOP, bytes) of one execution on one rank."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    match op.kind:
        case "gemm" | "lm_head":
            return _gemm(op, x)
        case "moe":
            return _moe(op, x)
        case "attention_prefill":
            return _prefill(op, x, y)
        case "attention_decode":
            return _decode(op, x, y)
        case "mla_prefill":
            return _mla_prefill(op, x, y)
        case "mla_decode":
            return _mla_decode(op, x, y)
        case "elementwise" | "sampling" if op.dtype != "gather":
            return np.zeros_like(x), x * (op.size("read") + op.size("write"))
        case _:  # collectives: bf16 elements per token, at least once over the link
            ranks = max(2, op.size("ranks", 2))
            once = 1.0 if op.kind in ("all_reduce", "p2p") else (ranks - 1) / ranks
            return np.zeros_like(x), x * op.size("elements") * 2.0 * once


def touched_experts(op: Op, tokens: Size) -> Floats:
    """Experts of one rank that `tokens` tokens of uniform routing are expected to touch: E(1-(1-k/E)^tokens)/ep."""
    experts, topk = op.size("experts"), op.size("topk")
    share = -np.expm1(np.asarray(tokens, dtype=float) * np.log1p(-min(topk / experts, 1 - 1e-12)))
    return np.asarray(np.maximum(experts * share / op.size("ep", 1), min(1.0, topk / op.size("ep", 1))))


def _activation_bytes(dtype: str) -> float:
    """Bytes of one input element as the kernel reads it."""
    return {"fp8": 1.0, "fp8_block": 1.0, "int8": 1.0, "nvfp4": 0.5}.get(dtype, 2.0)


def _weight_bytes(dtype: str) -> float:
    return QUANTIZATIONS[dtype].weight_bytes if dtype in QUANTIZATIONS else 2.0


def _gemm(op: Op, m: Floats) -> tuple[Floats, Floats]:
    n, k = op.size("n"), op.size("k")
    return 2.0 * m * n * k, n * k * _weight_bytes(op.dtype) + m * (k * _activation_bytes(op.dtype) + 2.0 * n)


def _moe(op: Op, x: Floats) -> tuple[Floats, Floats]:
    """Routed experts: three matrices of each touched expert, the tokens of the whole group."""
    h, inter, topk = op.size("hidden"), op.size("inter"), op.size("topk")
    tokens = x * op.size("group", 1)
    shards = op.size("tp", 1) * op.size("ep", 1)
    flop = 6.0 * tokens * topk * h * inter / shards
    weights = touched_experts(op, tokens) * 3.0 * h * inter / op.size("tp", 1) * _weight_bytes(op.dtype)
    return flop, weights + tokens * h * (_activation_bytes(op.dtype) + 2.0) / op.size("ep", 1)


def _seen(op: Op, context: Floats) -> Floats:
    """Tokens that a layer attends to: the window's at most."""
    window = op.size("window")
    return np.minimum(context, window) if window else context


def _prefill(op: Op, s: Floats, prior: Floats) -> tuple[Floats, Floats]:
    """Causal attention of one sequence: s new tokens after `prior`; pairs = s²/2 + s prior, cut by the window."""
    heads, kv_heads, d = op.size("heads"), op.size("kv_heads"), op.size("head_dim")
    pairs = causal_pairs(op, s, prior)
    moved = 4.0 * s * heads * d + 2.0 * (_seen(op, prior) + s) * kv_heads * d * KV_BYTES[_kv(op)]
    return 4.0 * pairs * heads * d, moved


def causal_pairs(op: Op, s: Size, prior: Size) -> Floats:
    """(query, key) pairs of a causal chunk, Σ_{i<s} min(prior + i, window), as a continuous sum: s²/2 + s·prior."""
    s, prior = np.asarray(s, dtype=float), np.asarray(prior, dtype=float)
    window = float(op.size("window"))
    if not window:
        return s * s / 2.0 + s * prior
    grow = np.clip(window - prior, 0.0, s)  # queries before the window is full
    return grow * grow / 2.0 + grow * np.minimum(prior, window) + (s - grow) * window


def _decode(op: Op, b: Floats, context: Floats) -> tuple[Floats, Floats]:
    heads, kv_heads, d = op.size("heads"), op.size("kv_heads"), op.size("head_dim")
    seen = _seen(op, context)
    moved = 2.0 * b * seen * kv_heads * d * KV_BYTES[_kv(op)] + 4.0 * b * heads * d
    return 4.0 * b * seen * heads * d, moved


def _mla_prefill(op: Op, s: Floats, prior: Floats) -> tuple[Floats, Floats]:
    """Prefill computes in head space: scores over nope + rope, values over v; the prior's latents are expanded anew."""
    heads, latent = op.size("heads"), op.size("latent")
    qk, v = op.size("nope") + op.size("rope"), op.size("v")
    expand = 2.0 * prior * latent * heads * (op.size("nope") + v)
    flop = 2.0 * (s * s / 2.0 + s * prior) * heads * (qk + v) + expand
    return flop, (s + prior) * (latent + op.size("rope")) * KV_BYTES[_kv(op)] + 2.0 * s * heads * (qk + v)


def _mla_decode(op: Op, b: Floats, context: Floats) -> tuple[Floats, Floats]:
    """Decode stays in latent space: one KV head of latent + rope, read once for all query heads."""
    heads, latent, rope = op.size("heads"), op.size("latent"), op.size("rope")
    flop = 2.0 * b * context * heads * (2.0 * latent + rope)
    return flop, b * context * (latent + rope) * KV_BYTES[_kv(op)] + 2.0 * b * heads * (2.0 * latent + rope)


def _kv(op: Op) -> KVDtype:
    return "fp8" if op.dtype == "fp8" else "bf16"
