"""The roofline: published FLOP and bytes, and its monotonicity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.fingerprints import Op
from catalog.gpus import load_gpus
from catalog.models import find_model
from planner.ops import ops
from planner.roofline import causal_pairs, op_time, peak, touched_experts, work
from planner.strategies import Configuration

GPUS = load_gpus()
SIZES = st.integers(1, 20_000)


def totals(tp, *, tokens, sequences, chunks=0, prior=0, decodes=0, context=0):
    """(FLOP, bytes read) of one rank's step of Llama-3.1-8B, without elementwise kernels and collectives."""
    flop = moved = 0.0
    model = find_model("meta-llama/Llama-3.1-8B")
    for op in ops(model, Configuration(model=model.name, gpu="h100_sxm", tp=tp)):
        match op.kind:
            case "gemm":
                sizes = (tokens, 0.0)
            case "lm_head":
                sizes = (sequences, 0.0)
            case "attention_prefill" if chunks:
                sizes = (chunks, prior)
            case "attention_decode" if decodes:
                sizes = (decodes, context)
            case _:
                continue
        done, bytes_ = work(op, *sizes)
        flop, moved = flop + op.count * float(done), moved + op.count * float(bytes_)
    return flop, moved


def test_prefill_flop_as_vllm_counts_them():
    """The model in vLLM (v1/metrics/perf.py) gives 30.79 TFLOP for a prefill of 2048 tokens, 7.70 per rank of four.

    It counts every (query, key) pair, the causal mask's other half too: 2·2048²·32·128 FLOP in each of 32 blocks.
    """
    for tp, published in ((1, 30.79e12), (4, 7.70e12)):
        flop, _ = totals(tp, tokens=2048, sequences=1, chunks=2048)
        masked = 32 * 2 * 2048**2 * 32 * 128 / tp
        assert flop + masked == pytest.approx(published, rel=1e-3)


def test_decode_bytes_as_vllm_counts_them():
    """The model in vLLM gives 0.515 TFLOP and 23.72 GB for 32 sequences at 2048, 0.129 and 5.94 per rank of four."""
    for tp, flop_published, read_published in ((1, 0.515e12, 23.72e9), (4, 0.129e12, 5.94e9)):
        flop, moved = totals(tp, tokens=32, sequences=32, decodes=32, context=2048)
        assert flop == pytest.approx(flop_published, rel=0.005)
        assert moved == pytest.approx(read_published, rel=0.005)


@pytest.mark.parametrize(("s", "prior", "window"), [(5, 0, 0), (5, 3, 0), (8, 0, 4), (8, 6, 4), (3, 1, 10)])
def test_causal_pairs_count_the_mask(s, prior, window):
    """The continuous sum of pairs is that of a causal, windowed mask up to one half per query."""
    op = Op(name="", kind="attention_prefill", count=1, dtype="bf16", shape=(("window", window),))
    mask = sum(min(prior + i + 1, window or 10**9) for i in range(s))
    assert abs(float(causal_pairs(op, s, prior)) - mask) <= s / 2 + 0.5


def test_touched_experts_at_the_ends():
    """One token touches its top-k, many touch all, divided by the ranks of expert parallelism."""
    op = Op(name="", kind="moe", count=1, dtype="bf16", shape=(("experts", 128), ("topk", 8), ("ep", 1)))
    assert float(touched_experts(op, 1.0)) == pytest.approx(8.0)
    assert float(touched_experts(op, 1e5)) == pytest.approx(128.0)


def operators():
    """Every operator of four unlike models."""
    for name in ("meta-llama/Llama-3.1-70B", "openai/gpt-oss-120b", "deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-30B-A3B"):
        model = find_model(name)
        configuration = Configuration(model=model.name, gpu="h100_sxm", tp=2, dp=1, quantization="fp8")
        yield from ops(model, configuration)


OPERATORS = tuple(operators())


@given(st.sampled_from(OPERATORS), st.sampled_from(sorted(GPUS)), SIZES, SIZES, SIZES, SIZES)
def test_more_work_never_takes_less(op, gpu, x, y, more_x, more_y):  # noqa: PLR0917 - drawn
    """The bound rises with tokens or batch, and with context."""
    least = op_time(op, GPUS[gpu], float(x), float(y))
    assert op_time(op, GPUS[gpu], float(x + more_x), float(y + more_y)) >= least * (1 - 1e-12)
    assert least >= 0


@given(st.sampled_from(OPERATORS), st.sampled_from(sorted(GPUS)), SIZES, SIZES, st.floats(1.0, 10.0))
def test_more_bandwidth_never_takes_longer(op, gpu, x, y, factor):
    """A GPU with faster memory and links is never bound to be slower."""
    slow = GPUS[gpu]
    fast = slow.model_copy(update={"bandwidth": slow.bandwidth * factor,
                                   "link_bandwidth": slow.link_bandwidth * factor})  # fmt: skip
    assert op_time(op, fast, float(x), float(y)) <= op_time(op, slow, float(x), float(y))


@given(st.sampled_from(OPERATORS), SIZES, st.lists(SIZES, min_size=1, max_size=5))
def test_arrays_are_floats_side_by_side(op, y, xs):
    """A call with an array gives what calls with its entries give."""
    together = op_time(op, GPUS["h200_sxm"], np.array(xs, dtype=float), float(y))
    apart = [float(op_time(op, GPUS["h200_sxm"], float(x), float(y))) for x in xs]
    assert together.tolist() == apart


def test_a_format_without_units_runs_in_the_next():
    """An A100 multiplies 8-bit floats in bf16, an H100 does not; MXFP4 may use FP8 units where FP4 ones exist."""
    assert peak(GPUS["a100_sxm"], "fp8") == peak(GPUS["a100_sxm"], "bf16")
    assert peak(GPUS["h100_sxm"], "fp8") > peak(GPUS["h100_sxm"], "bf16")
    assert peak(GPUS["b200_sxm"], "mxfp4") == peak(GPUS["b200_sxm"], "fp8")
