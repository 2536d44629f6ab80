"""`flows.replay`: request logs on engines that are read from their recorded settings."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from catalog.errors import BadInput
from catalog.store import Store
from flows.engines import read_engine
from flows.imports import import_fingerprints
from flows.replay import SCHEMA, replay_file

SHARED = Path(__file__).parents[1] / "../shared/data"
LOG = SHARED / "e2e/llama8b_rtx4090_requests"
FINGERPRINTS = SHARED / "fingerprints/llmservingsim"

ENGINE = {
    "model": "meta-llama/Llama-3.1-8B",
    "gpu": "H100 SXM",
    "vllm_version": "0.19.0",
    "engine_kwargs": {"max_model_len": 4096, "max_num_seqs": 8, "max_num_batched_tokens": 2048, "dtype": "bfloat16"},
}
ROWS = {"id": ["a", "b", "c"], "arrival_s": [0.0, 0.5, 0.5], "input_toks": [100, 200, 300], "output_toks": [20, 1, 30]}


def engine_file(folder: Path, **changes) -> Path:
    """Write engine.json."""
    path = folder / "engine.json"
    path.write_text(json.dumps(ENGINE | changes))
    return path


def log_file(folder: Path, **changes) -> Path:
    """Write the log."""
    path = folder / "in.csv"
    pl.DataFrame(ROWS | changes, strict=False).write_csv(path)
    return path


def test_a_small_log_is_replayed(tmp_path):
    """One row per request under its id; an answer of one token has no TPOT; end to end adds up from its parts."""
    found = replay_file(engine_file(tmp_path), log_file(tmp_path), tmp_path / "deep" / "out.parquet")
    frame = pl.read_parquet(tmp_path / "deep" / "out.parquet")
    assert frame.schema == SCHEMA
    assert frame["id"].to_list() == ["a", "b", "c"]
    assert frame["tpot_ms"].is_null().to_list() == [False, True, False]
    first = frame.row(0, named=True)
    assert first["e2e_ms"] == pytest.approx(first["ttft_ms"] + 19 * first["tpot_ms"])
    assert found.source == "reference"
    assert any("KV tokens" in note for note in found.notes)


def test_the_answer_is_the_same_bytes_each_time(tmp_path):
    """Same log, same engine, same file."""
    for name in ("a", "b"):
        replay_file(engine_file(tmp_path), log_file(tmp_path), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_prompts_beyond_max_model_len_are_refused_as_vllm_does(tmp_path):
    """Such a request gets nulls and is counted; the others are served."""
    log = log_file(tmp_path, input_toks=[100, 5000, 300])
    found = replay_file(engine_file(tmp_path), log, tmp_path / "out.parquet")
    assert found.reasons == {"the prompt is longer than max_model_len 4096": 1}
    assert found.frame["ttft_ms"].is_null().to_list() == [False, True, False]
    assert found.frame["reason"].is_null().to_list() == [True, False, True]


def test_what_vllm_refuses_is_told_and_what_it_cuts_is_cut(tmp_path):
    """No output, or a prompt that fills max_model_len, is refused; a longer answer ends at max_model_len."""
    log = log_file(tmp_path, input_toks=[4000, 4096, 10], output_toks=[500, 5, 0])
    found = replay_file(engine_file(tmp_path), log, tmp_path / "out.parquet")
    assert (found.refused, found.cut) == (2, 1)
    served, full, silent = found.frame.rows(named=True)
    assert served["reason"] is None
    assert served["e2e_ms"] == pytest.approx(served["ttft_ms"] + 95 * served["tpot_ms"])
    assert "fills max_model_len" in full["reason"]
    assert "the client left" in silent["reason"]
    assert full["e2e_ms"] is silent["queue_ms"] is None
    summary = found.summary()
    assert (summary["refused"], sum(summary["reasons"].values()), summary["cut"]) == (2, 2, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arrival_s": [0.0, 2.0, 1.0]}, "in.csv:4"),
        ({"arrival_s": [0.0, -1.0, 1.0]}, "in.csv:3"),
        ({"arrival_s": [0.0, float("nan"), 1.0]}, "in.csv:3"),
        ({"input_toks": [100, -5, 3]}, "in.csv:3"),
        ({"output_toks": [1, 2, -1]}, "in.csv:4"),
        ({"output_toks": [1, None, 5]}, "in.csv:3"),
        ({"id": ["a", "b", "a"]}, "in.csv:4"),
        ({name: [] for name in ROWS}, "no requests"),
    ],
)
def test_bad_rows_are_refused_by_line(tmp_path, changes, said):
    """Unsorted, negative, NaN, missing and doubled rows, and an empty log, name the line; nothing is written."""
    with pytest.raises(BadInput, match=said):
        replay_file(engine_file(tmp_path), log_file(tmp_path, **changes), tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gpu": "abacus"}, "abacus"),
        ({"gpu": None}, "gpu"),
        ({"model": "acme/unheard-of"}, "unheard-of"),
        ({"engine_kwargs": {"max_num_seqs": 8}}, "max_model_len"),
        ({"engine_kwargs": {"max_model_len": -1}}, "max_model_len"),
        ({"engine_kwargs": {"max_model_len": 4096, "max_num_seqs": float("nan")}}, "max_num_seqs"),
        ({"engine_kwargs": {"max_model_len": 4096, "max_num_seqs": "many"}}, "max_num_seqs"),
        ({"engine_kwargs": {"max_model_len": 10**30}}, "max_model_len"),
        ({"engine_kwargs": {"max_model_len": 4096, "dtype": "float3"}}, "float3"),
        ({"kv_cache": {"num_gpu_blocks": 3}}, "max_model_len"),
    ],
)
def test_impossible_settings_are_refused_by_name(tmp_path, changes, said):
    """Unknown names, missing and impossible settings are one clear error."""
    with pytest.raises(BadInput, match=said):
        replay_file(engine_file(tmp_path, **changes), log_file(tmp_path), tmp_path / "out.parquet")


def test_stated_settings_win_over_defaults(tmp_path):
    """Blocks, prefix cache, scheduling and the GPU's name are read where they stand."""
    path = engine_file(
        tmp_path, gpu=None, hardware={"device_name": "NVIDIA H100 80GB HBM3"},
        kv_cache={"num_gpu_blocks": 1000, "block_size": 32, "enable_prefix_caching": False},
        resolved_config={"scheduler_config": {"async_scheduling": False}, "model_config": {"max_model_len": 7}},
    )  # fmt: skip
    served = read_engine(path)
    assert (served.gpu.name, served.kv_tokens, served.block_size) == ("h100_sxm", 32_000, 32)
    assert (served.configuration.max_model_len, served.configuration.enable_prefix_caching) == (4096, False)
    assert (served.engine_class, served.rules.reserve_full_isl) == ("v1", True)
    assert served.assumed == ()


def test_a_measured_log_is_reproduced(tmp_path):
    """300 requests of a real vLLM 0.19 on an RTX 4090, on fingerprints of it: mean TPOT, TTFT and makespan."""
    if not LOG.is_dir():
        pytest.skip("the measured requests ../shared/data/e2e/llama8b_rtx4090_requests are absent")
    store = Store(tmp_path / "catalog")
    import_fingerprints(FINGERPRINTS / "RTX4090", store)
    found = replay_file(LOG / "engine.json", LOG / "inputs.parquet", tmp_path / "out.parquet", store=store)
    assert (found.source, found.refused) == ("measured", 0)
    truth = pl.read_parquet(LOG / "truth.parquet").join(pl.read_parquet(LOG / "inputs.parquet"), on="id")
    both = truth.join(found.frame, on="id", suffix="_predicted")
    assert both.height == 300
    makespan_s = float((truth["arrival_s"] + truth["e2e_ms"] / 1e3).max())
    errors = {name: both[f"{name}_predicted"].mean() / both[name].mean() - 1 for name in ("tpot_ms", "ttft_ms")}
    assert abs(errors["tpot_ms"]) <= 0.05
    assert abs(errors["ttft_ms"]) <= 0.15
    assert abs(found.makespan_s / makespan_s - 1) <= 0.05
