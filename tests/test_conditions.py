"""Laws and hand-worked examples of `planner.conditions`: rows read, benchmarks reproduced."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import BadInput
from catalog.gpus import find_gpu
from catalog.models import find_model
from catalog.power import load_power
from catalog.predictors import Predictor
from planner.conditions import METRICS, condition_of, reproduce
from planner.conditions.row import default_max_num_batched_tokens, default_max_num_seqs
from planner.memory import memory

DATA = Path(__file__).parents[1] / "../shared/data/e2e"


def predictor(
    step_s: float = 0.01, token_s: float = 1e-5, *, interval=(0.8, 1.25), request_s: float = 0.0
) -> Predictor:
    """A step costs `step_s` and `token_s` per token, whatever the contexts."""
    flat = np.zeros((2, 2))
    return Predictor(
        tokens=np.array([1.0, 1e5]), token_s=np.array([token_s, token_s * 1e5]), sequences=np.array([0.0, 1e4]),
        sequence_s=np.zeros(2), decode_batch=np.array([1.0, 1e4]), decode_context=np.array([1.0, 1e6]), decode_s=flat,
        chunk=np.array([1.0, 1e5]), prior=np.array([0.0, 1e6]), prefill_s=flat, decode_overhead_s=step_s,
        mixed_overhead_s=step_s, request_s=request_s, decode_interval=interval, prefill_interval=interval,
        source="reference",
    )  # fmt: skip


def row(**changes):
    """One row of conditions: Llama-3.1-8B on an H100, 4 clients."""
    given = {
        "id": "a", "model": "meta-llama/Llama-3.1-8B", "gpu": "h100_sxm", "precision": "bf16", "tp": 1, "pp": 1,
        "dp": 1, "ep": 1, "isl": 1024, "osl": 128, "load_kind": "closed_loop_fixed", "concurrency": 4,
        "max_num_seqs": 4, "max_num_batched_tokens": 8192, "engine_version": "0.19.0",
    }  # fmt: skip
    return given | changes


def condition(**changes):
    """The row as a condition."""
    said = row(**changes)
    return condition_of(said, model=find_model(said["model"]), gpu=find_gpu(said["gpu"]))


def run(found, made: Predictor, **more) -> dict[str, float]:
    """Reproduce a condition."""
    held = memory(found.model, found.gpu, found.configuration, vllm_version=found.vllm_version)
    return reproduce(found, predictor=made, memory=held, **more)


@pytest.mark.parametrize(
    ("model", "precision", "gpu", "quantization", "kv"),
    [
        ("meta-llama/Llama-3.1-70B", "bf16/fp16", "h200_sxm", "bf16", "bf16"),
        ("meta-llama/Llama-3.1-70B", "bfloat16", "h200_sxm", "bf16", "bf16"),
        ("meta-llama/Llama-3.1-70B", "fp8", "h200_sxm", "fp8", "fp8"),
        ("meta-llama/Llama-3.1-70B", "fp4", "b200_sxm", "nvfp4", "fp8"),
        ("MiniMaxAI/MiniMax-M2.5", "fp8", "h200_sxm", "fp8_block", "bf16"),
        ("openai/gpt-oss-120b", "fp4", "h100_sxm", "mxfp4", "bf16"),
        ("moonshotai/Kimi-K2.5", "int4", "h200_sxm", "int4", "bf16"),
        ("moonshotai/Kimi-K2.5", "fp4", "b200_sxm", "nvfp4", "fp8"),
        ("meta-llama/Llama-3.1-8B", None, "h100_sxm", "bf16", "bf16"),
    ],
)
def test_precision_is_what_is_published_for_the_model(model, precision, gpu, quantization, kv):
    """A source's spelling of a precision names the format of the model's published checkpoint, and its KV format."""
    found = condition(model=model, precision=precision, gpu=gpu, tp=8).configuration
    assert (found.quantization, found.kv_dtype) == (quantization, kv)


def test_notes_decide_what_they_say():
    """`key=value` words of the notes win over assumptions."""
    assert condition(notes="x kv_cache_dtype=fp8_e4m3, reps=1").configuration.kv_dtype == "fp8"
    assert condition(model="meta-llama/Llama-3.1-70B", precision="fp8", tp=4,
                     notes="kv_cache_dtype=bfloat16").configuration.kv_dtype == "bf16"  # fmt: skip
    assert condition(notes="gpu_memory_gib=40").gpu.memory == 40 * 2**30
    assert condition(notes="gpu_memory_utilization=0.85").gpu_memory_utilization == 0.85
    assert condition(notes="gpu_memory_utilization=7").gpu_memory_utilization is None


def test_missing_limits_are_vllms_defaults_by_memory():
    """16384 batched tokens from 160 GiB, 8192 from 70 GiB, 2048 on smaller GPUs and A100; sequences likewise."""
    gpus = [find_gpu(name) for name in ("b200_sxm", "h100_sxm", "a100_sxm", "l40s")]
    assert [default_max_num_batched_tokens(gpu) for gpu in gpus] == [16384, 8192, 2048, 2048]
    assert [default_max_num_seqs(gpu) for gpu in gpus] == [1024, 1024, 256, 256]
    found = condition(max_num_batched_tokens=None)
    assert found.configuration.max_num_batched_tokens == 8192
    assert "max_num_batched_tokens 8192" in found.assumed


def test_a_published_source_is_read_by_its_own_habits():
    """InferenceX reports means, and its data-parallel attention runs one rank on each of the counted `tp` GPUs."""
    plain = condition(model="MiniMaxAI/MiniMax-M2.5", precision="fp8", tp=4, dp=4, ep=16, n_gpus=16)
    theirs = condition(
        model="MiniMaxAI/MiniMax-M2.5", precision="fp8", tp=4, dp=4, ep=16, n_gpus=16, source="InferenceX"
    )
    assert (plain.statistic, plain.configuration.tp, plain.configuration.gpus) == ("median", 4, 16)
    assert (theirs.statistic, theirs.configuration.tp, theirs.configuration.gpus) == ("mean", 1, 4)
    assert theirs.configuration.ep == 4
    assert (plain.gpu_memory_utilization, theirs.gpu_memory_utilization) == (None, 0.9)
    assert theirs.counted_gpus == plain.counted_gpus == 16


def test_versions_are_read_out_of_any_text():
    """`2024 (0.4-0.6, ...)` is 0.4, a nightly build and null are the newest."""
    said = {
        "0.19.0": "0.19.0",
        "2024 (0.4-0.6, not stated per row)": "0.4",
        "nightly-5b8c30d62b754b57": None,
        None: None,
    }
    assert [condition(engine_version=text).vllm_version for text in said] == list(said.values())


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"isl": math.nan}, "isl"),
        ({"isl": -5}, "isl"),
        ({"isl": 10**12}, "isl"),
        ({"osl": None}, "osl"),
        ({"osl": 0}, "osl"),
        ({"tp": 1.5}, "tp"),
        ({"tp": 10**6}, "tp"),
        ({"tp": True}, "tp"),
        ({"concurrency": None}, "concurrency"),
        ({"concurrency": math.inf}, "concurrency"),
        ({"concurrency": "many"}, "concurrency"),
        ({"load_kind": "closed_loop_random_range1.7"}, "load_kind"),
        ({"load_kind": "poisson:0"}, "load_kind"),
        ({"load_kind": "poisson:nan"}, "load_kind"),
        ({"load_kind": None}, "load_kind"),
        ({"precision": "fp3"}, "precision"),
        ({"precision": "nvfp4"}, "precision"),
        ({"max_num_batched_tokens": -1}, "max_num_batched_tokens"),
    ],
)
def test_an_impossible_row_is_refused_by_the_column_that_is_wrong(changes, place):
    """NaN, negative, absurd and unserved values are refused, never repaired."""
    with pytest.raises(BadInput) as refused:
        condition(**changes)
    assert refused.value.place == place


def test_a_closed_loop_of_equal_requests_by_hand():
    """Four clients, prompts of 1000 tokens at 10 µs each, steps of 10 ms, 101 tokens out.

    All four prompts share the first step: 10 ms + 4000 x 10 µs = 50 ms, then 100 steps of 10 ms + 4 x 10 µs.
    """
    found = run(condition(isl=1000, osl=101), predictor())
    assert found["ttft_ms"] == pytest.approx(50.0, rel=1e-6)
    assert found["tpot_ms"] == pytest.approx(10.04, rel=1e-6)
    assert found["e2e_s"] == pytest.approx(1.054, rel=1e-6)
    assert found["out_tps"] == pytest.approx(4 * 101 / 1.054, rel=1e-6)
    assert found["total_tps_gpu"] == pytest.approx(4 * 1101 / 1.054, rel=1e-6)
    assert found["itl_ms"] == pytest.approx(10.04, rel=0.02)


def test_a_static_batch_by_hand():
    """The same as one batch, timed as a whole: tokens in and out per second."""
    found = run(condition(load_kind="static_batch", isl=1000, osl=101), predictor())
    assert found["batch_latency_s"] == pytest.approx(1.054, rel=1e-6)
    assert found["total_tps"] == pytest.approx(4 * 1101 / 1.054, rel=1e-6)


def test_a_calm_open_stream_sees_an_empty_engine():
    """At one request in ten seconds TTFT is the request's own prefill and TPOT one decode step."""
    found = run(condition(load_kind="poisson:0.1", isl=1000, osl=101, concurrency=None), predictor())
    assert found["ttft_ms"] == pytest.approx(20.0, rel=0.01)
    assert found["tpot_ms"] == pytest.approx(10.01, rel=0.01)
    assert found["out_tps"] == pytest.approx(0.1 * 101, rel=0.05)


def test_rate_inf_waits_for_its_turn():
    """All prompts at once on four slots: the median request waits for half of the others."""
    found = run(condition(load_kind="rate_inf", isl=1000, osl=101, concurrency=40), predictor())
    assert found["batch_latency_s"] == pytest.approx(10.54, rel=0.01)
    assert 4.0 < found["ttft_ms"] / 1e3 < 6.0


def test_a_saturated_engine_has_all_its_sequences_running():
    """Tokens per second are max_num_seqs over the time between tokens, spread lengths or not."""
    found = run(
        condition(load_kind="saturated_gpqa", isl=None, osl=400, max_num_seqs=32, concurrency=31.7), predictor()
    )
    assert found["out_tps"] == pytest.approx(32e3 / found["mean_itl_ms"], rel=0.03)


def test_the_burst_is_in_the_mean_and_not_in_the_median():
    """The first C requests come at once: mean TTFT exceeds the median, and InferenceX shows the mean."""
    made = predictor(token_s=1e-4)
    plain = run(condition(load_kind="closed_loop_random_range0.8", concurrency=64, max_num_seqs=64), made)
    theirs = run(
        condition(load_kind="closed_loop_random_range0.8", concurrency=64, max_num_seqs=64, source="inferencex"), made
    )
    assert plain["mean_ttft_ms"] > 1.2 * plain["ttft_ms"]
    assert theirs["ttft_ms"] == plain["mean_ttft_ms"]


def test_async_scheduling_makes_a_new_request_wait_one_step_more():
    """From 0.14 on the next step is already scheduled when a request reaches a busy engine: 10.08 ms more TTFT."""
    kind = {"load_kind": "closed_loop_random_range0.8", "concurrency": 8, "max_num_seqs": 8, "osl": 512}
    plain, ahead = (
        run(condition(**kind, engine_version=version), predictor(request_s=0.002)) for version in ("0.13.0", "0.14.0")
    )
    assert ahead["ttft_ms"] - plain["ttft_ms"] == pytest.approx(10.2, abs=1.5)
    assert ahead["tpot_ms"] == pytest.approx(plain["tpot_ms"], rel=0.01)


def test_a_cached_conversation_starts_sooner():
    """A multi-turn conversation of four turns finds three quarters of its tokens in the prefix cache."""
    cold = run(
        condition(load_kind="multiturn_closed_loop", prefix_cache=False, notes="turns=4"), predictor(token_s=1e-4)
    )
    warm = run(
        condition(load_kind="multiturn_closed_loop", prefix_cache=True, notes="turns=4"), predictor(token_s=1e-4)
    )
    assert warm["ttft_ms"] < 0.5 * cold["ttft_ms"]


def test_a_pair_of_pools_serves_a_closed_loop_apart():
    """Apart, prompts no longer stall answers: TPOT is a decode step's; sides are as written, or half of the GPUs."""
    load = {"concurrency": 32, "isl": 4096, "osl": 256}
    made = predictor(token_s=1e-4)
    together = run(condition(load_kind="closed_loop_fixed", **load), made)
    apart = condition(load_kind="closed_loop_disagg_2P1D", **load)
    seen = run(apart, made)
    assert apart.sides == (2, 1)
    assert seen["tpot_ms"] < 0.7 * together["tpot_ms"]
    assert seen["tpot_ms"] == pytest.approx(10 + 32 * 0.1, rel=0.25)
    assert "power_w" not in run(apart, made, constants=load_power())
    halves = condition(load_kind="closed_loop_disagg", tp=1, n_gpus=5, **load)
    assert halves.sides == (2, 3)
    assert "2P3D" in halves.assumed
    assert condition(load_kind="closed_loop_disagg", notes="pair=1P3D", **load).sides == (1, 3)
    with pytest.raises(BadInput, match="unequal tp"):
        condition(load_kind="closed_loop_disagg_1P1D", notes="prefill_tp=1 decode_tp=2", **load)


def test_power_is_measured_beside_the_latencies():
    """Watts lie between idle and TDP, and energy is watts over tokens per second."""
    found = run(condition(osl=256), predictor(), constants=load_power())
    assert 99 <= found["power_w"] <= 700
    assert found["j_per_tok"] == pytest.approx(found["power_w"] / found["out_tps"])
    assert found["power_w_lo"] < found["power_w"] < found["power_w_hi"]


KINDS = [
    "closed_loop_fixed",
    "closed_loop_random_range0.8",
    "static_batch",
    "saturated_lm-arena-chat",
    "poisson:2",
    "rate_inf",
    "closed_loop_disagg_1P2D",
]


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(KINDS), clients=st.integers(1, 48), isl=st.integers(1, 3000), osl=st.integers(1, 300),
    low=st.floats(0.4, 1.0), high=st.floats(1.0, 2.0),
)  # fmt: skip
def test_bounds_hold_the_middle_and_every_metric_is_physical(kind, clients, isl, osl, low, high):  # noqa: PLR0917 - drawn
    """Whatever the load: lo <= middle <= hi, all finite and not negative, all names known; same input, same numbers."""
    found = condition(load_kind=kind, concurrency=clients, max_num_seqs=clients, isl=isl, osl=osl)
    metrics = run(found, predictor(interval=(low, high)))
    for name in METRICS:
        if name in metrics:
            assert 0 <= metrics[f"{name}_lo"] <= metrics[name] <= metrics[f"{name}_hi"] < math.inf
    assert {name.removesuffix("_lo").removesuffix("_hi") for name in metrics} <= set(METRICS)
    assert metrics == run(found, predictor(interval=(low, high)))


@settings(max_examples=20, deadline=None)
@given(clients=st.integers(1, 64), slower=st.floats(1.0, 3.0))
def test_a_slower_engine_is_never_faster(clients, slower):
    """Scaling every step time scales latencies, and divides throughput."""
    found = condition(concurrency=clients, max_num_seqs=clients)
    fast, slow = run(found, predictor()), run(found, predictor().scaled(decode=slower, prefill=slower))
    assert slow["tpot_ms"] == pytest.approx(fast["tpot_ms"] * slower, rel=0.05)
    assert slow["out_tps"] <= fast["out_tps"] * (1 + 1e-9)
