"""`benchmarks.cpu_vllm`: rows and report by hand; the whole path on a real vLLM where one is."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from benchmarks import cpu_vllm
from benchmarks.cpu_vllm import loads, quiet, report
from catalog.models import find_model
from catalog.models.weights import weight_elements
from probes.served import Sent

ROOT = Path(__file__).parents[1]
PYTHON = os.environ.get("FLEETPLAN_VLLM_PYTHON", str(ROOT / ".venv-vllm" / "bin" / "python"))
needs_vllm = pytest.mark.skipif(not Path(PYTHON).exists(), reason="no vLLM: make test-vllm, or FLEETPLAN_VLLM_PYTHON")


def _run(*latencies):
    ttft, tpot = zip(*latencies, strict=True)
    return pl.DataFrame({"ttft_s": ttft, "tpot_s": tpot, "error": pl.Series([None] * len(ttft), dtype=pl.String)})


def _row():
    case = loads.Case(
        load="closed loop of 1", sent=[Sent(arrival_s=0, prompt=8, output=2)], concurrency=1,
        predicted=SimpleNamespace(ttft_s=[0.011], tpot_s=[0.002]),
    )  # fmt: skip
    runs = [
        loads.Run(rows=_run((0.030, 0.004)), others=0.9, pace_s=3e-3),
        loads.Run(rows=_run((0.010, 0.002), (0.010, 0.002)), others=0.1, pace_s=1e-3),
    ]
    return loads.row("small-llama", case, runs, loads.Probed(wall_s=1.0, pace_s=1e-3))


def test_the_median_over_all_runs_counts_and_noise_is_their_range():
    """11 ms predicted, two of three requests took 10 ms: +10 %; the third, a run of its own, 30 ms: noise of 200 %."""
    row = _row()
    assert (row["ttft_error"], row["ttft_noise"]) == (pytest.approx(0.1), pytest.approx(2.0))
    assert (row["tpot_error"], row["others_cores"]) == (0.0, 0.5)
    # the machine was twice as slow as around the probe: 22 ms and 4 ms are predicted of it
    assert (row["pace"], row["ttft_error_paced"], row["tpot_error_paced"]) == (2.0, pytest.approx(1.2), 1.0)


def test_the_headline_takes_medians_of_absolute_errors():
    """Errors of -10 % and +30 % have a median of 20 %."""
    rows = [_row() | {"ttft_error": error, "probe_s": 10.0} for error in (-0.1, 0.3)]
    assert cpu_vllm.headline(rows, [])["ttft_median_error"] == pytest.approx(0.2)


def test_the_report_shows_every_row_and_the_memory(tmp_path):
    """The file holds the row, the headline and the stand-ins' shares."""
    row = _row() | {"probe_s": 12.0}
    report.write([row], [], cpu_vllm.headline([row], []), tmp_path / "x.md")
    text = (tmp_path / "x.md").read_text()
    assert "| small-llama | closed loop of 1 | 11.0 ms | 10.0 ms | +10% | +120% | 200% |" in text
    assert "Llama-3.1-70B" in text


def test_a_stand_in_of_one_block_of_the_70b_takes_at_most_a_twentieth():
    """One block, embedding and head of Llama-3.1-70B are 4.2 % of its weights."""
    model = find_model("Llama-3.1-70B")
    share = weight_elements(report.one_of_each(model)).total / weight_elements(model).total
    assert share == pytest.approx(0.042, abs=0.001)


def test_other_programs_are_seen(monkeypatch):
    """Busy cores lie between none and all of the machine, and waiting ends when patience does."""
    assert 0 <= quiet.others() <= (os.cpu_count() or 1) + 0.5
    monkeypatch.setattr(quiet, "others", lambda: 1.5)
    assert quiet.wait(0.3) == 1.5


@needs_vllm
@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("model", ["small-llama", "small-qwen3-moe", "small-gqa"])
def test_a_real_vllm_is_predicted(model, capsys):
    """Probe, predict and serve: every request is answered and the medians lie within a factor that noise allows."""
    cpu_vllm.main(True, ["--python", PYTHON, "--models", model, "--quick", "--repeats", "2", "--no-pair"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["cases"], found["failed"]) == (6, 0)
    assert found["tpot_median_error"] < 0.5
    assert found["ttft_median_error"] < 0.6


@needs_vllm
@pytest.mark.vllm
@pytest.mark.slow
def test_prefill_and_decode_apart_are_predicted(capsys):
    """Two servers that share a folder answer every request, near what the simulator says."""
    cpu_vllm.main(True, ["--python", PYTHON, "--models", "small-llama", "--quick", "--repeats", "2", "--pair-only"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["cases_apart"], found["failed"]) == (2, 0)
    assert found["apart_tpot_median_error"] < 1.0
