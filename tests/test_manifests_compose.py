"""`planner.manifests.compose`: one file per node that compose reads and GPUs can hold."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml
from random_plans import golden_plans, random_plan

from planner.manifests import render
from planner.plan import Plan, from_json

SAMPLE = Path(__file__).parent / "plans" / "sample.json"
COMPOSE = next((name for name in ("docker-compose",) if shutil.which(name)), None)


def sample() -> Plan:
    """The hand-made plan."""
    return from_json(SAMPLE.read_text(encoding="utf-8"))


def nodes(plan: Plan) -> dict[str, dict]:
    """Every node's file."""
    return {path: yaml.safe_load(text) for path, text in render(plan, formats=["compose"]).items()}


def devices(service: dict) -> list[str]:
    """GPUs that a service reserves."""
    found = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    return [device for entry in found for device in entry["device_ids"]]


@pytest.mark.parametrize("seed", [None, *range(8)])
def test_no_gpu_and_no_port_is_given_twice(seed: int | None) -> None:
    """On each node every service has GPUs, a port and a side channel of its own, as many as the plan places."""
    plan = sample() if seed is None else random_plan(seed)
    held: Counter[str] = Counter()
    for value in nodes(plan).values():
        taken = [device for service in value["services"].values() for device in devices(service)]
        assert len(taken) == len(set(taken))
        ports = [p for s in value["services"].values() for p in s["command"] if p.startswith("--port=")]
        assert len(ports) == len(set(ports))
        sides = [
            s["environment"].get("VLLM_NIXL_SIDE_CHANNEL_PORT")
            for s in value["services"].values()
            if "environment" in s
        ]
        assert len([side for side in sides if side]) == len({side for side in sides if side})
        held[value["x-fleetplan"]["node"]] += len(taken)
    placed = sum(share.gpus for group in plan.placements for replica in group.nodes for share in replica)
    assert sum(held.values()) == placed


def test_the_router_knows_every_replica() -> None:
    """The pair's router names each prefill and decode server once, with its role."""
    (router,) = [s for v in nodes(sample()).values() for name, s in v["services"].items() if name.endswith("-router")]
    options = dict(part.removeprefix("--").split("=", 1) for part in router["command"])
    assert options["static-model-labels"] == "prefill,prefill,decode,decode,decode"
    assert len(set(options["static-backends"].split(","))) == 5


def test_a_replica_over_nodes_starts_on_each() -> None:
    """Ranks count up, all name the first node as master, and only that one answers."""
    ranks = {n: s for v in nodes(sample()).values() for n, s in v["services"].items() if n.startswith("research")}
    assert sorted(ranks) == ["research-0-rank0", "research-0-rank1"]
    for rank, service in enumerate(ranks[name] for name in sorted(ranks)):
        assert f"--node-rank={rank}" in service["command"]
        assert "--master-addr=h100-eu-5" in service["command"]
        assert ("--headless" in service["command"]) == (rank > 0)
        assert ("healthcheck" in service) == (rank == 0)


@pytest.mark.skipif(COMPOSE is None, reason="needs docker-compose")
@pytest.mark.parametrize("name", sorted(golden_plans()))
def test_compose_reads_the_files(tmp_path: Path, name: str) -> None:
    """`docker-compose config` accepts every node's file."""
    for path, text in render(golden_plans()[name], formats=["compose"]).items():
        file = tmp_path / Path(path).name
        file.write_text(text)
        done = subprocess.run(
            [str(COMPOSE), "-f", str(file), "config", "-q"],
            env={"NODE_ADDRESS": "10.0.0.1", "PATH": "/usr/bin:/bin:/usr/local/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
