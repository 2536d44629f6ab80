"""The driver with torch's real kernels on this machine's CPU, where an interpreter with torch is there."""

import os
import subprocess
import sys

import pytest

from catalog.fingerprints import FingerprintKey, Op
from catalog.gpus import find_gpu
from probes.grid import Grid
from probes.torch import TorchRunner

#: An interpreter with torch: this one, or another that the variable names.
PYTHON = os.environ.get("FLEETPLAN_TORCH_PYTHON", sys.executable)
SIZES = Grid(tokens=(1, 64), sequences=(1, 8), decode=((1, 16), (4, 64)), prefill=((16, 0), (64, 64)))
OPS = {
    "gemm": {"n": 64, "k": 32},
    "elementwise": {"read": 64, "write": 64},
    "lm_head": {"n": 128, "k": 32},
    "attention_prefill": {"heads": 4, "kv_heads": 2, "head_dim": 16},
    "attention_decode": {"heads": 4, "kv_heads": 2, "head_dim": 16},
    "moe": {"hidden": 32, "inter": 64, "experts": 4, "topk": 2, "tp": 1, "ep": 1},
}
pytestmark = pytest.mark.torch


def _has_torch():
    return subprocess.run([PYTHON, "-c", "import torch"], capture_output=True, check=False).returncode == 0


def _measured(ops, *, tp=1):
    key = FingerprintKey(
        model="tiny", model_digest="", gpu="cpu", tp=tp, quantization="bf16", kv_dtype="bf16", engine_version="2",
        runner="torch",
    )  # fmt: skip
    return TorchRunner(device="cpu", python=PYTHON, sizes=SIZES, repeats=3).run(key, ops, gpu=find_gpu("cpu"))


def _op(kind, shape):
    return Op(name=kind, kind=kind, count=2, dtype="bf16", shape=tuple(sorted(shape.items())))


@pytest.fixture(scope="module", autouse=True)
def _with_torch():
    if not _has_torch():
        pytest.skip("no torch: pip install 'fleetplan[probe]', or FLEETPLAN_TORCH_PYTHON")


@pytest.mark.parametrize("kind", OPS)
def test_real_kernels_are_timed_at_every_size(kind):
    """Every kind of operator runs on a CPU at every size of the grid, and takes more than no time."""
    found = _measured([_op(kind, OPS[kind])])
    assert found.failures == {}
    assert found.points.height == len(SIZES.points(kind))
    assert found.points["time_s"].min() > 0


def test_two_ranks_reduce_together():
    """An all-reduce of two ranks is timed over gloo."""
    found = _measured([_op("all_reduce", {"elements": 64})], tp=2)
    assert found.failures == {}
    assert found.points["time_s"].min() > 0


def test_what_torch_cannot_do_is_a_failure_with_its_reason():
    """Experts in a format that torch has no kernel for are said to be missing."""
    op = Op(name="moe", kind="moe", count=2, dtype="mxfp4", shape=tuple(sorted(OPS["moe"].items())))
    found = _measured([op])
    assert found.points.is_empty()
    assert all("mxfp4" in why for why in found.failures.values())
