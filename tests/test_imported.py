"""Fingerprints in the layout of LLMServingSim's profiler."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from catalog.errors import BadInput
from catalog.fitted import load_constants
from catalog.gpus import find_gpu, load_gpus
from catalog.models import find_model
from planner.fit import fit
from planner.ops import ops
from planner.roofline import op_time
from planner.strategies import Configuration
from probes.imported import completed, read_fingerprints
from probes.reference import ReferenceRunner

PUBLISHED = Path(__file__).parents[1] / "../shared/data/fingerprints/llmservingsim"


def written(folder, *, meta=None, dense="layer,tokens,time_us\nqkv_proj,1,10.0\nqkv_proj,64,12.0\n", attention=None):
    """A profile of Llama-3.1-8B on two RTX 4090."""
    variant = folder / "RTX4090" / "meta-llama" / "Llama-3.1-8B" / "bf16"
    (variant / "tp2").mkdir(parents=True)
    (variant / "meta.yaml").write_text(
        meta or "{model: meta-llama/Llama-3.1-8B, gpu: NVIDIA GeForce RTX 4090, variant: bf16, vllm_version: 0.19.0}"
    )
    (variant / "tp2" / "dense.csv").write_text(dense)
    (variant / "tp2" / "attention.csv").write_text(
        attention
        or "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n"
        "0,0,8,1024,20\n0,0,16,1024,30\n64,0,0,0,15\n64,512,0,0,18\n64,0,8,1024,40\n"
    )
    return folder


def test_layers_become_operators_of_the_planner(tmp_path):
    """Sizes per rank are the planner's, times seconds, and rows that mix prefill and decode are left out."""
    (found,) = read_fingerprints(written(tmp_path))
    assert (found.key.gpu, found.key.tp, found.key.engine_version) == ("rtx4090", 2, "0.19.0")
    model = find_model("meta-llama/Llama-3.1-8B")
    expected = {op.name: op for op in ops(model, Configuration(model=model.name, gpu="rtx4090", tp=2))}
    rows = {row["op"]: row for row in found.points.iter_rows(named=True)}
    for name in ("qkv", "attention_decode", "attention_prefill"):
        shape = ",".join(f"{key}={size}" for key, size in sorted(expected[name].shape))
        assert (rows[name]["shape"], rows[name]["count"], rows[name]["kind"]) == (
            shape, expected[name].count, expected[name].kind)  # fmt: skip
    qkv = found.points.filter(pl.col("op") == "qkv")
    assert qkv.select("x", "time_s").rows() == [(1.0, pytest.approx(10e-6)), (64.0, pytest.approx(12e-6))]
    assert found.points.filter(pl.col("op") == "attention_decode").height == 2
    assert found.points.filter(pl.col("op") == "attention_prefill")["y"].to_list() == [0.0, 512.0]
    assert "all_reduce" in found.failures


def test_impossible_rows_are_refused_with_a_reason(tmp_path):
    """NaN, zero and negative times are left out and counted, the rest is read."""
    dense = "layer,tokens,time_us\nqkv_proj,1,nan\nqkv_proj,2,-1\nqkv_proj,4,0\nqkv_proj,8,9\n"
    (found,) = read_fingerprints(written(tmp_path, dense=dense))
    assert found.points.filter(pl.col("op") == "qkv")["x"].to_list() == [8.0]
    reasons = {reason for name, reason in found.failures.items() if name.startswith("dense.csv")}
    assert reasons == {"the time is missing, NaN or infinite", "the time is zero or negative"}


@pytest.mark.parametrize(
    "options",
    [
        {"meta": "- a list"},
        {"meta": "{model: [unclosed"},
        {"meta": "{model: no/such-model-at-all, gpu: RTX 4090, variant: bf16}"},
        {"meta": "{model: meta-llama/Llama-3.1-8B, gpu: Abacus 3000, variant: bf16}"},
        {"meta": "{model: meta-llama/Llama-3.1-8B, gpu: RTX 4090, variant: int3}"},
        {"dense": "layer,tokens\nqkv_proj,1\n"},
        {"dense": "layer,tokens,time_us\nqkv_proj,1,fast\n"},
    ],
)
def test_what_is_no_profile_is_bad_input(tmp_path, options):
    """Broken YAML, unknown names and tables without times end in one clear error."""
    with pytest.raises(BadInput):
        read_fingerprints(written(tmp_path, **options))


def test_an_empty_folder_is_bad_input(tmp_path):
    """A folder without profiles says so."""
    with pytest.raises(BadInput, match=r"no meta\.yaml"):
        read_fingerprints(tmp_path)


def test_what_is_missing_is_filled_from_another(tmp_path):
    """Operators that the import lacks come from the tables; those that it has stay."""
    (mine,) = read_fingerprints(written(tmp_path))
    model, gpus = find_model(mine.key.model), load_gpus()
    listed = ops(model, Configuration(model=model.name, gpu="rtx4090", tp=2))
    other = ReferenceRunner(bound=op_time, gpus=gpus).run(mine.key, listed, gpu=gpus["rtx4090"])
    both = completed(mine, other)
    assert set(both.points["op"]) == {op.name for op in listed}
    assert both.points.filter(pl.col("op") == "qkv").height == 2
    assert "all_reduce" not in both.failures


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published profiles are absent")
def test_published_profiles_make_predictors():
    """Each published profile is read without a refused row, and fit on its own points."""
    found = read_fingerprints(PUBLISHED)
    assert len(found) == 7
    for fingerprint in found:
        key = fingerprint.key
        assert not [name for name in fingerprint.failures if "rows" in name]
        model, gpu = find_model(key.model), find_gpu(key.gpu)
        configuration = Configuration(model=model.name, gpu=gpu.name, tp=key.tp)
        predictor = fit(
            model, gpu, configuration, fingerprint=fingerprint, gpus=load_gpus(), constants=load_constants()
        )
        assert np.isfinite(predictor.decode_s).all()
        assert predictor.source == ("measured" if key.tp == 1 and model.moe is None else predictor.source)
