"""`flows.prometheus`: a sound answer is read, and no broken or hostile one gets further than a clear error."""

from __future__ import annotations

import time

import numpy as np
import pytest
from fake_prometheus import Fake, matrix, serving, vector

from catalog.errors import BadInput
from flows import prometheus
from flows.prometheus import NoTelemetry, Prometheus, Unreachable
from planner.workload import Telemetry


@pytest.fixture
def fake():
    """A server that answers every query with one series."""
    with serving(lambda *_: matrix(({"le": "1"}, [(1.0, "2"), (2.5, "NaN"), (3.0, "+Inf")]))) as running:
        yield running


def client(fake: Fake, **more):
    """A client without patience."""
    return Prometheus(Telemetry(url=fake.url), sleep=lambda _: None, read_s=0.4, **more)


def test_series_are_read_with_what_is_not_finite(fake: Fake) -> None:
    """Labels, times and values come as they were sent, NaN and infinity too: what they mean is the reader's matter."""
    with client(fake) as prometheus_:
        (series,) = prometheus_.range("up", start_s=0, end_s=3, step_s=1)
    assert dict(series.labels) == {"le": "1"}
    assert series.times.tolist() == [1.0, 2.5, 3.0]
    assert np.isnan(series.values[1])
    assert np.isinf(series.values[2])


def test_the_question_is_asked_as_prometheus_wants_it(fake: Fake) -> None:
    """A range goes to query_range with start, end and step; an instant to query with its time; plain."""
    with client(fake) as prometheus_:
        prometheus_.range("up", start_s=0, end_s=3, step_s=1)
        prometheus_.instant("up", at_s=7)
    (first, asked), (second, then) = fake.asked
    assert (first, second) == ("/api/v1/query_range", "/api/v1/query")
    assert {name: asked[name] for name in ("query", "start", "end", "step")} == {
        "query": "up", "start": "0", "end": "3", "step": "1"}  # fmt: skip
    assert then["time"] == "7"
    assert fake.headers[0]["accept-encoding"] == "identity"
    assert "authorization" not in fake.headers[0]


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("redirect", NoTelemetry, "redirects elsewhere"),
        ("timed out", NoTelemetry, "query timed out"),
        ("refused", NoTelemetry, "too many samples"),
        ("forbidden", NoTelemetry, "token_env"),
        ("not json", NoTelemetry, "no JSON of Prometheus"),
        ("deep", NoTelemetry, "no JSON of Prometheus"),
        ("bomb", NoTelemetry, "compressed"),
        ("huge", NoTelemetry, "larger than"),
        ("busy", Unreachable, "503"),
        ("hangs", Unreachable, "does not answer"),
        ("cut", Unreachable, "does not answer"),
        ("drip", Unreachable, "drips"),
    ],
)
def test_every_fault_is_one_clear_error(
    fake: Fake, fault: str, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken answer ends in `NoTelemetry`, silence in `Unreachable`; each says what happened, within seconds."""
    monkeypatch.setattr(prometheus, "MAX_BYTES", 2_000_000)
    fake.fault = fault
    begun = time.monotonic()
    with client(fake) as prometheus_, pytest.raises(error, match=said):
        prometheus_.instant("up", at_s=0)
    assert time.monotonic() - begun < 10


def test_only_silence_is_tried_again(fake: Fake) -> None:
    """Retries are for I/O: a busy server is asked three times, one that refuses the query once."""
    for fault, times in (("busy", 3), ("refused", 1), ("redirect", 1)):
        fake.fault, fake.asked = fault, []
        with client(fake) as prometheus_, pytest.raises((NoTelemetry, Unreachable)):
            prometheus_.instant("up", at_s=0)
        assert len(fake.asked) == times


def test_a_server_that_comes_back_is_read(fake: Fake) -> None:
    """The second try succeeds where the first met a busy server."""
    fake.fault = "busy"

    def wait(_: float) -> None:
        fake.fault = ""

    with Prometheus(Telemetry(url=fake.url), sleep=wait, read_s=1.0) as prometheus_:
        assert len(prometheus_.instant("up", at_s=0)) == 1


def test_nobody_there_is_unreachable() -> None:
    """A closed port is an OSError, which a night may try again."""
    with (
        Prometheus(Telemetry(url="http://127.0.0.1:1"), sleep=lambda _: None) as prometheus_,
        pytest.raises(OSError, match="does not answer"),
    ):
        prometheus_.instant("up", at_s=0)


def test_samples_out_of_order_are_refused() -> None:
    """Times that do not rise are no series."""
    with (
        serving(lambda *_: matrix(({}, [(2.0, "1"), (1.0, "2")]))) as fake,
        client(fake) as prometheus_,
        pytest.raises(NoTelemetry, match="order"),
    ):
        prometheus_.range("up", start_s=0, end_s=3, step_s=1)


def test_too_many_series_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer with more series than anyone selects is refused by their number."""
    monkeypatch.setattr(prometheus, "MAX_SERIES", 3)
    rows = [({"i": str(i)}, 1.0) for i in range(4)]
    with (
        serving(lambda *_: vector(*rows)) as fake,
        client(fake) as prometheus_,
        pytest.raises(NoTelemetry, match="4 series"),
    ):
        prometheus_.instant("up", at_s=0)


def test_a_token_leaves_in_the_header_alone(fake: Fake) -> None:
    """The token comes from the environment, goes into Authorization, and stands in no message."""
    telemetry = Telemetry(url=fake.url, token_env="PROM_TOKEN")  # noqa: S106 - the name of a variable
    with Prometheus(telemetry, environ={"PROM_TOKEN": "s3cret"}, sleep=lambda _: None) as prometheus_:
        prometheus_.instant("up", at_s=0)
        fake.fault = "not json"
        with pytest.raises(NoTelemetry) as caught:
            prometheus_.instant("up", at_s=0)
    assert fake.headers[0]["authorization"] == "Bearer s3cret"
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in str(fake.asked)


@pytest.mark.parametrize("value", [None, "", "  ", "a b", "a\nb", "ü"])
def test_a_missing_token_is_bad_input(fake: Fake, value: str | None) -> None:
    """A variable that is not set, or holds no token, is said by its name and never by its content."""
    telemetry = Telemetry(url=fake.url, token_env="PROM_TOKEN")  # noqa: S106
    with pytest.raises(BadInput, match="PROM_TOKEN holds no token"):
        Prometheus(telemetry, environ={} if value is None else {"PROM_TOKEN": value})


def test_proxies_of_the_environment_are_not_used(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says, the configured server is asked itself."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with client(fake) as prometheus_:
        assert len(prometheus_.instant("up", at_s=0)) == 1
