"""The fake runner: times of a known formula."""

from __future__ import annotations

import pytest

from catalog.fingerprints import FingerprintKey
from catalog.gpus import load_gpus
from catalog.models import find_model
from planner.ops import ops
from planner.roofline import op_time
from planner.strategies import Configuration
from probes.fake import FakeRunner
from probes.runners import Runner

KEY = FingerprintKey(model="", model_digest="", gpu="", tp=1, quantization="bf16", kv_dtype="bf16", engine_version="",
                     runner="fake")  # fmt: skip


def test_times_are_bound_over_efficiency_plus_launch():
    """Every point is launch + bound / efficiency, and what is to fail has a reason instead."""
    model, gpu = find_model("Qwen/Qwen3-8B"), load_gpus()["h100_sxm"]
    listed = ops(model, Configuration(model=model.name, gpu=gpu.name))
    runner: Runner = FakeRunner(bound=op_time, efficiency=0.5, launch_s=1e-5, fails=("act",))
    found = runner.run(KEY, listed, gpu=gpu)
    assert found.failures == {"act": "the fake was told to fail"}
    assert set(found.points["op"]) == {op.name for op in listed} - {"act"}
    qkv = next(op for op in listed if op.name == "qkv")
    row = found.points.row(0, named=True)
    assert row["op"] == "qkv"
    assert row["time_s"] == pytest.approx(1e-5 + 2 * float(op_time(qkv, gpu, row["x"], row["y"])))
