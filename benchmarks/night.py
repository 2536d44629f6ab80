"""Whole nights as Prefect runs: how long, how much of it is Prefect's, and the same plan from two Dask workers.

    python -m benchmarks night --json [--intents 100] [--nodes 1000] [--fleet examples/fleet.yaml] [--no-large]

A Prefect server of its own is started first, and is not counted; then each night is `fleetplan nightly` in a fresh
process on a fresh root, so every probe and every search is made. Two workers of a Dask scheduler on loopback, one
thread each, search the first fleet once more. The large fleet is made: known models in turn, loads from 0.5 to 16
requests a second, equal shares of five GPU types. It is searched on two such workers too, a core each (`--here`: in
one process).

Keys: example_s (from the run's start to its end, Prefect's start besides), example_overhead and large_overhead (share
of that time in which no step was at work: Prefect's bookkeeping, artifacts, what is kept), large_s, large_cpu_s (of all
its processes but the server, their starts included), large_stages (seconds of steps, of both workers together),
large_met (intents), same_on_dask (every file equal, byte for byte), dask_s, dask_overhead (what as many empty batches
take on the same workers, over that and the searches).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).parent.parent
GPUS = (("h100_sxm", 2.29), ("h200_sxm", 3.39), ("a100_sxm", 1.29), ("l40s", 1.55), ("b200_sxm", 5.40))
MODELS = ("Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-32B", "meta-llama/Llama-3.1-70B-Instruct",
          "Qwen/Qwen3-14B", "Qwen/Qwen3-30B-A3B")  # fmt: skip
RATES = (0.5, 1, 2, 4, 8, 16)
START_S = 180.0
WORKERS = 2
EMPTY = """
import sys, time
from prefect import flow
from flows.spread import PER_THREAD, Spread
from flows.steps import Step, in_process

@flow
def empty(address):
    spread = Spread(address, in_process)
    steps = [Step(stage="search", label=str(k), call=int) for k in range(2 * PER_THREAD)]
    spread(steps)
    begun = time.monotonic()
    spread(steps)
    return time.monotonic() - begun

print(empty(sys.argv[1]))
"""


def main(as_json: bool, arguments: list[str]) -> int:  # noqa: FBT001 - the benchmarks' common form
    """Print one line; 1 where the plans differ."""
    parser = argparse.ArgumentParser(prog="benchmarks night", description=__doc__)
    parser.add_argument("--intents", type=int, default=100)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--fleet", type=Path, default=ROOT / "examples" / "fleet.yaml")
    parser.add_argument("--no-large", action="store_true", help="leave the large fleet out")
    parser.add_argument("--here", action="store_true", help="search the large fleet in one process")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as place:
        row = example(place, chosen.fleet.resolve())
        if not chosen.no_large:
            row |= large(place, intents=chosen.intents, nodes=chosen.nodes, here=chosen.here)
    print(json.dumps(row) if as_json else "\n".join(f"{key:20}{value}" for key, value in row.items()), flush=True)
    return 0 if row["same_on_dask"] else 1


class Place:
    """A folder with a Prefect server."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.api = f"http://127.0.0.1:{port}/api"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.environment = {
            **kept, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(folder / "home"), "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
        }  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a module of this Python, its output in `log`."""
        with (self.folder / "log").open("ab") as log:
            argv = [sys.executable, "-m", *arguments]
            return subprocess.Popen(  # noqa: S603 - our own interpreter
                argv, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def night(self, fleet: Path, name: str, *more: str) -> dict[str, Any]:
        """Run a night to its end: seconds of the run, of its tasks by stage, and in which any task was at work."""
        where = ("--root", str(self.folder / name / "var"), "--out", str(self.folder / name / "plans"))
        argv = [sys.executable, "-c", "from flows.cli import main; main()", "nightly", str(fleet), *where, *more]
        done = subprocess.run(argv, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode not in (0, 3):
            raise RuntimeError(done.stderr[-2000:])
        run = self.call("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})[0]
        stages: dict[str, float] = {}
        spans = []
        for task in self._tasks(run["id"]):
            stage = task["name"].split(" ")[0]
            stages[stage] = stages.get(stage, 0.0) + task["total_run_time"]
            spans.append((clock(task["start_time"]), clock(task["end_time"])))
        return {"run_s": run["total_run_time"], "stages": stages, "busy_s": covered(spans)}

    def empty(self, address: str) -> float:
        """Seconds that a stage of empty batches takes on a cluster whose workers are warm."""
        argv = [sys.executable, "-c", EMPTY, address]
        done = subprocess.run(argv, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=True)  # noqa: S603
        return float(done.stdout.splitlines()[-1])

    def _tasks(self, run: str) -> Iterator[dict[str, Any]]:
        asked = {"flow_runs": {"id": {"any_": [run]}}, "limit": 200}
        while page := self.call("/task_runs/filter", {**asked, "offset": (offset := asked.get("offset", 0))}):
            yield from page
            asked["offset"] = offset + len(page)

    def call(self, path: str, body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Call the server."""
        return httpx.post(self.api + path, json=body, timeout=60).raise_for_status().json()

    def plan(self, name: str) -> dict[str, bytes]:
        """Files of a night's plan."""
        folder = self.folder / name / "plans" / "1"
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def served(folder: Path) -> Iterator[Place]:
    """A Prefect server on loopback, ready."""
    place = Place(folder, port := free_port())
    server = place.start("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    try:
        deadline = time.monotonic() + START_S
        while not answers(place):
            if time.monotonic() > deadline:
                raise TimeoutError("Prefect's server did not start")
            time.sleep(0.5)
        yield place
    finally:
        end(server)


def answers(place: Place) -> bool:
    """Whether the server answers."""
    try:
        return httpx.get(f"{place.api}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)


def clock(text: str) -> float:
    """Seconds since 1970 of a time as the server writes it."""
    return datetime.fromisoformat(text).timestamp()


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that lie in any of these spans."""
    total, until = 0.0, -math.inf
    for start, end_s in sorted(spans):
        total += max(0.0, end_s - max(start, until))
        until = max(until, end_s)
    return total


def overhead(night: Mapping[str, Any]) -> float:
    """Share of a run in which no step was at work."""
    return round(1.0 - night["busy_s"] / night["run_s"], 4)


def spent_s() -> float:
    """Processor seconds of the children that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def example(place: Place, fleet: Path) -> dict[str, Any]:
    """The first fleet in one process, and on two Dask workers."""
    here = place.night(fleet, "here")
    with cluster(place) as address:
        there = place.night(fleet, "there", "--dask", address)
        empty = place.empty(address)
    return {
        "example_s": round(here["run_s"], 1),
        "example_overhead": overhead(here),
        "same_on_dask": place.plan("here") == place.plan("there"),
        "dask_s": round(there["run_s"], 1),
        "dask_overhead": round(empty / (empty + there["stages"]["search"] / WORKERS), 4),
    }


@contextmanager
def cluster(place: Place) -> Iterator[str]:
    """A Dask scheduler and two workers of one thread each."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    started = [
        place.start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    ]
    worker = ("distributed.cli.dask_worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard",
              "--no-nanny")  # fmt: skip
    before = registered(place)
    try:
        started += [place.start(*worker) for _ in range(WORKERS)]
        deadline = time.monotonic() + START_S
        while registered(place) < before + WORKERS:
            if time.monotonic() > deadline:
                raise TimeoutError("Dask's workers did not start")
            time.sleep(0.5)
        yield address
    finally:
        for process in reversed(started):
            end(process)


def registered(place: Place) -> int:
    """How often a Dask worker has registered so far."""
    log = place.folder / "log"
    return log.read_text(errors="replace").count("Registered to") if log.exists() else 0


def large(place: Place, *, intents: int, nodes: int, here: bool) -> dict[str, Any]:
    """The made fleet."""
    path = place.folder / "large.yaml"
    path.write_text(yaml.safe_dump(made(intents, nodes), sort_keys=False))
    before = spent_s()
    with nullcontext("") if here else cluster(place) as address:
        night = place.night(path, "large", *(("--dask", address) if address else ()))
    plan = json.loads(place.plan("large")["plan.json"])
    return {
        "intents": intents,
        "nodes": nodes,
        "large_s": round(night["run_s"], 1),
        "large_cpu_s": round(spent_s() - before, 1),
        "large_overhead": overhead(night),
        "large_stages": {stage: round(seconds, 1) for stage, seconds in sorted(night["stages"].items())},
        "large_met": sum(decision["status"] in ("met", "margin_consumed") for decision in plan["intents"]),
    }


def made(intents: int, nodes: int) -> dict[str, Any]:
    """A fleet of that size: equal pools, known models in turn, loads and lengths that differ."""
    counts = [nodes // len(GPUS) + (k < nodes % len(GPUS)) for k in range(len(GPUS))]
    pools = [
        {"name": gpu.replace("_", "-"), "gpu": gpu, "gpus_per_node": 8, "nodes": counts[k],
         "price": f"{price} USD/GPU/h", "network": {"kind": "infiniband", "bandwidth": "400 Gbit/s"}}
        for k, (gpu, price) in enumerate(GPUS)
    ]  # fmt: skip
    wishes = [
        {
            "name": f"service-{k:03}",
            "model": MODELS[k % len(MODELS)],
            "workload": {
                "rate": f"{RATES[(k // len(MODELS)) % len(RATES)]} /s",
                "prompt": {"mean": 300 + 37 * k, "cv": 0.8},
                "output": {"mean": 100 + 3 * k, "cv": 0.7},
            },
            "slo": {"ttft": "2 s", "tpot": "60 ms"},
        }
        for k in range(intents)
    ]
    return {"cluster": {"pools": pools}, "intents": wishes}
