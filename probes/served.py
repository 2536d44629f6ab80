"""Start a real vLLM server on loopback, send it a load, and time every request as its client sees it.

This is the second half of a `vllm` probe: the engine's steps say nothing of the HTTP front end, the tokenizer and the
hand-over between processes. It is also how a prediction is held against the real thing. Prompts are token ids, outputs
ignore the end of sequence, so lengths are exact.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import polars as pl

from catalog.errors import FleetplanError
from probes import process
from probes.vllm import ENVIRONMENT

#: Token ids below are special in the tokenizers that stand-ins get.
_FIRST_TOKEN_ID = 3
#: Becomes the program that it is given; Linux ends it when we end, even by SIGKILL: prctl(PR_SET_PDEATHSIG, SIGTERM).
_TIED = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request to send: when (seconds from the start), how long its prompt and its output are (tokens)."""

    arrival_s: float
    prompt: int
    output: int


@contextlib.contextmanager
def server(
    python: str, model: Path, arguments: Sequence[str], *, environment: Mapping[str, str], ready_within_s: float = 240.0
) -> Iterator[str]:
    """Run `python -m vllm.entrypoints.openai.api_server --model MODEL ARGUMENTS` on loopback; yield its URL.

    Raises:
        FleetplanError: the server ended or did not answer /health in time; the end of its log says why.
    """
    port = free_port()
    serve = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", "probe"]
    argv = [python, "-c", _TIED, *serve, "--host", "127.0.0.1", "--port", str(port), *arguments]
    log = model / f"server-{port}.log"
    with log.open("wb") as sink:
        child = subprocess.Popen(  # noqa: S603 - argv is a list made here
            argv,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=process.environment(_served_environment() | dict(environment)),
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, child, log, within_s=ready_within_s)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def send(  # noqa: PLR0913 - keywords
    url: str,
    requests: Sequence[Sent],
    *,
    concurrency: int | None = None,
    seed: int = 0,
    vocabulary: int,
    producer: str | None = None,
) -> pl.DataFrame:
    """Send `requests` (at their arrival times, or as `concurrency` allows) and return one row per request.

    Columns: index, prompt, output, sent_s, ttft_s, tpot_s (null for one token), e2e_s, error (null if none). With
    `concurrency` the load is closed: arrival times are ignored, and the next request leaves when one completes. With a
    `producer`, the URL of a prefill server, each request goes there first for one token, as a router of prefill and
    decode apart sends it; TTFT is that of the decode server, from the moment the request left.
    """
    return asyncio.run(_send((producer, url), requests, concurrency=concurrency, seed=seed, vocabulary=vocabulary))


async def _send(
    urls: tuple[str | None, str], requests: Sequence[Sent], *, concurrency: int | None, seed: int, vocabulary: int
) -> pl.DataFrame:
    dice = random.Random(seed)  # noqa: S311 - token ids, no secret
    bodies = [_body(dice, request, vocabulary) for request in requests]
    gate = asyncio.Semaphore(concurrency or len(requests))
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=600.0, limits=limits, trust_env=False) as client:
        begun = time.perf_counter()

        async def one(index: int) -> dict[str, object]:
            if concurrency is None:
                await asyncio.sleep(max(0.0, requests[index].arrival_s - (time.perf_counter() - begun)))
            async with gate:
                row = {"index": index, "prompt": requests[index].prompt, "output": requests[index].output}
                return row | await _one(client, urls, bodies[index], requests[index].output, begun)

        rows = await asyncio.gather(*(one(index) for index in range(len(requests))))
    schema = {"index": pl.Int64, "prompt": pl.Int64, "output": pl.Int64, "sent_s": pl.Float64, "ttft_s": pl.Float64,
              "tpot_s": pl.Float64, "e2e_s": pl.Float64, "error": pl.String}  # fmt: skip
    return pl.DataFrame(rows, schema=schema)


async def _one(
    client: httpx.AsyncClient, urls: tuple[str | None, str], body: dict[str, object], output: int, begun: float
) -> dict[str, object]:
    sent = time.perf_counter()
    row: dict[str, object] = {"sent_s": sent - begun}
    producer, url = urls
    try:
        if producer is not None:
            await _streamed(client, producer, body | {"max_tokens": 1})
        times = await _streamed(client, url, body)
    except httpx.HTTPError as error:
        return row | {"error": f"{type(error).__name__}: {error}"}
    if not times:
        return row | {"error": "no token came"}
    tpot = (times[-1] - times[0]) / (output - 1) if output > 1 else None
    return row | {"ttft_s": times[0] - sent, "tpot_s": tpot, "e2e_s": times[-1] - sent}


async def _streamed(client: httpx.AsyncClient, url: str, body: dict[str, object]) -> list[float]:
    """When each piece of an answer came."""
    async with client.stream("POST", f"{url}/v1/completions", json=body) as response:
        response.raise_for_status()
        return [time.perf_counter() async for line in response.aiter_lines() if line.startswith("data: {")]


def _body(dice: random.Random, request: Sent, vocabulary: int) -> dict[str, object]:
    prompt = [dice.randrange(_FIRST_TOKEN_ID, vocabulary) for _ in range(request.prompt)]
    return {"model": "probe", "prompt": prompt, "max_tokens": request.output, "ignore_eos": True, "temperature": 0.0,
            "stream": True}  # fmt: skip


def _served_environment() -> dict[str, str]:
    return {name: value for name, value in ENVIRONMENT.items() if name != "VLLM_ENABLE_V1_MULTIPROCESSING"}


def _wait_until_ready(url: str, child: subprocess.Popen[bytes], log: Path, *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise FleetplanError(f"the vLLM server ended with {child.returncode}: {_tail(log)}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", timeout=2.0, trust_env=False).status_code == httpx.codes.OK:
                return
        time.sleep(0.5)
    raise FleetplanError(f"the vLLM server was not ready within {within_s:.0f} s: {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]
