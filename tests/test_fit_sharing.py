"""Engines that share a GPU: off unless a pool says so, memory divided, time dilated, never more than the GPU holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from small_fleets import candidate, dice, fleet, intent, pool

from catalog.cluster import Cluster
from catalog.flags import check_arguments
from catalog.gpus import load_gpus
from catalog.models import find_model
from catalog.predictors import Predictor
from flows.fleet import read_fleet
from flows.night import plan_night
from flows.site import site_at
from planner.candidates.space import hosts
from planner.fit.sharing import SWITCHING, dilated, dilation
from planner.intents import Team
from planner.manifests import render
from planner.memory import DoesNotFit, memory
from planner.placement import place, validate
from planner.placement.bins import bin_classes
from planner.plan import ReplicaGroup, from_json, to_json
from planner.predict import step_time
from planner.strategies import Configuration

L40S = load_gpus()["l40s"]
SMALL = find_model("Qwen/Qwen3-8B")
SHAPE = Configuration(model=SMALL.name, gpu="l40s", quantization="fp8", max_num_seqs=16, max_num_batched_tokens=2048)


def predictor() -> Predictor:
    """10 ms a step and 1 ms for each sequence more."""
    one = np.array([0.0, 1.0])
    return Predictor(
        tokens=one, token_s=np.zeros(2), sequences=one, sequence_s=np.array([0.0, 1e-3]),
        decode_batch=one, decode_context=one, decode_s=np.zeros((2, 2)), chunk=one, prior=one,
        prefill_s=np.zeros((2, 2)), decode_overhead_s=0.01, mixed_overhead_s=0.02, request_s=0.001,
        decode_interval=(0.9, 1.2), prefill_interval=(0.8, 1.3), source="roofline",
    )  # fmt: skip


# --- time ---


@pytest.mark.parametrize("engines", [1, 2, 4, 8])
def test_steps_are_as_long_as_if_all_neighbours_were_busy(engines: int) -> None:
    """With k engines k steps and what turns cost, the slow end with it; the fast end as if the others slept."""
    alone = predictor()
    shared = dilated(alone, engines)
    times = engines * SWITCHING if engines > 1 else 1.0
    assert dilation(engines) == times
    before, after = (float(step_time(one, decodes=4, context=100)) for one in (alone, shared))
    assert after == pytest.approx(times * before)
    slow = [float(step_time(one.pessimistic, decodes=4, context=100)) for one in (alone, shared)]
    assert slow[1] == pytest.approx(times * slow[0])
    fast = [float(step_time(one.optimistic, decodes=4, context=100)) for one in (alone, shared)]
    assert fast[1] == pytest.approx(fast[0])
    assert (shared is alone) or any("share the GPU" in note for note in shared.notes)


# --- memory ---


@pytest.mark.parametrize("model", ["Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-0.6B"])
@pytest.mark.parametrize("engines", [2, 3, 4])
def test_engines_together_stay_within_the_gpu(model: str, engines: int) -> None:
    """Weights, activations, graphs, KV space and process of k equal engines are no more than the GPU has."""
    found = find_model(model)
    shape = dataclasses.replace(SHAPE, model=found.name, max_model_len=2048, engines_per_gpu=engines)
    try:
        held = memory(found, L40S, shape)
    except DoesNotFit:
        part, whole = (
            L40S.model_copy(update={"memory": L40S.memory / engines}),
            dataclasses.replace(shape, engines_per_gpu=1),
        )
        try:
            left = memory(found, part, whole).kv_bytes
        except DoesNotFit:
            left = 0.0
        assert left < 1.5e9  # less than a process and one long request
        return
    assert engines * (held.used_bytes + held.kv_bytes) <= L40S.memory * 0.92
    alone = memory(found, L40S, dataclasses.replace(shape, engines_per_gpu=1))
    assert held.kv_bytes < alone.kv_bytes / engines


# --- where ---


def test_off_by_default_and_never_mixed() -> None:
    """A pool takes what shares as it says: whole GPUs where it says nothing, parts of that size alone where it does."""
    for engines in (1, 2, 4):
        one = pool("c", "l40s", engines_per_gpu=engines)
        bins = bin_classes(Cluster(pools=(one,)))["c"]
        for other in (1, 2, 4):
            shape = dataclasses.replace(SHAPE, engines_per_gpu=other)
            assert hosts(one, L40S, shape) == (engines == other)
            assert (bins.slot(shape) is not None) == (engines == other)
        assert bins.capacity(1) == 16 * engines
    assert pool().engines_per_gpu == 1
    assert Configuration(model="m", gpu="l40s").engines_per_gpu == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_many_small_services_share_and_none_is_seated_twice(seed: int) -> None:
    """Any number of small services: at most k on a GPU, so k times the GPUs on a node; what does not fit is unmet."""
    random = dice(seed)
    engines, gpus = random.choice((2, 3, 4)), random.choice((1, 2, 8))
    pools = [pool("c", "l40s", nodes=2, gpus_per_node=gpus, engines_per_gpu=engines)]
    names = [f"s{n}" for n in range(random.randint(1, 12))]
    wishes = fleet(pools, [intent(name) for name in names])
    offers = {
        name: [candidate("c", of=name, gpu="l40s", replicas=random.randint(1, 4), engines_per_gpu=engines)]
        for name in names
    }
    placed = place(wishes, offers)
    assert validate(placed, wishes, candidates=offers) == []
    seated = sum(len(seats.nodes) for one in placed.served for seats in one.seats)
    wanted = sum(offers[name][0].strategy.pools[0].replicas for name in names)
    room = 2 * gpus * engines
    assert seated <= room
    assert (seated == wanted) == (wanted <= room)
    assert any("up to" in note for note in placed.solved.notes)


def test_the_validator_refuses_what_shares_without_leave() -> None:
    """An engine made for a quarter of a GPU on a pool of whole ones, and more engines than parts, are faults."""
    open_, shut = (fleet([pool("c", "l40s", nodes=1, gpus_per_node=1, engines_per_gpu=k)], [intent()]) for k in (4, 1))
    offers = {"chat": [candidate("c", gpu="l40s", replicas=4, engines_per_gpu=4)]}
    placed = place(open_, offers)
    assert [one.status for one in placed.served] == ["met"]
    assert validate(placed, open_, candidates=offers) == []
    said = " ".join(validate(placed, shut, candidates=offers))
    assert "is made for 4 engines on a GPU, and 1 share each of node pool 'c'" in said
    assert "node c-0 holds 4 GPUs of 1" in said
    refused = place(shut, offers)
    assert refused["chat"].status == "unmet"
    assert "it takes 1/4 of a GPU, and 1 engines share each GPU of node pool 'c'" in refused["chat"].reason


def test_quotas_and_shortages_count_whole_gpus() -> None:
    """Six quarters are 1.5 GPUs: within a quota of 2, above one of 1; two services of six lack one GPU of two."""
    pools = [pool("c", "l40s", nodes=1, gpus_per_node=2, engines_per_gpu=4)]
    six = {name: [candidate("c", of=name, gpu="l40s", replicas=6, engines_per_gpu=4)] for name in ("x", "y")}
    for quota, status in ((2, "met"), (1, "unmet")):
        wishes = fleet(pools, [intent("x", team="t")], teams=(Team(name="t", quota={"l40s": quota}),))
        assert place(wishes, six)["x"].status == status
    placed = place(fleet(pools, [intent("x"), intent("y")]), six)
    assert placed.missing_gpus == {"c": 1}


# --- whole nights ---

FLEET = """
cluster:
  pools:
    - {name: shared, gpu: l40s, gpus_per_node: 2, nodes: 1, price: 1 USD/GPU/h, engines_per_gpu: 2}
intents:
  - name: one
    model: Qwen/Qwen3-8B
    workload: {rate: 0.2 /s, prompt: {mean: 200, cv: 0.5, max: 800}, output: {mean: 50, cv: 0.5, max: 200}}
    slo: {ttft: 3 s, tpot: 150 ms}
  - name: two
    model: Qwen/Qwen3-4B
    workload: {rate: 0.2 /s, prompt: {mean: 200, cv: 0.5, max: 800}, output: {mean: 50, cv: 0.5, max: 200}}
    slo: {ttft: 3 s, tpot: 150 ms}
"""


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    """The same two small services on shared GPUs, twice, and on whole ones."""
    folder = tmp_path_factory.mktemp("nights")
    (folder / "fleet.yaml").write_text(FLEET)
    found = [plan_night(read_fleet(folder / "fleet.yaml"), site_at(str(folder / "var"), str(folder / "plans")))]
    found.append(plan_night(read_fleet(folder / "fleet.yaml"), site_at(str(folder / "var"), str(folder / "plans"))))
    (folder / "fleet.yaml").write_text(FLEET.replace(", engines_per_gpu: 2", ""))
    found.append(plan_night(read_fleet(folder / "fleet.yaml"), site_at(str(folder / "var2"), str(folder / "plans2"))))
    return folder, found


def test_two_services_on_one_gpu_cost_half(nights: tuple[Path, list]) -> None:
    """Half the dollars of a GPU each; a second night keeps them; without the option nothing says a word of sharing."""
    shared, again, whole = (night.plan for night in nights[1])
    assert [one.status for one in (*shared.intents, *whole.intents)] == ["met"] * 4
    assert (shared.cost_per_hour, whole.cost_per_hour) == (1.0, 2.0)
    assert [pool.used for pool in (*shared.pools, *whole.pools)] == [1, 2]
    assert again.digest == shared.digest
    assert "engines_per_gpu" not in to_json(whole)
    assert from_json(to_json(shared)) == shared
    assert (
        ReplicaGroup.model_validate_json(json.dumps(json.loads(to_json(shared))["placements"][0])).engines_per_gpu == 2
    )


def test_manifests_hold_each_engine_to_its_part(nights: tuple[Path, list]) -> None:
    """KV space, start-up check, resource and device of each engine are those of its part of the GPU."""
    plan = nights[1][0].plan
    files = render(plan)
    budget = L40S.memory * 0.92 / 2
    for group in plan.placements:
        held = memory(find_model(group.model), L40S, dataclasses.replace(
            SHAPE, model=group.model, quantization=group.quantization, kv_dtype=group.kv_dtype, engines_per_gpu=2,
            max_num_seqs=group.max_num_seqs, max_num_batched_tokens=group.max_num_batched_tokens,
            max_model_len=group.max_model_len,
        ))  # fmt: skip
        assert group.kv_cache_memory_bytes == int(held.kv_bytes)
        assert held.used_bytes + held.kv_bytes <= budget
    everything = "\n".join(files.values())
    assert "--gpu-memory-utilization=0.46" in everything
    assert "nvidia.com/gpu.shared: 1" in everything
    assert "nvidia.com/gpu: 1" not in everything
    compose = [yaml.safe_load(text) for name, text in files.items() if name.startswith("compose/")]
    services = [service for file in compose for service in file["services"].values()]
    devices = [one["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for one in services]
    assert devices == [["0"], ["0"]]
    assert not check_arguments(plan.vllm_version, {"gpu-memory-utilization": 0.46})
    whole = "\n".join(render(nights[1][2].plan).values())
    assert "gpu-memory-utilization" not in whole
    assert ".shared" not in whole


def test_what_cannot_share_is_refused_in_words(nights: tuple[Path, list]) -> None:
    """Tensor parallelism, and weights above a part, are counted out with the reason."""
    said = " ".join(rejection.detail for rejection in nights[1][0].plan.rejections)
    assert "takes only engines that share a GPU" in said
