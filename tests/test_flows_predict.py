"""`flows.predict`: files of conditions, lenient names, and rows refused one by one."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from catalog.errors import BadInput
from flows.predict import Predicted, predict_file
from planner.conditions import METRICS

DATA = Path(__file__).parents[1] / "../shared/data/e2e"

GOOD = {
    "id": "good", "model": "meta-llama/Llama-3.1-8B-Instruct", "gpu": "h100_sxm", "precision": "bf16", "tp": 1,
    "isl": 512.0, "osl": 64.0, "load_kind": "closed_loop_fixed", "concurrency": 4.0, "max_num_seqs": 4,
    "engine": "vllm", "engine_version": "0.19.0",
}  # fmt: skip


@pytest.fixture(scope="module")
def predictors() -> Predicted:
    """Predictors of the module's rows, fitted once."""
    return Predicted()


def predicted(folder: Path, predictors: Predicted, *rows) -> pl.DataFrame:
    """Write rows, predict the file, read what was written."""
    pl.DataFrame([GOOD | changes for changes in rows], infer_schema_length=None).write_parquet(folder / "in.parquet")
    returned = predict_file(folder / "in.parquet", folder / "deep" / "out.parquet", predictors=predictors)
    written = pl.read_parquet(folder / "deep" / "out.parquet")
    assert returned.equals(written)
    return written


def test_every_column_is_there_and_a_good_row_has_its_metrics(tmp_path, predictors):
    """id, each metric with its bounds, source, assumed, reason; batch latency alone is no metric of a closed loop."""
    found = predicted(tmp_path, predictors, {})
    ends = [f"{name}{end}" for name in METRICS for end in ("", "_lo", "_hi")]
    assert found.columns == ["id", *ends, "source", "assumed", "reason"]
    row = found.row(0, named=True)
    assert {name for name in METRICS if row[name] is None} == {"batch_latency_s"}
    assert row["source"] == "reference"
    assert row["reason"] is None


def test_names_are_read_leniently(tmp_path, predictors):
    """`H100 SXM` and `Llama-3.1-8B-Instruct` are the same GPU and model as their proper names."""
    found = predicted(tmp_path, predictors, {}, {"gpu": "H100 SXM", "model": "llama-3.1-8b-instruct"})
    assert found["tpot_ms"][0] == found["tpot_ms"][1]


def test_bad_rows_are_refused_one_by_one(tmp_path, predictors):
    """Unknown names, NaN, negative and absurd numbers, another engine, a model too large: a reason each, no crash."""
    bad = {
        "unknown GPU": {"gpu": "h1000"},
        "unknown model": {"model": "acme/unheard-of-7b"},
        "isl: nan": {"isl": float("nan")},
        "isl: -1": {"isl": -1.0},
        "osl: 1e+15": {"osl": 1e15},
        "concurrency: is missing": {"concurrency": None},
        "engine: 'trtllm'": {"engine": "trtllm"},
        "unknown load_kind": {"load_kind": "sometimes"},
        "model: is missing": {"model": None},
        "does not fit": {"model": "meta-llama/Llama-3.1-405B", "gpu": "l4"},
        "does not fit the GPU's memory: one request": {"isl": 5e6},
    }
    rows = [changes | {"id": reason} for reason, changes in bad.items()]
    found = predicted(tmp_path, predictors, {}, *rows, {"id": "last"})
    assert found["id"].to_list() == ["good", *bad, "last"]
    assert found["tpot_ms"].is_null().to_list() == [False, *[True] * len(bad), False]
    for reason, said in zip(bad, found["reason"][1:-1], strict=True):
        assert reason in said


def test_a_run_that_took_place_is_given_the_memory_it_needs(tmp_path, predictors):
    """Llama-3.1-70B fp8 leaves too little for 30,000 tokens on an 80 GB GPU at the default: more is assumed, aloud."""
    large = {"model": "meta-llama/Llama-3.1-70B", "precision": "fp8", "isl": 3e4, "concurrency": 1.0}
    found = predicted(tmp_path, predictors, large)
    assert found["tpot_ms"][0] > 0
    assert "gpu_memory_utilization 0.9" in found["assumed"][0]


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda _: None, "no such file"),
        (lambda path: path.write_bytes(b"no parquet"), "cannot be read"),
        (lambda path: pl.DataFrame({"id": ["a"]}).write_parquet(path), "lacks the columns model, gpu"),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path, write, said):
    """A missing, unreadable or columnless file is refused as a whole, and nothing is written."""
    write(tmp_path / "in.parquet")
    with pytest.raises(BadInput, match=said):
        predict_file(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_csv_is_read_too(tmp_path, predictors):
    """The same rows as CSV give the same predictions."""
    pl.DataFrame([GOOD]).write_csv(tmp_path / "in.csv")
    found = predict_file(tmp_path / "in.csv", tmp_path / "out.parquet", predictors=predictors)
    assert found.equals(predicted(tmp_path, predictors, {}))


def test_predictions_are_the_same_bytes_each_time(tmp_path, predictors):
    """Same input, same file."""
    pl.DataFrame([GOOD]).write_parquet(tmp_path / "in.parquet")
    for name in ("a", "b"):
        predict_file(tmp_path / "in.parquet", tmp_path / name, predictors=predictors if name == "a" else None)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


#: Set -> (metric, greatest median error): guards against a regression, the figures proper are benchmarks/accuracy.md's.
SETS = {
    "inferencex_h200": {"tpot_ms": 0.15, "ttft_ms": 0.25},
    "argonne_a100": {"batch_latency_s": 0.2},
    "mlenergy_h100": {"itl_ms": 0.2, "power_w": 0.1},
}


@pytest.mark.parametrize("name", sorted(SETS))
def test_measured_sets_are_predicted_near_what_was_measured(tmp_path, predictors, name):
    """Every run of the calibration sets is predicted, within the stated median error."""
    folder = DATA / name
    if not folder.exists():
        pytest.skip(f"the runs ../shared/data/e2e/{name} are absent")
    found = predict_file(folder / "inputs.parquet", tmp_path / "out.parquet", predictors=predictors)
    assert found["reason"].null_count() == found.height
    both = pl.read_parquet(folder / "truth.parquet").join(found, on="id", suffix="_predicted")
    for metric, most in SETS[name].items():
        assert (both[f"{metric}_predicted"] / both[metric] - 1).abs().median() < most
