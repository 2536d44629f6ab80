"""Search: how many strategies of one intent are judged per second of one core, how it grows, and beside the peer.

A strategy is a distinct configuration x replica count that got a goodput, or that was rejected for a counted reason.
Step times rest on the roofline and the fitted constants alone, so that the clock sees the search and no table reading.
Growth is measured on copies of the GPU types under other names. The peer is aiconfigurator, where `--peer-python` (or
FLEETPLAN_PEER_PYTHON) names the Python of its own environment: its default search of the same model on the same GPUs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catalog.cluster import Cluster, NodePool
from catalog.fitted import load_constants
from catalog.gpus import GPU, load_gpus
from catalog.models import find_model
from catalog.predictors import Predictor
from catalog.quality import quality
from planner.candidates import Facts, Searched, explore
from planner.fit import fit
from planner.intents import Intent
from planner.memory import DoesNotFit, Memory, memory
from planner.strategies import Configuration, Rejection
from planner.workload import realize

MODEL, CHECKPOINT = "Qwen3-32B", "Qwen/Qwen3-32B-FP8"
ISL, OSL = 1155, 211
TTFT_MS, TPOT_MS = 800, 40
NAMES = ("a100_sxm", "b200_sxm", "h100_sxm", "h200_sxm", "l40s")
#: Copies of each GPU type in the growth series: to about 10^5 strategies.
COPIES = (1, 2, 4, 8, 16)


class World:
    """Copies of the GPU types with a pool of 32 GPUs each, and what the catalog says of them."""

    def __init__(self, names: Sequence[str], *, copies: int = 1) -> None:
        known = load_gpus()
        self.gpus: dict[str, GPU] = {
            f"{name}.{k}": known[name].model_copy(update={"name": f"{name}.{k}", "aliases": ()})
            for name in names
            for k in range(copies)
        }
        pools = tuple(NodePool(name=name, gpu=name, gpus_per_node=8, nodes=4) for name in self.gpus)
        self.cluster = Cluster(pools=pools)
        self.prices = dict.fromkeys(self.gpus, 2.0)
        self.model = find_model(MODEL)
        self.constants = load_constants()

    def predictor_of(self, configuration: Configuration) -> Predictor:
        """Roofline and fitted constants."""
        gpu = self.gpus[configuration.gpu]
        return fit(self.model, gpu, configuration, fingerprint=None, gpus=self.gpus, constants=self.constants)

    def memory_of(self, configuration: Configuration) -> Memory | Rejection:
        """Memory, or why it does not fit."""
        try:
            return memory(self.model, self.gpus[configuration.gpu], configuration)
        except DoesNotFit as refusal:
            name, short = str(configuration), {"missing_bytes": refusal.shortfall}
            return Rejection(
                intent="", strategy=name, reason="does_not_fit_memory", detail=refusal.detail, nearest=short
            )

    def search(self, intent: Intent, *, simulated: int) -> tuple[Searched, dict[str, float]]:
        """Search once, with the seconds it took."""
        requests = realize(intent.workload)
        facts = Facts(predictor_of=self.predictor_of, memory_of=self.memory_of)
        wall, cpu = time.perf_counter(), time.process_time()
        found = explore(
            intent,
            cluster=self.cluster,
            gpus=self.gpus,
            model=self.model,
            requests=requests,
            facts=facts,
            prices=self.prices,
            quality_of=quality,
            simulated=simulated,
        )
        return found, {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


def the_intent(rate: float = 20.0) -> Intent:
    """A chat service at `rate` requests per second."""
    wish = {
        "name": "chat",
        "model": MODEL,
        "workload": {
            "rate": f"{rate} /s",
            "prompt": {"mean": ISL, "cv": 0.96},
            "output": {"mean": OSL, "cv": 0.77},
        },
        "slo": {"ttft": f"{TTFT_MS} ms", "tpot": f"{TPOT_MS} ms"},
    }
    return Intent.model_validate(wish)


def figures(found: Searched, seconds: dict[str, float]) -> dict[str, Any]:
    """What one search did."""
    return {
        "strategies": found.strategies,
        "judged": found.judged,
        "rejected_unjudged": found.strategies - found.judged,
        "rejections": sum(rejection.count for rejection in found.rejections),
        "candidates": len(found.candidates),
        **{name: round(value, 3) for name, value in seconds.items()},
        "us_per_strategy": round(1e6 * seconds["cpu_s"] / found.strategies, 1),
    }


def exponent(first: dict[str, Any], last: dict[str, Any]) -> float:
    """Power of the strategies that cpu_s grows by between two searches: 1 is linear growth."""
    return math.log(last["cpu_s"] / first["cpu_s"]) / math.log(last["strategies"] / first["strategies"])


def peer_search(python: str, gpus: int) -> dict[str, Any]:
    """The peer's wall time for its own search of the same model on one GPU type."""
    program = Path(python).with_name("aiconfigurator")
    arguments = (
        "cli", "default", "--model", CHECKPOINT, "--backend", "vllm", "--total-gpus", str(gpus), "--system", "h200_sxm",
        "--ttft", str(TTFT_MS), "--tpot", str(TPOT_MS), "--isl", str(ISL), "--osl", str(OSL),
    )  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=900, check=False)  # noqa: S603 - a program that the caller named
    return {"wall_s": round(time.perf_counter() - start, 2), "exit_status": done.returncode, "gpus": gpus}


def main(json_only: bool, argv: list[str]) -> int:  # noqa: FBT001 - how every benchmark is called
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks search", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave the growth series at 4 copies")
    parser.add_argument("--peer-python", default=os.environ.get("FLEETPLAN_PEER_PYTHON"))
    options = parser.parse_args(argv)
    World(NAMES[:1]).search(the_intent(), simulated=1)  # compile the kernels once
    one = figures(*World(NAMES).search(the_intent(), simulated=24))
    growth = [
        {"copies": copies, **figures(*World(NAMES, copies=copies).search(the_intent(), simulated=0))}
        for copies in (COPIES[:3] if options.quick else COPIES)
    ]
    same = figures(*World(("h200_sxm",)).search(the_intent(), simulated=24))
    peer = peer_search(options.peer_python, 32) if options.peer_python else None
    result = {
        **one,
        "cpu_s_per_10000": round(1e4 * one["cpu_s"] / one["strategies"], 3),
        "growth_exponent": round(exponent(growth[0], growth[-1]), 3),
        "growth": growth,
        "same_as_peer": same,
        "peer": peer,
    }
    print(json.dumps(result, indent=None if json_only else 2))
    return 0
