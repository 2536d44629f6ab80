"""Reading traces from disk: every format, and every way a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from catalog.errors import BadInput
from flows.clients import read_clients
from flows.traces import read_trace
from planner.workload import burstiness, realize
from planner.workload.declared import Workload

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "traces"
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published traces are not beside the repository")


def write(path: Path, text: str) -> Path:
    """Write a file and return its path."""
    path.write_text(text, encoding="utf-8")
    return path


def test_generic_csv(tmp_path):
    """arrival_s, prompt, output as plain columns."""
    trace = read_trace(write(tmp_path / "t.csv", "arrival_s,prompt,output,cached\n5,10,3,2\n6.5,20,4,0\n"))
    assert trace.arrival_s.tolist() == [0.0, 1.5]
    assert trace.prompt.tolist() == [10, 20]
    assert trace.output.tolist() == [3, 4]
    assert trace.cached.tolist() == [2, 0]


def test_azure_csv(tmp_path):
    """Azure's header, dates with seven decimals and CRLF; the time of day is kept."""
    rows = "2023-11-16 18:00:00.5000000,374,44\r\n2023-11-16 18:00:04.7500000,3,9\r\n"
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n" + rows
    trace = read_trace(write(tmp_path / "azure.csv", text))
    assert trace.arrival_s.tolist() == [0.0, 4.25]
    assert trace.day_offset_s == pytest.approx(18 * 3600 + 0.5)


def test_generic_parquet(tmp_path):
    """Parquet with the columns of the request log: arrival_s, input_toks, output_toks; datetimes work too."""
    path = tmp_path / "t.parquet"
    pl.DataFrame({"id": [1, 2], "arrival_s": [0.0, 0.5], "input_toks": [7, 8], "output_toks": [1, 2]}).write_parquet(
        path
    )
    assert read_trace(path).prompt.tolist() == [7, 8]


def test_mooncake_lines(tmp_path):
    """Milliseconds, and block hashes that say what the cache holds."""
    rows = [
        {"timestamp": 0, "input_length": 1024, "output_length": 5, "hash_ids": [1, 2]},
        {"timestamp": 1500, "input_length": 1500, "output_length": 5, "hash_ids": [1, 2, 3]},
    ]
    trace = read_trace(write(tmp_path / "m.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert trace.arrival_s.tolist() == [0.0, 1.5]
    assert trace.cached.tolist() == [0, 1024]


def test_bench_result(tmp_path):
    """`vllm bench serve --save-detailed`: failed requests are left out, the rest sorted by start."""
    result = {
        "start_times": [100.5, 100.0, 101.0],
        "input_lens": [10, 20, 30],
        "output_lens": [5, 6, 0],
        "errors": ["", "", "timed out"],
    }
    trace = read_trace(write(tmp_path / "bench.json", json.dumps(result)))
    assert trace.arrival_s.tolist() == [0.0, 0.5]
    assert trace.prompt.tolist() == [20, 10]


HEADER = "arrival_s,prompt,output\n"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (HEADER + "0,10,5\n1,-3,5\n", "t.csv:3"),
        (HEADER + "0,10,5\n2,10,5\n1,10,5\n", "t.csv:4"),
        (HEADER + "nan,10,5\n", "t.csv:2"),
        (HEADER + "0,10,5\ninf,10,5\n", "t.csv:3"),
        (HEADER + "-1,10,5\n", "t.csv:2"),
        (HEADER + "0,10,-1\n", "t.csv:2"),
        (HEADER + "0,0,5\n", "t.csv:2"),
        (HEADER + "0,,5\n", "t.csv:2"),
        (HEADER + "0,10,5\n1,ten,5\n", "t.csv:3"),
        (HEADER + "0,10.5,5\n", "t.csv:2"),
        (HEADER + "1e300,10,5\n", "t.csv:2"),
        (HEADER + "0,1e30,5\n", "t.csv:2"),
        (HEADER, "t.csv: the file holds no requests"),
        ("", "t.csv: the file is empty"),
        ("a,b\n1,2\n", "t.csv: no column holds the arrival"),
        ("arrival_s,prompt\n1,2\n", "t.csv: no column holds the output"),
        (HEADER.replace("\n", ",cached\n") + "0,10,5,10\n", "t.csv:2"),
    ],
)
def test_wrong_rows_are_refused_by_line(tmp_path, text, place):
    """Whatever cannot be is refused with the file and the line it stands in."""
    with pytest.raises(BadInput) as caught:
        read_trace(write(tmp_path / "t.csv", text))
    assert str(caught.value).startswith(place)


def test_answers_without_a_token_are_read(tmp_path):
    """An output of 0 says that the client left or an error came: the row stands, and a plan leaves it out, counted."""
    trace = read_trace(write(tmp_path / "t.csv", HEADER + "0,10,5\n1,20,0\n2,30,7\n"))
    assert trace.output.tolist() == [5, 0, 7]
    requests = realize(Workload(trace="t"), trace=trace)
    assert (requests.silent, requests.output.tolist(), requests.arrival_s.tolist()) == (1, [5, 7], [0.0, 2.0])


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("not json\n", "m.jsonl:2"),
        ("[1, 2]\n", "m.jsonl:2"),
        ('{"timestamp": 1, "input_length": 5}\n', "m.jsonl:2"),
        ('{"timestamp": 1, "input_length": true, "output_length": 3}\n', "m.jsonl:2"),
    ],
)
def test_wrong_lines_are_refused_by_line(tmp_path, line, place):
    """The same for JSON lines."""
    good = '{"timestamp": 0, "input_length": 5, "output_length": 3}\n'
    with pytest.raises(BadInput) as caught:
        read_trace(write(tmp_path / "m.jsonl", good + line))
    assert str(caught.value).startswith(place)


def test_wrong_files_are_refused(tmp_path):
    """No file, another format, broken Parquet, a bench result without details: each says what to do."""
    with pytest.raises(BadInput, match="no such file"):
        read_trace(tmp_path / "none.csv")
    with pytest.raises(BadInput, match="no format of a trace"):
        read_trace(write(tmp_path / "t.txt", "x"))
    with pytest.raises(BadInput, match="no Parquet"):
        read_trace(write(tmp_path / "t.parquet", "x"))
    with pytest.raises(BadInput, match="save-detailed"):
        read_trace(write(tmp_path / "b.json", json.dumps({"request_rate": 4})))


@published
def test_azure_statistics_are_those_published():
    """Rates, lengths and burstiness of the two Azure traces."""
    conv = read_trace(PUBLISHED / "AzureLLMInferenceTrace_conv.csv")
    assert len(conv) == 19366
    assert conv.rate == pytest.approx(5.53, abs=0.005)
    assert burstiness(conv).cv == pytest.approx(1.09, abs=0.01)
    assert burstiness(conv).dispersion[1.0] == pytest.approx(1.4, abs=0.05)
    code = read_trace(PUBLISHED / "AzureLLMInferenceTrace_code.csv")
    assert burstiness(code).cv == pytest.approx(13.2, abs=0.1)
    assert burstiness(code).dispersion == pytest.approx({1.0: 13, 10.0: 71, 60.0: 160}, rel=0.03)
    assert code.prompt.mean() == pytest.approx(2048, abs=1)


@published
def test_mooncake_reuses_a_third_of_its_prompts():
    """Block hashes give the reuse that an unbounded cache would have: over a third of the tokens."""
    trace = read_trace(PUBLISHED / "mooncake_conversation.jsonl")
    replay = realize(Workload(trace="m"), trace=trace)
    assert replay.cached.sum() / replay.prompt.sum() == pytest.approx(0.374, abs=0.005)


@published
def test_clients_are_drawn_with_a_seed():
    """ServeGen's clients give the same trace twice, at the rate of the file's busiest hour."""
    path = PUBLISHED / "client_rates_10min.parquet"
    one, two = read_clients(path, model="deepseek-r1"), read_trace(f"{path}#deepseek-r1")
    assert (one.arrival_s == two.arrival_s).all()
    rates = pl.read_parquet(path).filter((pl.col("model") == "deepseek-r1") & (pl.col("t_s") // 3600 == 22))
    assert one.rate == pytest.approx(rates["rate_rps"].sum() / 6, rel=0.05)
    assert np.all(np.diff(one.arrival_s) >= 0)
    with pytest.raises(BadInput, match="deepseek-r1"):
        read_clients(path, model="deepseek-r2")
