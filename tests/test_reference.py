"""Fingerprints from the published kernel tables: what was measured comes out as measured, the rest stays physical."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import BadInput
from catalog.fingerprints import FingerprintKey, Op
from catalog.gpus import load_gpus
from catalog.models import find_model
from planner.ops import ops
from planner.roofline import op_time
from planner.strategies import Configuration
from probes.reference import ReferenceRunner, tables
from probes.reference.attention import marginal_cost
from probes.reference.curves import bilinear, filled, scaled, steadied, weights

GPUS = load_gpus()
RUNNER = ReferenceRunner(bound=op_time, gpus=GPUS)
KEY = FingerprintKey(model="", model_digest="", gpu="", tp=1, quantization="bf16", kv_dtype="bf16", engine_version="",
                     runner="reference")  # fmt: skip


def op_of(kind, dtype="bf16", **shape):
    """An operator named as its kind."""
    return Op(name=kind, kind=kind, count=1, dtype=dtype, shape=tuple(sorted(shape.items())))


def timed(op, gpu="h200_sxm"):
    """The fingerprint of one operator."""
    return RUNNER.run(KEY, [op], gpu=GPUS[gpu])


def fingerprint(model, gpu, **changes):
    """The fingerprint of a whole configuration."""
    found = find_model(model)
    configuration = Configuration(model=found.name, gpu=gpu, **changes)
    return RUNNER.run(KEY, ops(found, configuration), gpu=GPUS[gpu])


def test_a_measured_gemm_comes_out_as_measured():
    """At sizes of the table, single spikes and falling stairs apart, the time is the table's."""
    points = timed(op_of("gemm", n=8192, k=8192)).points
    table = tables.read("h200_sxm", "gemm", "gemm", version="0.24.0", columns=("n", "k", "m"),
                        where=(("gemm_dtype", "bfloat16"),))  # fmt: skip
    table = table.filter((pl.col("n") == 8192) & (pl.col("k") == 8192)).with_columns(x=pl.col("m").cast(pl.Float64))
    both = points.join(table.select("x", table="time_s"), on="x")
    assert both.height > 70
    error = np.abs(np.log(both["time_s"].to_numpy() / both["table"].to_numpy()))
    assert np.median(error) < 0.02
    assert np.quantile(error, 0.95) < 0.12
    assert set(points["source"]) == {"reference"}


@pytest.mark.parametrize(("n", "k"), [(6144, 4096), (2048, 7168), (10240, 8192)])
@pytest.mark.parametrize(("gpu", "dtype"), [("h100_sxm", "bf16"), ("b200_sxm", "fp8"), ("l40s", "bf16")])
def test_an_unmeasured_width_is_close_to_its_neighbours(n, k, gpu, dtype):
    """A GEMM a little off the grid takes a little more or less than one on it, in proportion to its bound."""
    on, off = (
        timed(op_of("gemm", dtype, n=n, k=k), gpu).points,
        timed(op_of("gemm", dtype, n=n + n // 32, k=k), gpu).points,
    )
    ratio = off["time_s"].to_numpy() / on["time_s"].to_numpy()
    assert 0.97 < np.median(ratio) < 1.10


def test_a_measured_attention_comes_out_as_measured():
    """Decode attention of 32 and 8 heads at a batch and context of the table: Llama-3.1-8B on one H200."""
    points = timed(op_of("attention_decode", heads=32, kv_heads=8, head_dim=128, window=0)).points
    at = points.filter((pl.col("x") == 32) & (pl.col("y") == 4096))
    assert at["time_s"][0] == pytest.approx(135.5e-6, rel=0.01)  # step = 4095: 0.135515 ms
    assert at["source"][0] == "reference"


def test_experts_of_a_known_layer_come_out_as_measured():
    """The routed experts of DeepSeek-V3 split over eight H200, at 512 tokens of the table."""
    layer = op_of("moe", "fp8_block", hidden=7168, inter=2048, topk=8, experts=256, tp=8, ep=1, group=1)
    points = timed(layer).points
    assert points.filter(pl.col("x") == 512)["time_s"][0] == pytest.approx(0.48793e-3, rel=1e-4)
    assert set(points["source"]) == {"reference"}


@given(st.sampled_from(sorted(GPUS)), st.integers(32, 70_000), st.integers(32, 70_000),
       st.sampled_from(["bf16", "fp8", "fp8_block", "int8", "int4", "nvfp4", "mxfp4"]))  # fmt: skip
def test_no_gemm_is_faster_than_its_bound(gpu, n, k, dtype):
    """Whatever the shape, format and GPU, and wherever the efficiency came from."""
    op = op_of("gemm", dtype, n=n, k=k)
    points = timed(op, gpu).points
    bound = op_time(op, GPUS[gpu], points["x"].to_numpy())
    assert (points["time_s"].to_numpy() >= bound * (1 - 1e-9)).all()


@given(st.integers(32, 70_000), st.integers(32, 70_000))
def test_more_tokens_never_take_less(n, k):
    """The times of a GEMM on its own tables rise with the tokens."""
    time_s = timed(op_of("gemm", n=n, k=k)).points["time_s"].to_numpy()
    assert (np.diff(time_s) >= -1e-9 * time_s[1:]).all()


@pytest.mark.parametrize("gpu", [name for name, gpu in sorted(GPUS.items()) if gpu.vendor == "nvidia"])
@pytest.mark.parametrize("model", ["meta-llama/Llama-3.1-8B", "openai/gpt-oss-120b", "deepseek-ai/DeepSeek-V3"])
def test_every_nvidia_gpu_has_a_fingerprint(model, gpu):
    """Each operator but the hand-over between stages is timed, positive and finite, or borrowed and marked so."""
    found = fingerprint(model, gpu, tp=8, quantization=find_model(model).native)
    assert not {name for name in found.failures if "/" not in name}
    times = found.points["time_s"].to_numpy()
    assert np.isfinite(times).all()
    assert (times > 0).all()
    measured = GPUS[gpu].tables is not None
    assert measured or set(found.points["source"]) == {"transferred"}


def test_nothing_is_borrowed_across_vendors():
    """An AMD GPU has no points, and a reason for each operator."""
    found = fingerprint("meta-llama/Llama-3.1-8B", "mi300x")
    assert found.points.height == 0
    assert {"qkv", "attention_decode", "lm_head"} <= set(found.failures)


def test_launch_bound_rows_give_way_to_the_stand_in():
    """A small block-scaled FP8 GEMM takes no launch of 60 us, and never more than the table says."""
    points = timed(op_of("gemm", "fp8_block", n=2048, k=7168)).points
    small = points.filter(pl.col("x") <= 16)["time_s"].to_numpy()
    assert (small < 30e-6).all()
    assert set(points["source"]) == {"transferred"}


def test_a_collective_of_more_ranks_takes_no_less():
    """Sixteen ranks were not measured: they take at least the time of eight, marked so."""
    eight, sixteen = (timed(op_of("all_reduce", elements=8192, ranks=ranks)).points for ranks in (8, 16))
    assert (sixteen["time_s"].to_numpy() >= eight["time_s"].to_numpy()).all()
    assert set(sixteen["source"]) == {"transferred"}


@pytest.mark.parametrize("name", ["../h200_sxm", "h200 sxm", "", "H200"])
def test_a_name_from_outside_is_no_path(name):
    """Only plain lower-case names become part of a path."""
    with pytest.raises(BadInput):
        tables.versions(name, "gemm", "vllm", "gemm")


def test_rows_without_a_time_are_refused(tmp_path, monkeypatch):
    """NaN, zero, negative and missing times are left out and counted; of equal rows the fastest stays."""
    folder = tmp_path / "toy" / "gemm" / "vllm" / "0.24.0"
    folder.mkdir(parents=True)
    latency = [1.0, 2.0, float("nan"), 0.0, -1.0, None]
    pl.DataFrame({"m": [1, 1, 2, 3, 4, 5], "latency": latency}).write_parquet(folder / "gemm_perf.parquet")
    monkeypatch.setattr(tables, "root", lambda: tmp_path)
    assert tables.versions("toy", "gemm", "vllm", "gemm") == ("0.24.0",)
    assert tables.read("toy", "gemm", "gemm", version="0.24.0", columns=("m",)).rows() == [(1, 0.001)]
    assert tables.refusals()["toy/gemm/gemm/0.24.0"].startswith("4 rows refused")


@given(st.lists(st.floats(-20.0, 5.0), min_size=1, max_size=80))
def test_a_steadied_curve_rises(values):
    """The nearest rising sequence rises, stays within the values, and keeps what rises already."""
    steady = steadied(np.array(values))
    assert (np.diff(steady) >= -1e-9).all()
    assert steady.min() >= min(values) - 1e-9
    assert steady.max() <= max(values) + 1e-9
    rising = np.sort(np.array(values))
    np.testing.assert_allclose(steadied(rising)[1:-1], rising[1:-1], atol=1e-9)


@given(st.integers(2, 6), st.integers(2, 6), st.data())
def test_interpolation_gives_back_its_points(rows, columns, data):
    """On the grid the interpolated value is the grid's, and between it lies within the corners."""
    values = np.array(data.draw(st.lists(st.lists(st.floats(-9, 0), min_size=columns, max_size=columns),
                                         min_size=rows, max_size=rows)))  # fmt: skip
    x, y = 2.0 ** np.arange(rows), 4.0 ** np.arange(columns)
    at_x, at_y = (axis.ravel() for axis in np.meshgrid(x, y, indexing="ij"))
    np.testing.assert_allclose(bilinear(x, y, values, at_rows=at_x, at_columns=at_y), values.ravel(), atol=1e-9)
    between = bilinear(x, y, values, at_rows=np.array([1.5, 1e9]), at_columns=np.array([3.0, 1e-9]))
    assert ((values.min() - 1e-9 <= between) & (between <= values.max() + 1e-9)).all()


def test_sizes_outside_the_axis_take_its_end():
    """Below and above the axis the border holds, and is said to be outside."""
    axis = np.array([64.0, 128.0, 256.0])
    assert weights(axis, 32.0) == (0, 1, 0.0, False)
    assert weights(axis, 512.0) == (1, 2, 1.0, False)
    assert weights(axis, 128.0)[3]


def test_gaps_take_the_last_measured_efficiency():
    """A size that was not measured runs as the next smaller one."""
    grid = np.array([[np.nan, 1.0, np.nan], [np.nan, np.nan, np.nan]])
    assert filled(grid).tolist() == [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]


@given(st.floats(1e-6, 1.0), st.floats(1e-7, 1.0), st.floats(1e-7, 1.0))
def test_a_carried_time_stays_above_its_bound(time_s, bound_s, to_bound_s):
    """Another format or GPU keeps the fixed part and scales the rest, never below its own bound."""
    assert scaled(np.array([time_s]), bound_s=np.array([bound_s]), to_bound_s=np.array([to_bound_s]))[0] >= to_bound_s
    same = scaled(np.array([bound_s + time_s]), bound_s=np.array([bound_s]), to_bound_s=np.array([bound_s]))
    assert same[0] == pytest.approx(bound_s + time_s)


def test_prompts_of_a_full_step_share_one_launch():
    """Times of 10 us plus 2 us per prompt: the launch is the least time, 12 us, the rest is shared by the prompts."""
    batches, lengths = np.array([1.0, 2.0, 4.0]), np.array([16.0, 32.0])
    launch, marginal = marginal_cost(np.array([[12.0, 12.0], [14.0, 14.0], [18.0, np.nan]]), batches, lengths)
    assert launch == 12.0
    assert marginal.tolist() == [1.5, 1.5]  # (18 - 12) / 4; then not less than for shorter prompts


def test_coarser_scales_are_no_slower():
    """Per-tensor FP8 experts take no longer than block-scaled ones of the same layer, whose work is strictly more."""
    shape = {"hidden": 2048, "inter": 768, "topk": 8, "experts": 128, "tp": 1, "ep": 1, "group": 1}
    tensor, block = (timed(op_of("moe", dtype, **shape), "h100_sxm").points["time_s"].to_numpy()
                     for dtype in ("fp8", "fp8_block"))  # fmt: skip
    assert (tensor <= block * 1.0001).all()
