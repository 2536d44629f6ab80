"""`TorchRunner` with a driver that is a script of ours; with torch itself where it is there."""

from pathlib import Path

import numpy as np
import pytest

from catalog.fingerprints import FingerprintKey, Op
from catalog.gpus import find_gpu
from probes import torch
from probes.grid import Grid
from probes.torch import TorchRunner, sound

GPU = find_gpu("cpu")
KEY = FingerprintKey(
    model="tiny", model_digest="", gpu="cpu", tp=1, quantization="bf16", kv_dtype="bf16", engine_version="2",
    runner="torch",
)  # fmt: skip
GEMM = Op(name="qkv", kind="gemm", count=8, dtype="bf16", shape=(("n", 64), ("k", 32)))
SIZES = Grid(tokens=(1, 8, 64), sequences=(1,), decode=((1, 16), (4, 64)), prefill=((16, 0),))
TOKENS = [(m, 0) for m in SIZES.tokens]


@pytest.fixture
def driven(monkeypatch, tmp_path):
    """Put a script in the driver's place; it finds the request as `request`, and `say` prints an object."""

    def place(body, **options):
        head = (
            "import json, os, sys\nrequest = json.load(sys.stdin)\nsay = lambda r: print(json.dumps(r), flush=True)\n"
        )
        loop = (
            "for op in request['ops']:\n  for x, y in op['points']:\n    point = {'op': op['name'], 'x': x, 'y': y}\n"
        )
        begun = "    say({'begun': point})\n"
        script = tmp_path / "driver.py"
        script.write_text(head + loop + begun + "".join(f"    {line}\n" for line in body.splitlines()))
        monkeypatch.setattr(torch, "_DRIVER", script)
        return TorchRunner(device="cpu", sizes=SIZES, deadline_s=20.0, **options)

    return place


GOOD = "say(point | {'time_s': 1e-3 * x, 'spread': 0.1})"


def test_every_size_comes_back_as_it_was_timed(driven):
    """What the driver measured stands in the fingerprint, with the operator's count and shape."""
    found = driven(GOOD).run(KEY, [GEMM], gpu=GPU)
    rows = found.points.select("op", "count", "shape", "x", "time_s").rows()
    assert rows == [("qkv", 8, "k=32,n=64", float(m), pytest.approx(1e-3 * m)) for m in SIZES.tokens]
    assert not found.failures


def test_a_crash_costs_the_point_that_it_met(driven):
    """A driver that dies at one size is started again for the others, and the size is a failure with its reason."""
    found = driven(f"if x == 8: os.abort()\n{GOOD}").run(KEY, [GEMM], gpu=GPU)
    assert found.points["x"].to_list() == [1.0, 64.0]
    assert "crashed" in found.failures["qkv(8, 0)"]


def test_out_of_memory_is_a_fact_of_the_point(driven):
    """A size that runs out of memory is recorded, the rest is measured."""
    body = f"if x == 64: say(point | {{'failure': 'out of memory: 1 GiB'}}); continue\n{GOOD}"
    found = driven(body).run(KEY, [GEMM], gpu=GPU)
    assert found.points["x"].to_list() == [1.0, 8.0]
    assert found.failures == {"qkv(64, 0)": "out of memory: 1 GiB"}


def test_a_hang_ends_at_the_deadline(driven):
    """A driver that hangs is killed, and what it measured before counts."""
    runner = driven(f"import time\nif x == 64: time.sleep(60)\n{GOOD}")
    found = TorchRunner(device="cpu", sizes=SIZES, deadline_s=1.0).run(KEY, [GEMM], gpu=GPU)
    assert runner.deadline_s > 1.0
    assert found.points["x"].to_list() == [1.0, 8.0]
    assert "hung" in found.failures["qkv(64, 0)"]


def test_a_driver_that_never_starts_is_asked_once(driven):
    """Where nothing had begun, a second start would end the same way: the operator fails with what was said."""
    runner = driven(GOOD)
    Path(torch._DRIVER).write_text("import sys; sys.exit('no torch here')")
    found = runner.run(KEY, [GEMM], gpu=GPU)
    assert found.points.is_empty()
    assert "no torch here" in found.failures["qkv"]


def test_known_rows_are_not_measured_again(driven):
    """A probe that goes on asks for what is missing alone, and hands over each row as it comes."""
    known = [{"op": "qkv", "x": 1, "y": 0, "time_s": 5e-3, "spread": 0.0}]
    heard = []
    found = driven(GOOD).run(KEY, [GEMM], gpu=GPU, known=known, on_row=heard.append)
    assert [(row["x"], row["y"]) for row in heard] == TOKENS[1:]
    assert found.points["time_s"].to_list() == pytest.approx([5e-3, 8e-3, 64e-3])


@pytest.mark.parametrize("text", ["float('nan')", "0.0", "-1.0", "float('inf')", "7200.0"])
def test_impossible_times_are_refused_with_the_reason(driven, text):
    """NaN, zero, negative, infinite or absurd times never enter a fingerprint."""
    found = driven(f"say(point | {{'time_s': {text} if x == 8 else 1e-3, 'spread': 0.0}})").run(KEY, [GEMM], gpu=GPU)
    assert found.points["x"].to_list() == [1.0, 64.0]
    assert found.failures["qkv(8, 0)"].startswith("refused")


def test_what_is_faster_than_its_roofline_is_refused():
    """A time below the bound is refused, one at it is kept; without a bound nothing is."""
    rows = [{"op": "qkv", "x": 8, "y": 0, "time_s": t, "spread": 0.0} for t in (0.5e-6, 1e-6)]
    kept, wrong = sound(GEMM, rows, gpu=GPU, bound=lambda *_: np.array(1e-6))
    assert [row["time_s"] for row in kept] == [1e-6]
    assert "faster than its roofline" in wrong[0][1]
    assert len(sound(GEMM, rows, gpu=GPU, bound=None)[0]) == 2


def test_a_collective_of_one_rank_is_said_to_be_missing(driven):
    """An all-reduce of one rank has no time: it is a failure, not a zero."""
    reduce = Op(name="reduce", kind="all_reduce", count=2, dtype="", shape=(("elements", 64),))
    found = driven(GOOD).run(KEY, [GEMM, reduce], gpu=GPU)
    assert found.failures == {"reduce": "needs more than one rank"}
