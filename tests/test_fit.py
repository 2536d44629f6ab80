"""Fitted predictors: laws that hold for every model, GPU and configuration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import BadInput
from catalog.fingerprints import Fingerprint, FingerprintKey
from catalog.fitted import Constants, load_constants
from catalog.gpus import load_gpus
from catalog.models import find_model
from planner.fit import engine_class, fit, grids
from planner.fit.learned import learned
from planner.fit.terms import parts
from planner.ops import ops
from planner.roofline import op_time
from planner.strategies import Configuration
from probes.fake import FakeRunner

GPUS = load_gpus()
CONSTANTS = load_constants()
MODELS = ("meta-llama/Llama-3.1-8B", "Qwen/Qwen3-30B-A3B", "openai/gpt-oss-120b", "deepseek-ai/DeepSeek-V3")
EXAMPLES = settings(max_examples=25)

configurations = st.builds(
    lambda model, gpu, tp, kv: (find_model(model), GPUS[gpu],
                                Configuration(model=model, gpu=gpu, tp=tp, quantization="fp8", kv_dtype=kv)),
    st.sampled_from(MODELS), st.sampled_from(["h100_sxm", "b200_sxm", "l4", "mi300x"]), st.sampled_from([1, 2, 8]),
    st.sampled_from(["bf16", "fp8"]),
)  # fmt: skip


def key_of(model, configuration):
    """The key of a faked fingerprint."""
    return FingerprintKey(
        model=model.name, model_digest=model.digest, gpu=configuration.gpu, tp=configuration.tp,
        quantization=configuration.quantization, kv_dtype=configuration.kv_dtype, engine_version="0", runner="fake",
    )  # fmt: skip


def faked(model, gpu, configuration, **options):
    """A fingerprint of known times."""
    runner = FakeRunner(bound=op_time, **options)
    return runner.run(key_of(model, configuration), ops(model, configuration), gpu=gpu)


def fitted(model, gpu, configuration, fingerprint, **options):
    """A predictor under the shipped constants."""
    return fit(model, gpu, configuration, fingerprint=fingerprint, gpus=GPUS, constants=CONSTANTS, **options)


def bounds(model, gpu, configuration):
    """The roofline's sums, laid out as a predictor's tables."""
    token_s, sequence_s = np.zeros(grids.TOKENS.size), np.zeros(grids.SEQUENCES.size)
    decode_s = np.zeros((grids.BATCH.size, grids.CONTEXT.size))
    for op in ops(model, configuration):
        match op.kind:
            case "attention_decode" | "mla_decode":
                decode_s += op.count * op_time(op, gpu, grids.BATCH[:, None], grids.CONTEXT[None, :])
            case "lm_head" | "sampling":
                sequence_s += op.count * op_time(op, gpu, grids.SEQUENCES)
            case "attention_prefill" | "mla_prefill":
                continue
            case _:
                token_s += op.count * op_time(op, gpu, grids.TOKENS)
    return token_s, sequence_s, decode_s


@EXAMPLES
@given(configurations, st.floats(0.05, 3.0), st.booleans())
def test_nothing_is_faster_than_its_roofline(case, efficiency, measured):
    """Not even a fingerprint that claims more than the data sheet allows gives a table below the bound."""
    predictor = fitted(*case, faked(*case, efficiency=efficiency, launch_s=0.0) if measured else None)
    for table, bound in zip((predictor.token_s, predictor.sequence_s, predictor.decode_s), bounds(*case), strict=True):
        assert (table >= bound * (1 - 1e-9)).all()


@EXAMPLES
@given(configurations, st.floats(0.1, 1.0), st.booleans())
def test_tables_rise_along_their_axes(case, efficiency, measured):
    """More tokens, sequences, context or prior tokens never take less time."""
    predictor = fitted(*case, faked(*case, efficiency=efficiency) if measured else None)
    for table in (predictor.token_s, predictor.sequence_s, predictor.decode_s, predictor.decode_s.T,
                  predictor.prefill_s, predictor.prefill_s.T):  # fmt: skip
        assert (np.diff(table, axis=0) >= 0).all()
    assert predictor.mixed_overhead_s >= predictor.decode_overhead_s >= 0


@EXAMPLES
@given(configurations)
def test_intervals_hold_the_prediction_and_widen_with_distance(case):
    """The interval holds 1, and a predictor without measurement is less certain than a measured one."""
    blind, seen = fitted(*case, None), fitted(*case, faked(*case))
    for predictor in (blind, seen):
        for low, high in (predictor.decode_interval, predictor.prefill_interval):
            assert low <= 1.0 <= high
    assert blind.source == "roofline"
    assert blind.decode_interval[1] > seen.decode_interval[1]
    assert blind.prefill_interval[0] < seen.prefill_interval[0]


def test_a_measured_time_is_what_the_predictor_says():
    """Where in-situ factors are 1, the tables are the sums of the measured times at the measured sizes."""
    model, gpu = find_model("meta-llama/Llama-3.1-8B"), GPUS["h100_sxm"]
    configuration = Configuration(model=model.name, gpu=gpu.name)
    values = {name: value for name, value in CONSTANTS.items() if not name.startswith("in_situ.")}
    neutral = Constants(values_by_name=values, digest="", source="test")
    fingerprint = faked(model, gpu, configuration, efficiency=0.5)
    predictor = fit(model, gpu, configuration, fingerprint=fingerprint, gpus=GPUS, constants=neutral)
    at = 64.0
    expected = sum(
        row["count"] * row["time_s"]
        for row in fingerprint.points.filter(pl.col("x") == at).iter_rows(named=True)
        if row["kind"] in ("gemm", "elementwise")
    )
    assert np.interp(at, predictor.tokens, predictor.token_s) == pytest.approx(expected, rel=1e-9)
    decode = fingerprint.points.filter(
        (pl.col("kind") == "attention_decode") & (pl.col("x") == at) & (pl.col("y") == 1024)
    )
    row, column = np.searchsorted(grids.BATCH, at), np.searchsorted(grids.CONTEXT, 1024.0)
    assert predictor.decode_s[row, column] == pytest.approx(32 * decode["time_s"][0], rel=1e-9)


def test_an_operator_that_failed_takes_a_like_ones_efficiency():
    """Without its down projection measured, the predictor stays within a tenth of the one that has it."""
    model, gpu = find_model("meta-llama/Llama-3.1-8B"), GPUS["h100_sxm"]
    configuration = Configuration(model=model.name, gpu=gpu.name)
    whole = fitted(model, gpu, configuration, faked(model, gpu, configuration))
    partial = fitted(model, gpu, configuration, faked(model, gpu, configuration, fails=("down",)))
    assert "transferred: down" in partial.notes
    np.testing.assert_allclose(partial.token_s, whole.token_s, rtol=0.1)


def test_impossible_points_are_left_out():
    """NaN, infinite, zero and negative times do not enter a predictor."""
    model, gpu = find_model("meta-llama/Llama-3.1-8B"), GPUS["h100_sxm"]
    configuration = Configuration(model=model.name, gpu=gpu.name)
    good = faked(model, gpu, configuration)
    bad = pl.concat([
        good.points.head(1).with_columns(time_s=pl.lit(time), x=pl.lit(3.0))
        for time in (float("nan"), float("inf"), 0.0, -1.0)
    ])  # fmt: skip
    spoiled = replace(good, points=pl.concat([good.points, bad]).sort("op", maintain_order=True))
    clean = replace(good, points=good.points.sort("op", maintain_order=True))
    first, second = (fitted(model, gpu, configuration, each) for each in (spoiled, clean))
    np.testing.assert_array_equal(first.token_s, second.token_s)


@EXAMPLES
@given(configurations)
def test_equal_inputs_give_equal_tables(case):
    """Fitting twice gives the same bytes."""
    one, two = fitted(*case, faked(*case)), fitted(*case, faked(*case))
    assert one.token_s.tobytes() == two.token_s.tobytes()
    assert one.notes == two.notes


def test_sorting_the_vocabulary_costs_per_sequence():
    """Filtered sampling adds to every sequence, in proportion to the vocabulary."""
    model, gpu = find_model("meta-llama/Llama-3.1-8B"), GPUS["h100_sxm"]
    configuration = Configuration(model=model.name, gpu=gpu.name)
    plain, sorted_ = (fitted(model, gpu, configuration, None, filtered_sampling=flag) for flag in (False, True))
    extra = (sorted_.sequence_s - plain.sequence_s) / grids.SEQUENCES
    each = learned(CONSTANTS, "async").filtered_sequence_s * model.vocab_size / 151_936
    np.testing.assert_allclose(extra, each)


@EXAMPLES
@given(configurations, st.integers(1, 30_000))
def test_terms_share_an_operators_time(case, tokens):
    """The parts of a time by physical limit add up to it, and none is negative."""
    model, gpu, configuration = case
    x, time_s = np.array([float(tokens)]), np.array([1e-3])
    for op in ops(model, configuration):
        shares = list(parts(op, gpu, x, time_s).values())
        assert all((share >= 0).all() for share in shares)
        assert sum(shares) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0.6.3", "v0"), ("0.11.1", "v1"), ("v0.13.0", "v1"), ("0.14.0", "async"), ("0.32.0", "async"),
     ("1.0.0", "async"), (None, "async"), ("nightly-5b8c30d6", "async")],
)  # fmt: skip
def test_versions_fall_into_classes(version, expected):
    """The engine's generations begin at 0.8 and 0.14."""
    assert engine_class(version) == expected


def test_a_constant_outside_its_bounds_is_refused():
    """A refit that went wrong is an error that names the constant."""
    values = dict(CONSTANTS) | {"dispatch.v1.step_s": 1.0}
    with pytest.raises(BadInput, match=r"dispatch\.v1\.step_s"):
        learned(Constants(values_by_name=values, digest="", source="fitted.yaml"), "v1")


def test_an_empty_fingerprint_is_the_roofline():
    """A fingerprint in which everything failed predicts what none predicts."""
    model, gpu = find_model("meta-llama/Llama-3.1-8B"), GPUS["mi300x"]
    configuration = Configuration(model=model.name, gpu=gpu.name)
    names = [op.name for op in ops(model, configuration)]
    empty = faked(model, gpu, configuration, fails=names)
    assert isinstance(empty, Fingerprint)
    assert (
        fitted(model, gpu, configuration, empty).token_s.tolist()
        == fitted(model, gpu, configuration, None).token_s.tolist()
    )
