"""Fit from a running engine's steps: what was measured comes out as it was measured."""

import numpy as np
import polars as pl
import pytest

from catalog.fingerprints import POINTS_SCHEMA, Fingerprint, FingerprintKey
from catalog.fitted import load_constants
from planner.fit.blocks import fit_blocks, has_blocks
from planner.fit.learned import learned
from planner.predict import step_time
from planner.strategies import Configuration

KEY = FingerprintKey(
    model="tiny", model_digest="", gpu="cpu", tp=1, quantization="bf16", kv_dtype="bf16", engine_version="0.32.0",
    runner="vllm",
)  # fmt: skip
CONFIGURATION = Configuration(model="tiny", gpu="cpu")


def _decode(n, c):
    return 1e-3 + 8 * (4e-4 + 2e-5 * n + 1e-8 * n * c)


def _prefill(s, p):
    return 1e-3 + 8 * (4e-4 + 9e-6 * s + 1e-9 * s * p)


def fingerprint(overhead=()):
    """Steps of an engine of eight blocks, by formula."""
    rows = []
    for kind, time, xs, ys in (
        ("block_decode", _decode, (1, 4, 16, 32), (64, 512, 1536)),
        ("block_prefill", _prefill, (16, 64, 256, 1024), (0,)),
    ):
        for op, count, part in (
            ("base", 1, lambda *_: 1e-3),
            ("block", 8, lambda x, y, t=time: (t(x, y) - 1e-3) / 8),
        ):
            rows += [(op, kind, "", "", count, float(x), float(y), part(x, y), 0.1, "measured") for x in xs for y in ys]
    rows += [(name, "overhead", "", "", 1, 1.0, 0.0, seconds, 0.1, "measured") for name, seconds in overhead]
    return Fingerprint(key=KEY, points=pl.DataFrame(rows, schema=POINTS_SCHEMA, orient="row"))


@pytest.fixture(scope="module")
def constants():
    """The shipped constants of the newest engine class."""
    return learned(load_constants(), "async")


@pytest.mark.parametrize(("n", "c"), [(1, 64), (4, 512), (16, 512), (32, 1536)])
def test_a_measured_decode_step_is_predicted_as_measured(constants, n, c):
    """A step of decodes at a measured size takes the measured time, within the grid's interpolation."""
    predictor = fit_blocks(fingerprint(), CONFIGURATION, constants)
    assert step_time(predictor, decodes=n, context=c) == pytest.approx(_decode(n, c), rel=0.03)


@pytest.mark.parametrize("s", [64, 256, 1024, 2048])
def test_a_prefill_step_is_predicted_as_measured_and_beyond(constants, s):
    """A chunk takes its measured time, and the last slope goes on beyond the largest measured one."""
    predictor = fit_blocks(fingerprint(), CONFIGURATION, constants)
    assert step_time(predictor, chunks=1, chunk=s, prior=0) == pytest.approx(_prefill(s, 0), rel=0.03)


def test_a_mixed_step_pays_the_base_once(constants):
    """A step of decodes and a chunk takes less than the two steps, and more than either."""
    predictor = fit_blocks(fingerprint(), CONFIGURATION, constants)
    mixed = step_time(predictor, decodes=16, context=512, chunks=1, chunk=256, prior=0)
    assert max(_decode(16, 512), _prefill(256, 0)) < mixed < _decode(16, 512) + _prefill(256, 0)


def test_a_served_run_replaces_the_fitted_overheads(constants):
    """Measured overheads of step, request and token stand in the predictor; without them the constants do."""
    served = fit_blocks(
        fingerprint((("step", 2e-3), ("request", 1e-2), ("output_token", 1e-4))), CONFIGURATION, constants
    )
    assert (served.decode_overhead_s, served.request_s, served.output_token_s) == (2e-3, 1e-2, 1e-4)
    assert fit_blocks(fingerprint(), CONFIGURATION, constants).request_s == constants.request_s


def test_only_engine_fingerprints_have_blocks():
    """A fingerprint without block points is fitted operator by operator."""
    empty = Fingerprint(key=KEY, points=POINTS_SCHEMA.to_frame())
    assert has_blocks(fingerprint())
    assert not has_blocks(empty)
    assert not has_blocks(None)


def test_tables_rise(constants):
    """More tokens, sequences or context never take less time."""
    predictor = fit_blocks(fingerprint(), CONFIGURATION, constants)
    assert (np.diff(predictor.token_s) >= 0).all()
    assert (np.diff(predictor.decode_s, axis=1) >= -1e-12).all()
