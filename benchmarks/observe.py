"""A week of 50 services read from a real Prometheus: wall and processor time, and how near the forecast comes.

    python -m benchmarks observe --json [--services 50] [--days 7] [--scrape 300] [--replicas 1]

Telemetry is made, not measured: every service has a day, a week and bursts of its own, two replicas' worth of vLLM's
counters and histograms, and one restart (its counters begin anew). `promtool tsdb create-blocks-from openmetrics` turns
it into Prometheus' own blocks, a `prometheus` process on loopback serves them, and the stage observe reads them as a
night does. Needs Debian's package `prometheus`.

Keys: services, days, series, samples, scrape_s, wall_s and cpu_s of the reading (this process; Prometheus' own time is
in wall_s), prometheus_cpu_s, observed (services whose load was read), rate_error (median of |forecast mean / true mean
of the next day - 1|), load_s (making the blocks, not part of the reading).
"""

from __future__ import annotations

import argparse
import contextlib
import json as json_text
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DAY_S, HOUR_S = 86400, 3600
#: vLLM's default buckets (v1/metrics/loggers.py): seconds to the first token, seconds per token; tokens in 1-2-5 steps.
TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
TPOT = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TOKENS = tuple(float(m * 10**e) for e in range(5) for m in (1, 2, 5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service's truth."""

    name: str
    rate: float
    """Mean requests per second."""
    swing: float
    """Of the day."""
    weekend: float
    """Saturday and Sunday relative to other days."""
    burst: float
    """Var / mean of the arrivals in one scrape interval."""
    prompt: tuple[float, float] = (1200.0, 0.8)
    """Mean and coefficient of variation, lognormal."""
    output: tuple[float, float] = (250.0, 0.7)
    ttft: tuple[float, float] = (0.3, 0.6)
    tpot: tuple[float, float] = (0.03, 0.25)
    hits: float = 0.3


def main(json: bool, argv: list[str]) -> int:  # noqa: FBT001 - what `python -m benchmarks` hands over
    """Make, serve, read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks observe")
    parser.add_argument("--services", type=int, default=50)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--scrape", type=int, default=300)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    if missing():
        print(json_text.dumps({"skipped": missing()}))
        return 1
    with tempfile.TemporaryDirectory(prefix="fleetplan-") as folder:
        row = measured(Path(folder), options)
    print(json_text.dumps(row) if json else "\n".join(f"{key:18}{value}" for key, value in row.items()))
    return 0 if row["observed"] == options.services else 1


def missing() -> str:
    """What this machine lacks, or nothing."""
    lacking = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    return f"{' and '.join(lacking)} not installed (Debian: apt-get install prometheus)" if lacking else ""


def measured(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """One reading of a made history."""
    from flows.fleet import read_fleet  # noqa: PLC0415 - seconds of imports that are not timed
    from flows.observe.stage import sight  # noqa: PLC0415
    from flows.site import store_at  # noqa: PLC0415

    services = [service(number, options.seed) for number in range(options.services)]
    end = int(time.time()) // HOUR_S * HOUR_S
    begun = time.perf_counter()
    samples = fill(folder / "tsdb", services, days=options.days, scrape_s=options.scrape, end_s=end,
                   replicas=options.replicas)  # fmt: skip
    load_s = time.perf_counter() - begun
    with serving(folder / "tsdb") as (url, process):
        loaded = read_fleet(fleet_file(folder, services, url=url, days=options.days, scrape_s=options.scrape))
        store = store_at(str(folder / "var"))
        theirs, mine, begun = cpu_s(process), time.process_time(), time.perf_counter()
        found = sight(loaded, store, at_s=float(end))
        wall, cpu, server = time.perf_counter() - begun, time.process_time() - mine, cpu_s(process) - theirs
    true = {each.name: rates(each, 1, options.scrape, end + DAY_S).mean() for each in services}
    errors = [abs(seen.workload.rate / true[name] - 1) for name, seen in found.services.items()
              if seen.source == "observed" and seen.workload and seen.workload.rate]  # fmt: skip
    return {
        "services": options.services,
        "days": options.days,
        "series": options.services * options.replicas * per_replica(),
        "samples": samples,
        "scrape_s": options.scrape,
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "prometheus_cpu_s": round(server, 2),
        "observed": sum(seen.source == "observed" for seen in found.services.values()),
        "rate_error": round(statistics.median(errors), 4) if errors else None,
        "load_s": round(load_s, 1),
    }


def service(number: int, seed: int = 0) -> Service:
    """A service with habits of its own."""
    dice = np.random.default_rng([seed, number])
    return Service(
        name=f"s{number:03d}",
        rate=float(np.exp(dice.uniform(np.log(0.5), np.log(50.0)))),
        swing=float(dice.uniform(0.2, 0.8)),
        weekend=float(dice.uniform(0.4, 1.0)),
        burst=float(dice.uniform(1.0, 6.0)),
    )


def rates(each: Service, days: float, scrape_s: int, end_s: int) -> NDArray[np.float64]:
    """Requests per second in each scrape interval of the history."""
    times = end_s - days * DAY_S + scrape_s * np.arange(round(days * DAY_S / scrape_s))
    hour = times % DAY_S / HOUR_S
    weekday = (times // DAY_S + 3) % 7
    found: NDArray[np.float64] = each.rate * (1 + each.swing * np.sin((hour - 8) / 24 * 2 * np.pi))
    return found * np.where(weekday >= 5, each.weekend, 1.0)


def per_replica() -> int:
    """Series of one replica that are made."""
    return len(TTFT) + len(TPOT) + 2 * len(TOKENS) + 4 * 3 + 5


def fill(tsdb: Path, services: Sequence[Service], *, days: float, scrape_s: int, end_s: int, replicas: int = 1) -> int:
    """Make Prometheus' blocks of a history that ends at a time; return the number of samples."""
    tsdb.mkdir(parents=True, exist_ok=True)
    samples = 0
    for batch in (services[start : start + 10] for start in range(0, len(services), 10)):
        text = tsdb.parent / "history.txt"
        with text.open("w", encoding="ascii") as file:
            lines = list(openmetrics(batch, days=days, scrape_s=scrape_s, end_s=end_s, replicas=replicas))
            samples += sum(block.count("\n") for block in lines)
            file.writelines([*lines, "# EOF\n"])
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", "--max-block-duration=24h",
                   str(text), str(tsdb)]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own program
        text.unlink()
    return samples


def openmetrics(services: Sequence[Service], *, days: float, scrape_s: int, end_s: int, replicas: int) -> Iterator[str]:
    """Blocks of lines, each one series: counters rise, and begin anew once."""
    for each in services:
        offered = rates(each, days, scrape_s, end_s) * scrape_s / replicas
        dice = np.random.default_rng(abs(hash_of(each.name)))
        for replica in range(replicas):
            counts = bursty(offered, each.burst, dice)
            labels = f'model_name="org/{each.name}",instance="r{replica}"'
            times = end_s - round(days * DAY_S) + scrape_s * np.arange(1, len(counts) + 1)
            restart = int(len(counts) * dice.uniform(0.2, 0.8))
            yield from _series(each, counts, labels, times, restart)


def hash_of(name: str) -> int:
    """A number of a name that is the same in every process."""
    return int.from_bytes(name.encode(), "big") % 2**63


def bursty(mean: NDArray[np.float64], dispersion: float, dice: np.random.Generator) -> NDArray[np.float64]:
    """Counts with Var / mean = dispersion: Poisson, or with a gamma rate (negative binomial)."""
    if dispersion <= 1.0:
        return dice.poisson(mean).astype(np.float64)
    shape = np.maximum(mean, 1e-9) / (dispersion - 1.0)
    return dice.poisson(dice.gamma(shape, dispersion - 1.0)).astype(np.float64)


def _series(
    each: Service, counts: NDArray[np.float64], labels: str, times: NDArray[np.int64], restart: int
) -> Iterator[str]:
    clock = [f" {at}\n" for at in times.tolist()]

    def written(name: str, gained: NDArray[np.float64], extra: str = "") -> str:
        total = np.cumsum(gained)
        total[restart:] -= total[restart - 1]
        head = f"{name}{{{labels}{extra}}} "
        return "".join([f"{head}{value:.10g}{at}" for value, at in zip(total.tolist(), clock, strict=True)])

    for name, edges, (mean, cv) in (
        ("vllm:time_to_first_token_seconds", TTFT, each.ttft),
        ("vllm:request_time_per_output_token_seconds", TPOT, each.tpot),
        ("vllm:request_prompt_tokens", TOKENS, each.prompt),
        ("vllm:request_generation_tokens", TOKENS, each.output),
    ):
        for edge in edges:
            yield written(f"{name}_bucket", counts * lognormal_cdf(edge, mean, cv), f',le="{edge}"')
        yield written(f"{name}_bucket", counts, ',le="+Inf"')
        yield written(f"{name}_count", counts)
        yield written(f"{name}_sum", counts * mean)
    prompts = counts * each.prompt[0]
    yield written("vllm:prefix_cache_queries_total", prompts)
    yield written("vllm:prefix_cache_hits_total", prompts * each.hits)
    yield written("vllm:num_preemptions_total", np.zeros_like(counts))
    for name in ("vllm:kv_cache_usage_perc", "vllm:num_requests_waiting"):
        yield "".join(f"{name}{{{labels}}} {0.5 if 'kv' in name else 0}{at}" for at in clock)


def lognormal_cdf(x: float, mean: float, cv: float) -> float:
    """Share of a lognormal at most x."""
    spread = np.sqrt(np.log1p(cv * cv))
    score = (np.log(x) - np.log(mean) + spread**2 / 2) / spread
    return statistics.NormalDist().cdf(float(score))


@contextlib.contextmanager
def serving(tsdb: Path, *, config: str = "") -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Prometheus on loopback over these blocks: its URL and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = tsdb.parent / "prometheus.yml"
    file.write_text(config or "scrape_configs: []\n", encoding="utf-8")
    url = f"http://127.0.0.1:{port}"
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={tsdb}", "--log.level=error",
               f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=1000d"]  # fmt: skip
    with (tsdb.parent / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603 - our own program
        try:
            _wait(f"{url}/-/ready", process)
            yield url, process
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(url: str, process: subprocess.Popen[bytes], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - loopback
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    msg = f"Prometheus did not start at {url}"
    raise OSError(msg)


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """Processor seconds of a child that runs; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100.0


def fleet_file(folder: Path, services: Sequence[Service], *, url: str, days: int, scrape_s: int) -> Path:
    """A fleet.yaml whose services are watched."""
    lines = [
        "cluster:", "  pools:",
        "    - {name: h100, gpu: h100_sxm, gpus_per_node: 8, nodes: 8, price: 2.29 USD/GPU/h, failure_domain: a}",
        f"prometheus: {{url: '{url}', days: {days}, scrape: {scrape_s} s}}",
        "intents:",
    ]  # fmt: skip
    for each in services:
        lines += [f"  - name: {each.name}", "    model: meta-llama/Llama-3.1-8B-Instruct",
                  f"    workload: {{prometheus: {{select: {{model_name: org/{each.name}}}}}}}",
                  "    slo: {ttft: 2 s, tpot: 60 ms}"]  # fmt: skip
    path = folder / "fleet.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
