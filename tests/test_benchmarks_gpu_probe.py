"""Laws of the comparison of a probe with the tables: equal where the probe is the table, off where it is off."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from benchmarks.gpu_probe import compare, headline, report
from catalog.fingerprints import Fingerprint, FingerprintKey
from catalog.gpus import find_gpu, load_gpus
from catalog.models import find_model
from planner.ops import ops
from planner.roofline import op_time
from planner.strategies import Configuration
from probes.reference import ReferenceRunner

GPU = find_gpu("h200_sxm")


@pytest.fixture(scope="module")
def table() -> tuple[Fingerprint, ReferenceRunner]:
    """The tables' own fingerprint of a model."""
    model = find_model("meta-llama/Llama-3.1-8B")
    runner = ReferenceRunner(bound=op_time, gpus=load_gpus())
    key = FingerprintKey(
        model=model.name, model_digest=model.digest, gpu=GPU.name, tp=1, quantization="bf16", kv_dtype="bf16",
        engine_version="2.13", runner="torch",
    )  # fmt: skip
    found = runner.run(key, ops(model, Configuration(model=model.name, gpu=GPU.name)), gpu=GPU)
    return replace(found, points=found.points.filter(pl.col("kind").is_in(["gemm", "attention_decode"]))), runner


def test_the_tables_agree_with_themselves(table) -> None:
    """A probe that measured what the tables hold is off by nothing that matters, at 50 points and more."""
    rows = compare(table[0], GPU, table[1])
    assert len(rows) >= 50
    assert headline(rows)["median_error"] < 0.01


def test_a_slower_probe_is_seen(table) -> None:
    """Times 30 % longer show as 30 %, by kind too; the page names the command that made it."""
    slow = replace(table[0], points=table[0].points.with_columns(time_s=pl.col("time_s") * 1.3))
    rows = compare(slow, GPU, table[1])
    figures = headline(rows)
    assert figures["median_error"] == pytest.approx(0.3, abs=0.02)
    assert figures["median_error_gemm"] == pytest.approx(0.3, abs=0.02)
    assert figures["median_error_moe"] is None
    text = report(GPU, rows, figures)
    assert "gpu_probe --gpu h200_sxm --write" in text
    assert len(text.splitlines()) > len(rows)
