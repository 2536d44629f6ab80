"""A real Prefect server, deployments and workers in a folder, for tests that break them; spoken to by plain HTTP."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from small_fleet import FLEET as CHAT

ROOT = Path(__file__).parent.parent
FLEET = (
    CHAT
    + """\
  - name: mail
    model: Qwen/Qwen3-8B
    workload: {rate: 1 /s, prompt: {mean: 900, cv: 0.5, max: 4000}, output: {mean: 60, cv: 0.5, max: 300}}
    slo: {ttft: 2 s, tpot: 80 ms}
    quantizations: [bf16]
    kv_dtypes: [bf16]
    disaggregated: forbidden
"""
)
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(ask: Callable[[], Any], *, seconds: float = 120.0, every: float = 0.5, what: str = "") -> Any:
    """What `ask` answers as soon as that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(httpx.TimeoutException):  # a busy server answers late: this wait has an end of its own
            found = ask()
            if found:
                return found
        time.sleep(every)
    msg = f"waited {seconds:.0f} s in vain {what}"
    raise AssertionError(msg)


@dataclass
class Serving:
    """One folder with a server, its data, and whatever was started there."""

    folder: Path
    port: int = field(default_factory=free_port)
    extra: dict[str, str] = field(default_factory=dict)
    """Further environment of everything."""
    host: str = "127.0.0.1"
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def api(self) -> str:
        """URL of the server's API."""
        return f"http://{self.host}:{self.port}/api"

    @property
    def environment(self) -> dict[str, str]:
        """Environment of every process: data here, no telemetry, our sources."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return {
            **kept, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(self.folder / "home"), "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_EVENTS_WEBSOCKET_BACKFILL_ENABLED": "false", **self.extra,
        }  # fmt: skip

    def start(self, name: str, *arguments: str, module: str = "prefect") -> subprocess.Popen[bytes]:
        """Start a program of this Python as the leader of its own process group, its output in <name>.log."""
        argv = [sys.executable, *(("-m", module) if module else ()), *arguments]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                argv, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        return self.processes[name]

    def serve(self) -> None:
        """Start the server, and wait until it answers."""
        self.start("server", "server", "start", "--host", self.host, "--port", str(self.port))
        until(self.healthy, what="for the server")

    def healthy(self) -> bool:
        """Whether the server answers."""
        try:
            return httpx.get(f"{self.api}/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def work(self, pool: str = "fleetplan") -> subprocess.Popen[bytes]:
        """Start a worker."""
        return self.start(f"worker-{pool}", "worker", "start", "--pool", pool)

    def fleetplan(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run our command line to its end."""
        code = "from flows.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=self.folder, env=self.environment, capture_output=True,
            text=True, timeout=300, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr[-3000:]
        return done

    def kill(self, name: str, how: int = signal.SIGKILL, *, group: bool = True) -> None:
        """Send a signal to a process and, unless told otherwise, to everything that it started."""
        process = self.processes[name]
        if group:
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        if how in (signal.SIGKILL, signal.SIGTERM):
            process.wait(timeout=60)

    def stop(self) -> None:
        """End everything."""
        for name in reversed(list(self.processes)):
            with suppress(ProcessLookupError):
                os.killpg(self.processes[name].pid, signal.SIGKILL)
            self.processes[name].wait(timeout=60)

    def call(self, path: str, body: dict[str, Any] | None = None, *, method: str = "POST") -> Any:
        """Call the API; AssertionError with its words where it refuses."""
        user, _, word = self.extra.get("PREFECT_API_AUTH_STRING", "").partition(":")
        json = body if method != "GET" else None
        auth = (user, word) if user else None
        answer = httpx.request(method, f"{self.api}{path}", json=json, timeout=30, auth=auth)
        for _ in range(5):
            if answer.status_code != 503:  # SQLite is locked for a moment: ask again, as every client of Prefect does
                break
            time.sleep(1)
            answer = httpx.request(method, f"{self.api}{path}", json=json, timeout=30, auth=auth)
        assert answer.is_success, f"{answer.status_code}: {answer.text[:2000]}"
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> str:
        """Id of a deployment by its name."""
        return next(each["id"] for each in self.call("/deployments/filter", {}) if each["name"] == name)

    def run(self, name: str, **parameters: Any) -> str:
        """Start a run of a deployment and return its id."""
        made = self.call(f"/deployments/{self.deployment(name)}/create_flow_run", {"parameters": parameters})
        return str(made["id"])

    def state(self, run: str) -> dict[str, Any]:
        """State of a run."""
        return dict(self.call(f"/flow_runs/{run}", method="GET")["state"])

    def finished(self, run: str, *, seconds: float = 180.0) -> dict[str, Any]:
        """State of a run once it has ended."""
        return dict(until(lambda: (s := self.state(run))["type"] in FINAL and s, seconds=seconds, what=f"for {run}"))

    def reaches(self, run: str, stage: str, *, seconds: float = 120.0) -> None:
        """Wait until a run has begun a stage."""
        asked = {"flow_runs": {"id": {"any_": [run]}}, "task_runs": {"name": {"like_": stage}}}
        until(lambda: self.call("/task_runs/filter", asked), seconds=seconds, every=0.1, what=f"for {stage}")

    def artifacts(self, run: str) -> dict[str, dict[str, Any]]:
        """Artifacts of a run by key."""
        asked = {"artifacts": {"flow_run_id": {"any_": [run]}}}
        return {each["key"]: each for each in self.call("/artifacts/filter", asked)}

    def serials(self) -> list[int]:
        """Published plans."""
        folder = self.folder / "plans"
        return sorted(int(path.parent.name) for path in folder.glob("*/plan.json")) if folder.is_dir() else []


@contextmanager
def serving(
    folder: Path, *, fleet: str = FLEET, deploy: bool = True, host: str = "127.0.0.1", **extra: str
) -> Iterator[Serving]:
    """A server with our deployments in a folder of its own, a fleet, and no worker yet."""
    (folder / "examples").mkdir(parents=True)
    (folder / "examples" / "fleet.yaml").write_text(fleet)
    shutil.copy(ROOT / "prefect.yaml", folder)
    started = Serving(folder, extra=extra, host=host)
    try:
        started.serve()
        if deploy:
            started.fleetplan("deploy", "--root", str(folder / "var"))
        yield started
    finally:
        started.stop()
