"""The stage observe: what a Prometheus says becomes the next day's load; what it fails to say is said.

The laws of the faults run against a server that fakes the answers; those of the numbers against Debian's `prometheus`,
over blocks that `promtool` made and over a live exporter whose counters start anew.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fake_prometheus import Vllm, serving

from benchmarks import observe as made
from catalog.errors import FleetplanError
from catalog.metrics import metric_names
from catalog.store import Store
from flows import promql
from flows.fleet import LoadedFleet, read_fleet
from flows.observe import last_good, observe
from flows.observe.reading import busiest_window, read_service
from flows.observe.stage import refuse_blind, sight
from flows.prometheus import Prometheus
from planner.workload import Lengths, Scraped, Telemetry, Workload
from planner.workload.observed import peak

HOUR_S, DAY_S = 3600, 86400
NOW = 20_000 * DAY_S + 2 * HOUR_S  # a night, 02:00 UTC
FLEET = """
cluster:
  pools:
    - {{name: one, gpu: h100_sxm, gpus_per_node: 8, nodes: 2, price: 2.29 USD/GPU/h}}
prometheus: {{url: '{url}', days: 7}}
intents:
  - name: chat
    model: meta-llama/Llama-3.1-8B-Instruct
    workload: {{prometheus: {{select: {{model_name: org/chat}}}}}}
  - name: known
    model: meta-llama/Llama-3.1-8B-Instruct
    workload:
      {{rate: 1 /s, prompt: {{mean: 50}}, output: {{mean: 20}}, prometheus: {{select: {{model_name: org/known}}}}}}
  - name: declared
    model: meta-llama/Llama-3.1-8B-Instruct
    workload: {{rate: 1 /s, prompt: {{mean: 50}}, output: {{mean: 20}}}}
"""
REAL = pytest.mark.skipif(bool(made.missing()), reason=made.missing() or "present")


def fleet(folder: Path, url: str) -> LoadedFleet:
    """A fleet with two watched services, one of which also declares a load."""
    path = folder / "fleet.yaml"
    path.write_text(FLEET.format(url=url))
    return read_fleet(path)


def hasty(telemetry: Telemetry) -> Prometheus:
    """A client without patience."""
    return Prometheus(telemetry, sleep=lambda _: None, read_s=0.4)


def test_what_is_served_becomes_the_load(tmp_path: Path) -> None:
    """4 requests/s all week, prompts of 500 and outputs of 100: that is planned, and kept as a record."""
    with serving(Vllm()) as fake:
        found = sight(fleet(tmp_path, fake.url), Store(tmp_path / "var"), at_s=NOW, client=hasty)
    seen = found.services["chat"]
    assert (seen.source, seen.notes) == ("observed", ())
    assert seen.workload is not None
    assert seen.workload.rate == pytest.approx(4.0, rel=0.01)
    assert 4.0 <= peak(seen.workload) <= 8.0
    requests = observe(next(i for i in found.loaded.fleet.intents if i.name == "chat"), None)
    assert requests.prompt.mean() == pytest.approx(500, rel=0.06)
    assert requests.output.mean() == pytest.approx(100, rel=0.06)
    assert seen.workload.prefix_hit_share == 0.2
    assert set(found.services) == {"chat", "known"}
    good = last_good(found.loaded.fleet.intents[0], Store(tmp_path / "var"))
    assert good is not None
    assert good.workload == seen.workload


def test_the_digest_is_that_of_the_load_that_is_planned(tmp_path: Path) -> None:
    """Another load is another fleet digest; the same telemetry the same; without watched services nothing is asked."""
    with serving(Vllm()) as fake:
        loaded = fleet(tmp_path, fake.url)
        first, same = (sight(loaded, Store(tmp_path / "var"), at_s=NOW, client=hasty).loaded.digest for _ in range(2))
        fake.answer = Vllm(rate=5.0)
        assert first == same != sight(loaded, Store(tmp_path / "new"), at_s=NOW, client=hasty).loaded.digest


def test_the_last_good_load_is_kept_when_prometheus_is_down(tmp_path: Path) -> None:
    """One good night, then nobody answers: the same load is planned, and each service says so and since when."""
    store = Store(tmp_path / "var")
    with serving(Vllm()) as fake:
        loaded = fleet(tmp_path, fake.url)
        good = sight(loaded, store, at_s=NOW, client=hasty)
    found = sight(loaded, store, at_s=NOW + DAY_S, client=hasty)
    for name, seen in found.services.items():
        before = good.services[name].workload
        assert seen.source == "kept"
        assert seen.workload == before
        assert "does not answer" in seen.notes[0]
        assert "2024-10-04 02:00 UTC" in seen.notes[0]
    assert found.loaded.digest == good.loaded.digest


def test_without_a_last_load_the_declared_one_counts_and_else_none(tmp_path: Path) -> None:
    """On the first night without telemetry one service has its declared load; the other has none and is named."""
    found = sight(fleet(tmp_path, "http://127.0.0.1:1"), Store(tmp_path / "var"), at_s=NOW, client=hasty)
    assert [seen.source for seen in found.services.values()] == ["none", "declared"]
    assert set(found.missing) == {"chat"}
    assert "declares no load" in found.notes[0]
    assert "the load that it declares" in found.notes[1]


@pytest.mark.parametrize("fault", ["hangs", "busy", "redirect", "not json", "bomb", "refused", "cut", "drip"])
def test_no_fault_ends_the_stage(tmp_path: Path, fault: str) -> None:
    """Whatever the server does, the stage ends in seconds with the last good loads and a reason."""
    store = Store(tmp_path / "var")
    with serving(Vllm()) as fake:
        loaded = fleet(tmp_path, fake.url)
        sight(loaded, store, at_s=NOW, client=hasty)
        fake.fault = fault
        begun = time.monotonic()
        found = sight(loaded, store, at_s=NOW + DAY_S, client=hasty)
        assert time.monotonic() - begun < 15
    assert [seen.source for seen in found.services.values()] == ["kept", "kept"]


def test_a_server_that_is_down_is_not_asked_for_every_service(tmp_path: Path) -> None:
    """Once nobody answers, the remaining services are not tried: a fleet of hundreds waits for one."""
    with serving(Vllm()) as fake:
        fake.fault = "busy"
        text = (tmp_path / "fleet.yaml", FLEET.format(url=fake.url))
        more = "".join(
            f"  - {{name: s{i}, model: meta-llama/Llama-3.1-8B-Instruct, "
            f"workload: {{prometheus: {{select: {{model_name: m{i}}}}}}}}}\n"
            for i in range(40)
        )
        text[0].write_text(text[1] + more)
        sight(read_fleet(text[0]), Store(tmp_path / "var"), at_s=NOW, client=hasty)
    assert len(fake.asked) <= 4 * 3  # four at once, three tries each


@pytest.mark.parametrize("bad", ["NaN", "+Inf", "-3", "1e300"])
def test_impossible_rates_are_unknown_hours(tmp_path: Path, bad: str) -> None:
    """NaN, infinite, negative and absurd rates are hours without telemetry; the others are forecast from."""
    vllm = Vllm()
    vllm.hours = lambda at: bad if at % DAY_S // HOUR_S in {3, 4} else 4.0
    with serving(vllm) as fake:
        found = sight(fleet(tmp_path, fake.url), Store(tmp_path / "var"), at_s=NOW, client=hasty)
    seen = found.services["chat"]
    assert seen.observed is not None
    assert seen.observed.known_hours == 7 * 22
    assert seen.workload is not None
    assert seen.workload.rate == pytest.approx(4.0, rel=0.02)


def test_nothing_but_nan_is_no_telemetry(tmp_path: Path) -> None:
    """Where every hour is NaN the service was not observed."""
    vllm = Vllm()
    vllm.hours = lambda _: "NaN"
    with serving(vllm) as fake:
        found = sight(fleet(tmp_path, fake.url), Store(tmp_path / "var"), at_s=NOW, client=hasty)
    assert [seen.source for seen in found.services.values()] == ["none", "declared"]
    assert "no series" in found.notes[0]


def test_telemetry_that_ended_is_not_todays(tmp_path: Path) -> None:
    """Series that ended two days ago keep the last good load."""
    vllm = Vllm()
    vllm.hours = lambda at: 4.0 if at <= NOW - 2 * DAY_S else "NaN"
    store = Store(tmp_path / "var")
    with serving(Vllm()) as fake:
        loaded = fleet(tmp_path, fake.url)
        sight(loaded, store, at_s=NOW - DAY_S, client=hasty)
        fake.answer = vllm
        found = sight(loaded, store, at_s=NOW, client=hasty)
    assert found.services["chat"].source == "kept"
    assert "ended 48 hours ago" in found.notes[0]


def test_absurd_telemetry_is_bounded_and_said(tmp_path: Path) -> None:
    """A thousandfold load overnight is planned at four times the last peak, loudly; a dead service at a quarter."""
    store = Store(tmp_path / "var")
    with serving(Vllm()) as fake:
        loaded = fleet(tmp_path, fake.url)
        before = sight(loaded, store, at_s=NOW, client=hasty).services["chat"].workload
        for rate, factor in ((4000.0, 4.0), (0.0, 0.25)):
            fake.answer = Vllm(rate=rate)
            seen = sight(loaded, Store(tmp_path / "var"), at_s=NOW + HOUR_S, client=hasty).services["chat"]
            assert seen.workload is not None
            assert before is not None
            assert peak(seen.workload) == pytest.approx(factor * peak(before), rel=0.02)
            assert "ABSURD TELEMETRY" in seen.notes[0]
            before = seen.workload


def test_a_running_service_is_not_planned_blind() -> None:
    """A service that runs and whose load nobody knows ends the night; one that does not run is merely reported."""
    from test_calibrate import group  # noqa: PLC0415 - a replica group

    class Plan:
        placements = (group(2),)

    refuse_blind({"other": "unknown"}, Plan())  # type: ignore[arg-type]
    refuse_blind({"chat": "unknown"}, None)
    with pytest.raises(FleetplanError, match="switched off"):
        refuse_blind({"chat": "unknown"}, Plan())  # type: ignore[arg-type]


def test_the_busiest_window_is_a_whole_one_of_the_last_day() -> None:
    """At 02:00 the day before has five whole windows; unknown hours do not hide the busiest."""
    rates = [1.0] * 24
    at_hour = 100 * 24 + 2
    rates[12:16] = [9.0, None, 9.0, None]  # hours 14 to 18 of the day before
    assert busiest_window(tuple(rates), at_hour) in {99 * 24 + 12, 99 * 24 + 16}
    assert busiest_window((None,) * 24, at_hour) is None
    assert busiest_window((0.0,) * 24, at_hour) is None


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory):
    """Three days of two services in a real Prometheus, with a restart of each; None where it is not installed."""
    if made.missing():
        pytest.skip(made.missing())
    folder = tmp_path_factory.mktemp("prometheus")
    services = [made.Service(name="calm", rate=5.0, swing=0.5, weekend=1.0, burst=1.0),
                made.Service(name='odd"name\\', rate=2.0, swing=0.2, weekend=1.0, burst=9.0, hits=0.6)]  # fmt: skip
    escaped = [made.Service(**{**{f: getattr(s, f) for f in s.__slots__}, "name": promql.quoted(s.name)[1:-1]})
               for s in services]  # fmt: skip
    end = int(time.time()) // DAY_S * DAY_S  # the same hour whenever this runs: the same draws in the busiest hours
    made.fill(folder / "tsdb", escaped, days=3, scrape_s=120, end_s=end)
    with made.serving(folder / "tsdb") as (url, _):
        yield url, services, end


@REAL
@pytest.mark.parametrize("index", [0, 1])
def test_a_real_prometheus_tells_the_truth(history, index: int) -> None:
    """Hourly rates, lengths, burstiness, prefix hits and latencies come back as they were made, restart and all."""
    url, services, end = history
    truth = services[index]
    telemetry = Telemetry(url=url, days=3, scrape="120 s")
    scraped = Scraped(select={"model_name": f"org/{truth.name}"})
    with Prometheus(telemetry) as prometheus:
        found = read_service(
            prometheus, scraped, telemetry=telemetry, names=metric_names("0.32.0"), at_hour=end // HOUR_S
        )
    hourly = made.rates(truth, 3, HOUR_S, end)
    known = [(rate, true) for rate, true in zip(found.rates, hourly, strict=True) if rate is not None]
    assert len(known) >= 71
    errors = [abs(math.log(rate / true)) for rate, true in known]
    assert sorted(errors)[len(errors) // 2] < 0.05
    assert found.prompt is not None
    assert found.output is not None
    assert found.prompt.mean == pytest.approx(truth.prompt[0], rel=0.01)
    assert found.output.mean == pytest.approx(truth.output[0], rel=0.01)
    assert found.prefix_hit_share == pytest.approx(truth.hits, abs=0.01)
    assert found.dispersion == pytest.approx(truth.burst, rel=0.5)
    assert found.busiest is not None
    assert found.busiest.ttft is not None
    assert found.busiest.tpot is not None
    assert found.busiest.ttft.mean == pytest.approx(truth.ttft[0], rel=0.01)
    low, _, high = found.busiest.tpot.quantile(0.5)
    assert low < truth.tpot[0] < high * 1.1
    assert found.busiest.kv_usage == 0.5


@REAL
def test_a_selector_reaches_no_other_service(history) -> None:
    """A name that is a piece of PromQL selects nothing, and neither does a regular expression."""
    url, _, end = history
    telemetry = Telemetry(url=url, days=1, scrape="120 s")
    with Prometheus(telemetry) as prometheus:
        for value in ('x"} or vllm:request_success_total{a="', "org/.*", "org/calm\n"):
            labels = promql.selector(Scraped(select={"model_name": value}))
            assert prometheus.instant(f"vllm:time_to_first_token_seconds_count{labels}", at_s=end) == []


class Exporter(BaseHTTPRequestHandler):
    """A vLLM that counts ten requests at every scrape, and forgets them all at the sixth."""

    scrapes = itertools.count(1)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """One scrape."""
        at = next(self.scrapes)
        total = 10.0 * (at if at < 6 else at - 6)
        body = (
            f'vllm:time_to_first_token_seconds_bucket{{model_name="m",le="0.5"}} {total / 2}\n'
            f'vllm:time_to_first_token_seconds_bucket{{model_name="m",le="+Inf"}} {total}\n'
            f'vllm:time_to_first_token_seconds_count{{model_name="m"}} {total}\n'
            f'vllm:time_to_first_token_seconds_sum{{model_name="m"}} {total * 0.4}\n'
            'vllm:kv_cache_usage_perc{model_name="m"} NaN\n'
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@REAL
def test_a_live_exporter_that_starts_anew_loses_nothing(tmp_path: Path) -> None:
    """Scraped three times a second across a restart: every gain is there, shares hold, and a NaN gauge is no number."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = (
        "global: {scrape_interval: 300ms, scrape_timeout: 300ms}\n"
        f"scrape_configs:\n  - job_name: vllm\n    static_configs: [{{targets: ['127.0.0.1:{server.server_port}']}}]\n"
    )
    (tmp_path / "tsdb").mkdir()
    labels = promql.selector(Scraped(select={"model_name": "m"}))
    try:
        with made.serving(tmp_path / "tsdb", config=config) as (url, _), Prometheus(Telemetry(url=url)) as prometheus:
            query = promql.samples("vllm:time_to_first_token_seconds_count", labels, span_s=60)
            until = time.monotonic() + 40
            values: list[float] = []
            while len(values) < 10 and time.monotonic() < until:
                time.sleep(0.3)
                found = prometheus.instant(query, at_s=int(time.time()) + 1)
                values = found[0].values.tolist() if found else []
            now = int(time.time()) + 1
            names = {"ttft": "vllm:time_to_first_token_seconds_bucket"}
            gained = prometheus.instant(promql.gained(names, labels, span_s=60), at_s=now)
            gauge = prometheus.instant(
                promql.highest({"kv_usage": "vllm:kv_cache_usage_perc"}, labels, span_s=60), at_s=now
            )
    finally:
        server.shutdown()
        server.server_close()
    import numpy as np  # noqa: PLC0415

    from planner.workload.counters import increases  # noqa: PLC0415

    falls = [before > after for before, after in itertools.pairwise(values)]
    assert sum(falls) == 1
    gains = increases(np.array(values))
    assert gains[~np.array(falls)].tolist() == [10.0] * (len(values) - 2)
    by_edge = {series.labels["le"]: float(series.values[-1]) for series in gained}
    assert by_edge["+Inf"] > 60
    assert by_edge["0.5"] == pytest.approx(by_edge["+Inf"] / 2, rel=0.1)
    assert all(math.isnan(series.values[-1]) for series in gauge)


def test_declared_loads_and_traces_are_as_before(tmp_path: Path) -> None:
    """A declared workload needs no server: it is drawn as fleet.yaml says."""
    workload = Workload(rate="3 /s", prompt=Lengths(mean=10.0), output=Lengths(mean=5.0))
    loaded = fleet(tmp_path, "http://127.0.0.1:1")
    intent = loaded.fleet.intents[2].model_copy(update={"workload": workload})
    assert observe(intent, None).rate == 3.0
