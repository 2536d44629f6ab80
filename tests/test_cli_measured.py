"""Commands on measurements: predict, replay, import-fingerprints and import-bench, from the command line on."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import polars as pl
import pytest

from catalog.store import Store
from flows.cli.main import main
from flows.imports import bench_runs

SHARED = Path(__file__).parents[1] / "../shared/data"
CONDITION = {
    "id": "one", "model": "meta-llama/Llama-3.1-8B-Instruct", "gpu": "h100_sxm", "precision": "bf16", "tp": 1,
    "isl": 512.0, "osl": 64.0, "load_kind": "closed_loop_fixed", "concurrency": 4.0, "max_num_seqs": 4,
    "engine": "vllm", "engine_version": "0.19.0",
}  # fmt: skip
SERVED = {
    "date": "20260101-000000", "model_id": "meta-llama/Llama-3.1-8B-Instruct", "num_prompts": 40, "request_rate": "inf",
    "max_concurrency": 4, "completed": 40, "failed": 0, "total_input_tokens": 40 * 512, "total_output_tokens": 40 * 64,
    "median_ttft_ms": 60.0, "median_tpot_ms": 9.0, "median_itl_ms": 8.9, "output_throughput": 380.0,
    "gpu": "H100 SXM", "tp": "1", "quantization": "bf16", "vllm_version": "0.19.0", "max_num_seqs": "4",
}  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command line in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fleetplan", *arguments])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def profile(folder: Path) -> Path:
    """A profile of Llama-3.1-8B on one H100, with one row that cannot be."""
    variant = folder / "H100" / "meta-llama" / "Llama-3.1-8B" / "bf16"
    (variant / "tp1").mkdir(parents=True)
    (variant / "meta.yaml").write_text("{model: Llama-3.1-8B, gpu: H100 SXM, variant: bf16, vllm_version: 0.19.0}")
    (variant / "tp1" / "dense.csv").write_text("layer,tokens,time_us\nqkv_proj,1,40\nqkv_proj,64,50\nqkv_proj,8,-1\n")
    return folder


def test_predict_writes_and_says_what_it_refused(run):
    """A sound row is predicted, a bad one keeps its id and a reason; the JSON says both."""
    rows = [CONDITION, CONDITION | {"id": "two", "gpu": "abacus"}]
    pl.DataFrame(rows).write_parquet("in.parquet")
    code, out, _ = run("predict", "--inputs", "in.parquet", "--out", "deep/out.parquet", "--json")
    said = json.loads(out)
    assert (code, said["rows"], said["predicted"], said["refused"][0]["id"]) == (0, 2, 1, "two")
    assert pl.read_parquet("deep/out.parquet")["tpot_ms"].is_null().to_list() == [False, True]


def test_fingerprints_are_imported_once(run, tmp_path):
    """What was read is printed, refused rows with their reason; a second import writes nothing; predictions use it."""
    folder = profile(tmp_path / "profiles")
    code, out, err = run("import-fingerprints", str(folder))
    assert code == 0
    assert "meta-llama/Llama-3.1-8B on h100_sxm tp1 bf16: 2 points (new)" in out
    assert "the time is zero or negative" in err
    before = sorted(path.name for path in Path("var").rglob("*"))
    again = json.loads(run("import-fingerprints", str(folder), "--json")[1])
    assert [each["new"] for each in again] == [False]
    assert sorted(path.name for path in Path("var").rglob("*")) == before

    pl.DataFrame([CONDITION]).write_parquet("in.parquet")
    run("predict", "--inputs", "in.parquet", "--out", "own.parquet")
    run("predict", "--inputs", "in.parquet", "--out", "tables.parquet", "--root", "elsewhere")
    own, tables = (pl.read_parquet(f"{name}.parquet")["tpot_ms"][0] for name in ("own", "tables"))
    assert own > tables  # the slow projection of the profile


@pytest.mark.parametrize("command", ["import-fingerprints", "import-bench"])
def test_what_is_not_there_is_bad_input(run, command):
    """A folder or file that does not exist ends with 2 and one line."""
    code, _, err = run(command, "nowhere")
    assert (code, err.count("\n")) == (2, 1)


def test_bench_results_correct_and_narrow_predictions(run):
    """A measured run moves the prediction of its condition towards it and narrows the interval; twice is once."""
    pl.DataFrame([CONDITION]).write_parquet("in.parquet")
    run("predict", "--inputs", "in.parquet", "--out", "before.parquet")
    before = pl.read_parquet("before.parquet").row(0, named=True)
    measured = before["tpot_ms"] * 1.08
    Path("served.json").write_text(json.dumps(SERVED | {"median_tpot_ms": measured, "median_itl_ms": measured}))
    assert run("import-bench", "served.json")[0] == 0
    assert json.loads(run("import-bench", "served.json", "--json")[1])["new"] == 0

    run("predict", "--inputs", "in.parquet", "--out", "after.parquet")
    after = pl.read_parquet("after.parquet").row(0, named=True)
    assert before["tpot_ms"] < after["tpot_ms"] < measured

    def width(row):
        return row["tpot_ms_hi"] / row["tpot_ms_lo"]

    assert width(after) < width(before)
    assert after["tpot_ms_lo"] < measured < after["tpot_ms_hi"]


def test_every_kind_of_result_is_read(run):
    """Plain, detailed and newline-delimited `serve`, `latency` and `throughput`; options win over metadata."""
    lengths = {"input_lens": [410, 512, 461] * 10, "output_lens": [52, 65, 58] * 10}
    totals = {f"total_{name}_tokens": sum(lengths[f"{name}_lens"]) for name in ("input", "output")}
    detail = SERVED | lengths | totals | {"completed": 30, "date": "2"}
    Path("lines.json").write_text(json.dumps(SERVED) + "\n" + json.dumps(detail) + "\n")
    Path("latency.json").write_text(json.dumps({"avg_latency": 2.0, "latencies": [1.9, 2.1, 2.0], "percentiles": {}}))
    Path("throughput.json").write_text(
        json.dumps({"elapsed_time": 9.0, "num_requests": 100, "total_num_tokens": 57_600, "tokens_per_second": 6400.0})
    )
    said = ["--gpu", "h200", "--model", "Llama-3.1-8B", "--isl", "512", "--osl", "64", "--batch-size", "8", "--tp", "1"]
    code, out, err = run("import-bench", "lines.json", "latency.json", "throughput.json", *said)
    assert (code, err) == (0, "")
    assert out.startswith("4 runs read, 4 of them new")
    found = {run_.row["load_kind"]: run_ for run_ in bench_runs(Store("var/catalog"))}
    assert set(found) == {"closed_loop_fixed", "closed_loop_random_range0.8", "static_batch", "rate_inf"}
    assert {run_.row["gpu"] for run_ in found.values()} == {"h200_sxm"}
    assert found["closed_loop_random_range0.8"].row["isl"] == pytest.approx(512, rel=0.01)
    assert found["static_batch"].measured == {"batch_latency_s": 2.0}
    assert found["closed_loop_fixed"].measured["tpot_ms"] == 9.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"median_tpot_ms": float("nan")}, "median_tpot_ms"),
        ({"median_ttft_ms": -1.0}, "median_ttft_ms"),
        ({"completed": 0}, "completed"),
        ({"failed": 30}, "failed"),
        ({"gpu": None}, "--gpu"),
        ({"gpu": "abacus"}, "abacus"),
        ({"tp": "many"}, "tp"),
        ({"request_rate": 3.0}, "request_rate"),
        ({"total_input_tokens": 1e30}, "isl"),
    ],
)
def test_impossible_results_are_refused_with_their_reason(run, changes, said):
    """A run that cannot be is refused with file and reason, the next line is read; alone it ends with 2."""
    Path("both.json").write_text(json.dumps(SERVED | changes) + "\n" + json.dumps(SERVED) + "\n")
    code, out, err = run("import-bench", "both.json")
    assert (code, out.startswith("1 runs read")) == (0, True)
    assert err.startswith("refused: both.json:1")
    assert said in err
    Path("alone.json").write_text(json.dumps(SERVED | changes))
    assert run("import-bench", "alone.json")[0] == 2


@pytest.mark.parametrize("text", ["", "no json", "[1, 2]", "{", "null"])
def test_what_is_no_result_is_refused(run, text):
    """Empty and broken files, and other JSON, end with 2 and no traceback; nothing is stored."""
    Path("bad.json").write_text(text)
    code, _, err = run("import-bench", "bad.json", "--gpu", "h100")
    assert code == 2
    assert "Traceback" not in err
    assert not bench_runs(Store("var/catalog"))


def test_replay_refuses_bad_rows_with_2(run):
    """An unsorted log ends with 2 and names the line."""
    Path("engine.json").write_text(json.dumps({"model": "Llama-3.1-8B", "gpu": "H100", "max_model_len": 4096}))
    Path("in.csv").write_text("id,arrival_s,input_toks,output_toks\na,1,10,10\nb,0,10,10\n")
    code, _, err = run("replay", "--engine", "engine.json", "--requests", "in.csv", "--out", "out.parquet")
    assert (code, "in.csv:3" in err) == (2, True)


def test_replay_says_what_vllm_refuses(run):
    """A request without output is counted with its reason, the others are served; the command ends with 0."""
    Path("engine.json").write_text(json.dumps({"model": "Llama-3.1-8B", "gpu": "H100", "max_model_len": 4096}))
    Path("in.csv").write_text("id,arrival_s,input_toks,output_toks\na,0,10,10\nb,1,10,0\n")
    code, out, err = run("replay", "--engine", "engine.json", "--requests", "in.csv", "--out", "out.parquet")
    assert code == 0
    assert "refused as vLLM does: 1 of 2 requests: no output tokens" in err
    assert re.search(r"^refused +1$", out, re.MULTILINE)


def test_the_measured_requests_through_the_command_line(run):
    """The import and the replay of an RTX 4090's 300 requests, as a user types them."""
    log = (SHARED / "e2e/llama8b_rtx4090_requests").resolve()
    if not log.is_dir():
        pytest.skip("the measured requests ../shared/data/e2e/llama8b_rtx4090_requests are absent")
    folder = (SHARED / "fingerprints/llmservingsim/RTX4090").resolve()
    assert run("import-fingerprints", str(folder))[0] == 0
    said = ["--engine", f"{log}/engine.json", "--requests", f"{log}/inputs.parquet", "--out", "out.parquet", "--json"]
    code, out, _ = run("replay", *said)
    truth = pl.read_parquet(f"{log}/truth.parquet")
    summary = json.loads(out)
    assert (code, summary["source"], summary["requests"]) == (0, "measured", 300)
    assert summary["mean_tpot_ms"] == pytest.approx(truth["tpot_ms"].mean(), rel=0.05)
    assert summary["mean_ttft_ms"] == pytest.approx(truth["ttft_ms"].mean(), rel=0.15)
