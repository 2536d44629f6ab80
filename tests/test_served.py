"""The client of a served run against a server of the standard library, and a server that does not come up."""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from catalog.errors import FleetplanError
from probes import served
from probes.served import Sent

FIRST_S, NEXT_S = 0.05, 0.01


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bodies: list = []  # noqa: RUF012 - one list for the class on purpose
    at_once = 0
    most_at_once = 0
    lock = threading.Lock()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            _Answers.bodies.append(body)
            _Answers.at_once += 1
            _Answers.most_at_once = max(_Answers.most_at_once, _Answers.at_once)
        bad = len(body["prompt"]) == 13
        self.send_response(500 if bad else 200)
        self.send_header("Connection", "close")
        self.end_headers()
        for number in range(0 if bad else body["max_tokens"]):
            time.sleep(NEXT_S if number else FIRST_S)
            self.wfile.write(b'data: {"choices": []}\n\n')
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True
        with self.lock:
            _Answers.at_once -= 1

    def log_message(self, *_):
        """Stay silent."""


@pytest.fixture
def url():
    """A server that takes 50 ms to the first token and 10 ms to each further one; 13 tokens it refuses."""
    _Answers.bodies, _Answers.at_once, _Answers.most_at_once = [], 0, 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def _sent(*prompts, output=8, gap=0.0):
    return [Sent(arrival_s=i * gap, prompt=prompt, output=output) for i, prompt in enumerate(prompts)]


def test_latencies_are_the_clients(url):
    """TTFT holds the first token's wait, TPOT the mean of the further ones, and the end is their sum."""
    row = served.send(url, _sent(16), vocabulary=100).row(0, named=True)
    assert FIRST_S <= row["ttft_s"] < row["e2e_s"]
    assert row["e2e_s"] >= FIRST_S + 7 * NEXT_S
    assert row["e2e_s"] == pytest.approx(row["ttft_s"] + 7 * row["tpot_s"])
    assert row["error"] is None


def test_lengths_are_exact_and_seeds_reproduce(url):
    """Prompts are token ids of the asked length, none of them special; equal seeds send equal prompts."""
    for _ in range(2):
        served.send(url, _sent(16), seed=5, vocabulary=100)
    first, second = _Answers.bodies
    assert first == second
    assert len(first["prompt"]) == 16
    assert all(3 <= token < 100 for token in first["prompt"])
    assert (first["max_tokens"], first["ignore_eos"]) == (8, True)


def test_a_closed_loop_never_exceeds_its_concurrency(url):
    """With 3 clients no more than 3 requests are at the server, and all of them are answered."""
    rows = served.send(url, _sent(*[16] * 9), concurrency=3, vocabulary=100)
    assert rows["error"].null_count() == 9
    assert _Answers.most_at_once <= 3


def test_an_open_stream_keeps_its_times(url):
    """Without concurrency each request leaves at its own time, whatever the others do."""
    rows = served.send(url, _sent(*[16] * 4, gap=0.1), vocabulary=100)
    late = [sent - 0.1 * i for i, sent in enumerate(rows["sent_s"].to_list())]
    assert min(late) >= 0
    assert sorted(late)[1] < 0.1


def test_a_refused_request_is_an_error_of_its_row(url):
    """An answer of 500 costs its request alone, and no latency is made up for it."""
    rows = served.send(url, _sent(16, 13), vocabulary=100).sort("index")
    assert rows["error"].is_null().to_list() == [True, False]
    assert rows["ttft_s"][1] is None


def test_one_token_has_no_time_per_further_token(url):
    """TPOT of a single token is missing, not zero."""
    assert served.send(url, _sent(16, output=1), vocabulary=100)["tpot_s"][0] is None


def test_a_server_that_ends_says_why(tmp_path):
    """A server that does not come up raises with the end of its log, and is gone."""
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('unsupported architecture: Foo')\n")
    script.chmod(0o755)
    with (
        pytest.raises(FleetplanError, match="unsupported architecture: Foo"),
        served.server(str(script), tmp_path, [], environment={}),
    ):
        pass
