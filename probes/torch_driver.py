"""Runs where torch is: time operators with real kernels, one JSON line per point.

Like the vLLM driver it imports nothing of ours and is handed by path to an interpreter that has torch. It reads

    {"device": "cuda", "graph": true, "repeats": 10, "seed": 0, "rank": 0, "ranks": 1, "store": "",
     "ops": [{"name": "qkv", "kind": "gemm", "dtype": "bf16", "shape": {"n": 6144, "k": 4096}, "points": [[1, 0]]}]}

and prints a line when a point begins and one when it is measured: its median over repeats, its spread (interquartile
range over median), or its failure. A size that runs out of memory is a fact about that size; the next one is still
measured. On CUDA each operator is captured in a graph (or run eagerly where capture is refused) and timed by events; on
CPU by the process's clock.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

WARM_RUNS = 3
#: One repeat lasts at least this long, so that a clock's resolution does not count.
LEAST_REPEAT_S = 2e-4
#: Memory rewritten between repeats on CUDA, so that weights come from HBM and not from the L2 (50 MB on H100).
FLUSH_BYTES = 256 * 2**20


def main() -> None:
    """Read the request and measure every point."""
    request = json.load(sys.stdin)
    torch.manual_seed(request["seed"])
    device = torch.device(request["device"])
    if request["ranks"] > 1:
        _join(request)
    with torch.inference_mode():
        for op in request["ops"]:
            for x, y in op["points"]:
                point = {"op": op["name"], "x": x, "y": y}
                _say({"begun": point})
                _say(point | _measured(op, (x, y), device, request))
    if request["ranks"] > 1:
        torch.distributed.barrier()  # a rank that left early would close the others' connections
        torch.distributed.destroy_process_group()


def _join(request: dict) -> None:
    backend = "nccl" if request["device"] == "cuda" else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(request["rank"])
    torch.distributed.init_process_group(
        backend, init_method=f"file://{request['store']}", rank=request["rank"], world_size=request["ranks"]
    )


def _measured(op: dict, size: tuple, device: torch.device, request: dict) -> dict:
    try:
        call = BUILDERS[op["kind"]](op, *size, device)
        times = _times(call, device, repeats=request["repeats"], graph=request["graph"])
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        return {"failure": f"out of memory: {error}"[:300]}
    except (RuntimeError, NotImplementedError, KeyError, ValueError) as error:
        kind = "out of memory" if "can't allocate memory" in str(error) else type(error).__name__
        return {"failure": f"{kind}: {error}"[:300]}
    middle = statistics.median(times)
    quartiles = statistics.quantiles(times, n=4)
    return {"time_s": middle, "least_s": min(times), "spread": (quartiles[2] - quartiles[0]) / middle}


def _times(call, device: torch.device, *, repeats: int, graph: bool) -> list[float]:  # noqa: ANN001
    for _ in range(WARM_RUNS):
        call()
    if device.type != "cuda":
        runs = _runs(call)
        return [_timed_on_cpu(call, runs) for _ in range(max(2, repeats))]
    torch.cuda.synchronize()
    run = _captured(call) if graph else call
    flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device)
    return [_timed_on_cuda(run, flush) for _ in range(max(2, repeats))]


def _timed_on_cpu(call, runs: int) -> float:  # noqa: ANN001
    begun = time.perf_counter()
    for _ in range(runs):
        call()
    return (time.perf_counter() - begun) / runs


def _runs(call) -> int:  # noqa: ANN001
    """Calls per repeat, the same on every rank: one that called a collective more often would wait for ever."""
    once = torch.tensor([_timed_on_cpu(call, 1)])
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(once, op=torch.distributed.ReduceOp.MIN)
    return max(1, math.ceil(LEAST_REPEAT_S / max(1e-7, once.item())))


def _timed_on_cuda(run, flush: torch.Tensor) -> float:  # noqa: ANN001
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    flush.zero_()
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


def _captured(call):  # noqa: ANN001, ANN202
    recorded = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(recorded):
            call()
    except RuntimeError:  # an operator that synchronises cannot be captured: it is timed eagerly
        torch.cuda.synchronize()
        return call
    return recorded.replay


def _gemm(op: dict, m: int, _y: int, device: torch.device):  # noqa: ANN202
    n, k = op["shape"]["n"], op["shape"]["k"]
    a = torch.randn(m, k, device=device, dtype=torch.bfloat16)
    w = torch.randn(n, k, device=device, dtype=torch.bfloat16) / k**0.5
    if op["dtype"] in ("bf16", "gather"):
        return lambda: F.linear(a, w)
    if op["dtype"] == "fp8" and device.type == "cuda":
        a8, w8 = a.to(torch.float8_e4m3fn), w.to(torch.float8_e4m3fn)
        one = torch.ones((), device=device)
        return lambda: torch._scaled_mm(a8, w8.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)  # noqa: SLF001 - torch has no public name for it
    if op["dtype"] == "int8":
        a1, w1 = a.to(torch.int8), w.to(torch.int8).t()
        return lambda: torch._int_mm(a1, w1)  # noqa: SLF001 - as above
    message = f"torch multiplies no {op['dtype']} on {device.type}"
    raise NotImplementedError(message)


def _elementwise(op: dict, m: int, _y: int, device: torch.device):  # noqa: ANN202
    """A pass that reads and writes the operator's bytes per token: norm, activation, or a plain scaled copy."""
    read, write = op["shape"].get("read", 2), op["shape"].get("write", 0)
    a = torch.randn(m, max(1, read // 2), device=device, dtype=torch.bfloat16)
    if op["name"].startswith("norm"):
        half = a.shape[1] // 2
        weight = torch.ones(half, device=device, dtype=torch.bfloat16)
        return lambda: F.rms_norm(a[:, :half] + a[:, half:], (half,), weight)
    if op["name"].startswith("act"):
        half = a.shape[1] // 2
        return lambda: F.silu(a[:, :half]) * a[:, half:]
    if op["name"].startswith("sampling"):
        logits = torch.randn(m, max(1, read // 18), device=device)
        return lambda: torch.argmax(torch.softmax(logits, -1), -1)
    return (lambda: a * 1.01) if write else (lambda: a.sum(-1))


def _prefill(op: dict, s: int, prior: int, device: torch.device):  # noqa: ANN202
    shape = op["shape"]
    heads, kv_heads, d, window = shape["heads"], shape["kv_heads"], shape["head_dim"], shape.get("window", 0)
    seen = min(prior + s, window + s) if window else prior + s
    q = torch.randn(1, heads, s, d, device=device, dtype=torch.bfloat16)
    k, v = (torch.randn(1, kv_heads, seen, d, device=device, dtype=torch.bfloat16) for _ in range(2))
    return _attend(q, k, v, device)


def _decode(op: dict, n: int, context: int, device: torch.device):  # noqa: ANN202
    shape = op["shape"]
    seen = min(context, shape["window"]) if shape.get("window") else context
    q = torch.randn(n, shape["heads"], 1, shape["head_dim"], device=device, dtype=torch.bfloat16)
    size = (n, shape["kv_heads"], max(1, seen), shape["head_dim"])
    k, v = (torch.randn(*size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def _mla_prefill(op: dict, s: int, prior: int, device: torch.device):  # noqa: ANN202
    shape = op["shape"]
    size = (1, shape["heads"], s, shape["nope"] + shape["rope"])
    q = torch.randn(*size, device=device, dtype=torch.bfloat16)
    k = torch.randn(1, shape["heads"], prior + s, size[-1], device=device, dtype=torch.bfloat16)
    v = torch.randn(1, shape["heads"], prior + s, shape["v"], device=device, dtype=torch.bfloat16)
    return _attend(q, k, v, device)


def _mla_decode(op: dict, n: int, context: int, device: torch.device):  # noqa: ANN202
    shape = op["shape"]
    width = shape["latent"] + shape["rope"]
    q = torch.randn(n, shape["heads"], 1, width, device=device, dtype=torch.bfloat16)
    k = torch.randn(n, 1, max(1, context), width, device=device, dtype=torch.bfloat16)
    v = k[..., : shape["latent"]]
    return lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, device: torch.device):  # noqa: ANN202
    """Causal attention of the last tokens over all; the flash kernel where the whole prompt is new."""
    if q.shape[2] == k.shape[2]:
        return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    if device.type == "cuda":
        from torch.nn.attention.bias import causal_lower_right  # noqa: PLC0415 - CUDA only

        mask = causal_lower_right(q.shape[2], k.shape[2])
    else:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    return lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _moe(op: dict, m: int, _y: int, device: torch.device):  # noqa: ANN202
    """Routed experts as one grouped product over the rank's experts, tokens routed uniformly."""
    if op["dtype"] != "bf16":
        message = f"torch groups no {op['dtype']} experts"
        raise NotImplementedError(message)
    shape = op["shape"]
    experts, width = max(1, shape["experts"] // shape["ep"]), max(1, shape["inter"] // shape["tp"])
    rows = max(1, m * shape.get("group", 1) * shape["topk"] // shape["ep"])
    up = torch.randn(experts, shape["hidden"], 2 * width, device=device, dtype=torch.bfloat16)
    down = torch.randn(experts, width, shape["hidden"], device=device, dtype=torch.bfloat16)
    tokens = torch.randn(rows, shape["hidden"], device=device, dtype=torch.bfloat16)
    counts = torch.bincount(torch.randint(experts, (rows,), device=device), minlength=experts)

    def grouped() -> torch.Tensor:
        ends = counts.cumsum(0).to(torch.int32)
        hidden = torch._grouped_mm(tokens, up, offs=ends)  # noqa: SLF001 - torch has no public name for it
        hidden = F.silu(hidden[:, :width]) * hidden[:, width:]
        return torch._grouped_mm(hidden, down, offs=ends)  # noqa: SLF001 - as above

    def looped() -> list[torch.Tensor]:
        parts = zip(tokens.split(counts.tolist()), up, down, strict=True)
        return [(F.silu(h[:, :width]) * h[:, width:]) @ out for h, out in ((t @ u, o) for t, u, o in parts if len(t))]

    return grouped if device.type == "cuda" and hasattr(torch, "_grouped_mm") else looped


def _all_reduce(op: dict, m: int, _y: int, device: torch.device):  # noqa: ANN202
    if not torch.distributed.is_initialized():
        raise NotImplementedError("an all-reduce needs more than one rank")
    a = torch.randn(m * op["shape"]["elements"], device=device, dtype=torch.bfloat16)
    return lambda: torch.distributed.all_reduce(a)


BUILDERS = {
    "gemm": _gemm,
    "lm_head": _gemm,
    "elementwise": _elementwise,
    "sampling": _elementwise,
    "attention_prefill": _prefill,
    "attention_decode": _decode,
    "mla_prefill": _mla_prefill,
    "mla_decode": _mla_decode,
    "moe": _moe,
    "all_reduce": _all_reduce,
}


def _say(record: dict) -> None:
    print(json.dumps(record), flush=True)  # noqa: T201 - standard output is the interface


if __name__ == "__main__":
    main()
