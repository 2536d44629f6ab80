"""A server on loopback that answers like Prometheus, or in any way that a broken one might."""

from __future__ import annotations

import gzip
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from benchmarks.observe import TOKENS, TPOT, TTFT, lognormal_cdf

HOUR_S = 3600
#: Fifty megabytes in fifty kilobytes.
BOMB = gzip.compress(b" " * 50_000_000, compresslevel=1)
Asked = dict[str, str]


class Fake:
    """What the server says, and what it was asked."""

    def __init__(self, answer: Callable[[str, Asked], object]) -> None:
        self.answer = answer
        self.fault = ""
        self.asked: list[tuple[str, Asked]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""


@contextmanager
def serving(answer: Callable[[str, Asked], object]) -> Iterator[Fake]:
    """Run it; `answer(path, form)` gives the `data` of a successful answer."""
    fake = Fake(answer)

    class Talk(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            form = dict(urllib.parse.parse_qsl(self.rfile.read(size).decode()))
            fake.asked.append((self.path, form))
            fake.headers.append({name.lower(): value for name, value in self.headers.items()})
            try:
                _speak(self, fake, form)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Talk)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _speak(talk: BaseHTTPRequestHandler, fake: Fake, form: Asked) -> None:  # noqa: C901, PLR0912 - one case a fault
    match fake.fault:
        case "redirect":
            _send(talk, 302, b"", Location="http://127.0.0.1:1/metadata")
        case "busy":
            _send(talk, 503, b"overloaded")
        case "timed out":
            _send(talk, 503, b'{"status":"error","errorType":"timeout","error":"query timed out"}')
        case "refused":
            _send(talk, 422, b'{"status":"error","errorType":"execution","error":"too many samples"}')
        case "forbidden":
            _send(talk, 401, b"who are you")
        case "not json":
            _send(talk, 200, b"<html>welcome</html>")
        case "deep":
            _send(talk, 200, b"[" * 200_000)
        case "bomb":
            _send(talk, 200, BOMB, **{"Content-Encoding": "gzip"})
        case "huge":
            _send(talk, 200, b" " * 3_000_000)
        case "drip":
            talk.send_response(200)
            talk.send_header("Content-Length", "1000000")
            talk.end_headers()
            for _ in range(200):
                talk.wfile.write(b" ")
                talk.wfile.flush()
                time.sleep(0.02)
        case "hangs":
            time.sleep(2.0)
            talk.close_connection = True
        case "cut":
            talk.send_response(200)
            talk.send_header("Content-Length", "1000000")
            talk.end_headers()
            talk.wfile.write(b'{"status"')
            talk.close_connection = True
        case _:
            data = fake.answer(talk.path, form)
            _send(talk, 200, json.dumps({"status": "success", "data": data}).encode())


def _send(talk: BaseHTTPRequestHandler, code: int, body: bytes, **headers: str) -> None:
    talk.send_response(code)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        talk.send_header(name, value)
    talk.end_headers()
    talk.wfile.write(body)


def vector(*rows: tuple[dict[str, str], float | str]) -> object:
    """An instant vector at time 0."""
    return {"resultType": "vector", "result": [{"metric": m, "value": [0, str(value)]} for m, value in rows]}


def matrix(*rows: tuple[dict[str, str], list[tuple[float, float | str]]]) -> object:
    """A range."""
    found = [{"metric": m, "values": [[at, str(value)] for at, value in values]} for m, values in rows]
    return {"resultType": "matrix", "result": found}


class Vllm:
    """Telemetry of services that all behave alike: what `flows.promql` asks, answered from stated truths."""

    def __init__(self, rate: float = 4.0, ttft: float = 0.05, tpot: float = 0.01) -> None:
        self.rate, self.ttft, self.tpot = rate, ttft, tpot
        self.prompt, self.output = 500.0, 100.0
        self.hits = 0.2
        self.hours: Callable[[int], float | str] = lambda _: self.rate
        """Rate by the end of an hour, seconds since 1970."""

    def __call__(self, path: str, form: Asked) -> object:  # noqa: ARG002 - as `serving` calls it
        """Answer one query."""
        query = form["query"]
        if query.startswith("avg_over_time("):
            start, end, step = (int(form[name]) for name in ("start", "end", "step"))
            if "admission" in query:
                return matrix()
            return matrix(({}, [(at, self.hours(at)) for at in range(start, end + 1, step)]))
        if "max_over_time" in query:
            return vector(({"what": "kv_usage"}, 0.4), ({"what": "waiting"}, 2))
        if query.startswith("label_replace("):
            return vector(*self._gained(query))
        times = np.arange(int(form["time"]) - 4 * HOUR_S, int(form["time"]), 15)
        counts = np.cumsum(np.random.default_rng(0).poisson(self.rate * 15, len(times)))
        return matrix(({"instance": "a"}, list(zip(times.tolist(), counts.tolist(), strict=True))))

    def _gained(self, query: str) -> list[tuple[dict[str, str], float | str]]:
        total = self.rate * 4 * HOUR_S
        rows: list[tuple[dict[str, str], float | str]] = []
        for what, name, edges, mean in (
            ("prompt", "request_prompt_tokens", TOKENS, self.prompt),
            ("output", "request_generation_tokens", TOKENS, self.output),
            ("ttft", "time_to_first_token", TTFT, self.ttft),
            ("tpot", "time_per_output_token", TPOT, self.tpot),
        ):
            if name in query:
                rows += [({"what": what, "le": str(e)}, total * lognormal_cdf(e, mean, 0.5)) for e in edges]
                rows += [({"what": what, "le": "+Inf"}, total), ({"what": f"{what}_sum"}, total * mean)]
        if "prefix_cache" in query:
            rows += [({"what": "prefix_queries"}, 1000.0), ({"what": "prefix_hits"}, 1000.0 * self.hits)]
        return rows
