"""`planner.workload.telemetry`: what fleet.yaml may say of a Prometheus server, and what it must not."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from catalog.errors import BadInput
from flows.fleet import read_fleet
from planner.workload import Scraped, Telemetry, Workload

FLEET = """
cluster:
  pools:
    - {{name: one, gpu: h100_sxm, gpus_per_node: 8, nodes: 2, price: 2.29 USD/GPU/h}}
{prometheus}
intents:
  - name: chat
    model: meta-llama/Llama-3.1-8B-Instruct
    workload: {workload}
"""


@pytest.mark.parametrize(
    "url", ["http://prometheus:9090", "https://host/prom/", "http://127.0.0.1:1", "http://[::1]:9"]
)
def test_a_server_is_named_by_its_url(url: str) -> None:
    """Scheme, host and perhaps a path; the slash at the end is no part of it."""
    assert Telemetry(url=url).url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["", "prometheus:9090", "file:///etc/passwd", "ftp://host", "http://", "http://user:secret@host", "http://host?x=1",
     "http://host#x", "http://ho st", "http://host:99999", "http://host\\@evil", "gopher://host"],
)  # fmt: skip
def test_anything_else_is_refused(url: str) -> None:
    """No other scheme, no credentials, no query: and the message never repeats a password."""
    with pytest.raises(ValidationError) as caught:
        Telemetry(url=url)
    assert "secret" not in caught.value.errors(include_input=False)[0]["msg"]


def test_a_token_is_never_sent_in_clear() -> None:
    """A token over http to another machine is refused; over https, or to this machine, it is not."""
    with pytest.raises(ValidationError, match="use https"):
        Telemetry(url="http://host:9090", token_env="TOKEN")  # noqa: S106 - the name of a variable
    for url in ("https://host", "http://127.0.0.1:9090", "http://localhost:9090"):
        assert Telemetry(url=url, token_env="TOKEN").token_env == "TOKEN"  # noqa: S105, S106


@pytest.mark.parametrize(
    "select", [{}, {"": "x"}, {"1a": "x"}, {"a-b": "x"}, {"a": ""}, {"__name__": "up"}, {"le": "1"}, {'a"': "x"}]
)
def test_labels_are_checked(select: dict[str, str]) -> None:
    """A label has a name that Prometheus accepts and a value; the labels that queries use themselves are taken."""
    with pytest.raises(ValidationError):
        Scraped(select=select)


def test_a_watched_workload_needs_nothing_declared() -> None:
    """With prometheus, rate and lengths may be left out; without it or a trace they may not."""
    assert not Workload(prometheus=Scraped(select={"a": "b"})).declares
    with pytest.raises(ValidationError, match="or prometheus"):
        Workload()
    with pytest.raises(ValidationError, match="give one of them"):
        Workload(trace="x.csv", prometheus=Scraped(select={"a": "b"}))


def test_a_rate_is_taken_over_a_few_scrapes() -> None:
    """Five minutes, or four scrapes where they are further apart."""
    assert Telemetry(url="http://h").window_s == 300
    assert Telemetry(url="http://h", scrape="5 min").window_s == 1200


def test_a_fleet_file_says_where_its_metrics_are(tmp_path: Path) -> None:
    """A watched workload without the fleet's server is one clear error that says what to add."""
    path = tmp_path / "fleet.yaml"
    workload = "{prometheus: {select: {model_name: org/m}}}"
    path.write_text(FLEET.format(prometheus="prometheus: {url: 'http://p:9090'}", workload=workload))
    assert read_fleet(path).fleet.prometheus == Telemetry(url="http://p:9090")
    path.write_text(FLEET.format(prometheus="", workload=workload))
    with pytest.raises(BadInput, match="add prometheus"):
        read_fleet(path)


def test_a_wrong_key_names_its_line(tmp_path: Path) -> None:
    """A typo under prometheus is told with file, line and the near name."""
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET.format(prometheus="prometheus: {urll: 'http://p:9090'}", workload="{rate: 1 /s}"))
    with pytest.raises(BadInput, match=r"fleet\.yaml:5: prometheus\.urll.*'url'"):
        read_fleet(path)
