"""`Prometheus`: a client of Prometheus' HTTP API that believes nothing: bounded answers, time-outs, no redirects.

Two kinds of failure: `Unreachable` (an OSError: nobody answers, or not in time; tried again) and `NoTelemetry` (what
came is no answer; not tried again). Answers are asked for uncompressed and read up to a bound, so that none can swell;
proxies of the environment are not used, and a token leaves in the Authorization header alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from catalog.errors import BadInput, FleetplanError
from planner.workload import Telemetry

#: Bytes and series of one answer.
MAX_BYTES = 64 * 2**20
MAX_SERIES = 20_000
#: Seconds: to connect, and between two pieces of an answer; the whole of it may take twice that.
CONNECT_S, READ_S = 5.0, 20.0
#: Seconds before the second and the third try.
DELAYS_S = (0.5, 2.0)
#: Answers that may be another the next time.
_PASSING = frozenset({429, 500, 502, 503, 504})


class Unreachable(OSError):
    """Nobody answered, or not in time."""


class NoTelemetry(FleetplanError):
    """What came is no answer to the question."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """Samples of one set of labels."""

    labels: Mapping[str, str]
    times: NDArray[np.float64]
    """Seconds since 1970, ascending."""
    values: NDArray[np.float64]
    """NaN and infinity as they came."""


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore")
    metric: dict[str, str]
    values: list[tuple[float, float]] | None = None
    value: tuple[float, float] | None = None


class _Data(BaseModel):
    model_config = ConfigDict(extra="ignore")
    resultType: Literal["matrix", "vector"]  # noqa: N815 - Prometheus' word
    result: list[_Row]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")
    status: Literal["success", "error"]
    data: _Data | None = None
    error: str = ""


_ANSWER = TypeAdapter(_Answer)


class Prometheus:
    """One server; use it as a context, for it keeps connections open."""

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        environ: Mapping[str, str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        delays: Iterable[float] = DELAYS_S,
        read_s: float = READ_S,
    ) -> None:
        self.url = telemetry.url
        self._sleep = sleep
        self._delays = (*delays,)
        self._read_s = read_s
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        token = _token(telemetry, os.environ if environ is None else environ)
        self._client = httpx.Client(
            headers=headers | ({"Authorization": f"Bearer {token}"} if token else {}),
            timeout=httpx.Timeout(read_s, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=8),
            trust_env=False,
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        """Keep connections open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close them."""
        self._client.close()

    def range(self, query: str, *, start_s: int, end_s: int, step_s: int) -> list[Series]:
        """Values at start, start + step, ... end."""
        asked = {"start": str(start_s), "end": str(end_s), "step": str(step_s)}
        return self._ask("query_range", {"query": query, **asked})

    def instant(self, query: str, *, at_s: int) -> list[Series]:
        """Values at one instant; for a query with a range, every sample in it."""
        return self._ask("query", {"query": query, "time": str(at_s)})

    def _ask(self, path: str, asked: Mapping[str, str]) -> list[Series]:
        for delay in (*self._delays, None):
            try:
                return _series(self._post(path, asked))
            except Unreachable:
                if delay is None:
                    raise
                self._sleep(delay)
        raise AssertionError  # the loop ends by a return or a raise

    def _post(self, path: str, asked: Mapping[str, str]) -> bytes:
        until = time.monotonic() + 2.0 * self._read_s
        body = {**asked, "timeout": f"{max(1, round(self._read_s))}s"}
        try:
            with self._client.stream("POST", f"{self.url}/api/v1/{path}", data=body) as response:
                return _checked(response, _read(response, until))
        except httpx.TransportError as error:
            msg = f"Prometheus at {self.url} does not answer ({type(error).__name__}: {str(error)[:120]})"
            raise Unreachable(msg) from error
        except httpx.HTTPError as error:
            msg = f"what answers at {self.url} is no Prometheus ({type(error).__name__}: {str(error)[:120]})"
            raise NoTelemetry(msg) from error


def _token(telemetry: Telemetry, environ: Mapping[str, str]) -> str | None:
    name = telemetry.token_env
    if name is None:
        return None
    token = environ.get(name, "").strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise BadInput(f"the environment variable {name} holds no token", place="prometheus.token_env", mend="set it")
    return token


def _read(response: httpx.Response, until: float) -> bytes:
    """The body as it came over the wire, within its bounds; the message never quotes it."""
    if response.is_redirect:
        msg = f"Prometheus redirects elsewhere ({response.status_code}), which is not followed: correct its url"
        raise NoTelemetry(msg)
    if response.headers.get("content-encoding", "identity").lower() not in {"identity", ""}:
        msg = "the answer came compressed though it was asked for plain: let the proxy before Prometheus pass it on"
        raise NoTelemetry(msg)
    parts, size = [], 0
    for part in response.iter_raw():
        parts.append(part)
        size += len(part)
        if size > MAX_BYTES:
            msg = f"the answer is larger than {MAX_BYTES // 2**20} MiB: select fewer series, or read fewer days"
            raise NoTelemetry(msg)
        if time.monotonic() > until:
            msg = "the answer drips: it was not complete in time"
            raise Unreachable(msg)
    return b"".join(parts)


def _checked(response: httpx.Response, body: bytes) -> bytes:
    if response.status_code in _PASSING and b'"status":"error"' not in body.replace(b" ", b"")[:200]:
        msg = f"Prometheus answers {response.status_code}"
        raise Unreachable(msg)
    if response.status_code in {401, 403}:
        msg = f"Prometheus answers {response.status_code}: give its token through token_env"
        raise NoTelemetry(msg)
    if response.status_code == httpx.codes.NOT_FOUND:
        msg = "Prometheus answers 404: the url must be that of its root"
        raise NoTelemetry(msg)
    return body


def _series(body: bytes) -> list[Series]:
    try:
        answer = _ANSWER.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        msg = f"the answer is no JSON of Prometheus ({where + ': ' if where else ''}{str(first['msg'])[:120]})"
        raise NoTelemetry(msg) from None
    if answer.status == "error" or answer.data is None:
        msg = f"Prometheus refuses the query: {answer.error[:200]!r}"
        raise NoTelemetry(msg)
    if len(answer.data.result) > MAX_SERIES:
        msg = f"the answer has {len(answer.data.result):,} series: select fewer"
        raise NoTelemetry(msg)
    return [_one(row) for row in answer.data.result]


def _one(row: _Row) -> Series:
    points: Any = row.values if row.values is not None else [row.value] if row.value is not None else []
    table = np.array(points, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(table[:, 0]).all() or (np.diff(table[:, 0]) <= 0).any():
        msg = "the answer's samples are not in order of time"
        raise NoTelemetry(msg)
    return Series(labels=row.metric, times=table[:, 0], values=table[:, 1])
