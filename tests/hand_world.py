"""A world whose answers can be worked out by hand: two GPU types, one model, and a judge made of mean values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from catalog.cluster import Cluster, NodePool
from catalog.gpus import GPU
from catalog.models import Layer, Model, MoE
from catalog.predictors import Predictor
from planner.candidates import Searched, explore
from planner.candidates.options import Facts
from planner.intents import SLO, Intent
from planner.memory import Memory
from planner.memory.blocks import Groups
from planner.queueing import Transfer
from planner.strategies import Configuration, Estimate, Quantiles, Rejection
from planner.workload import Lengths, Workload, realize

NUMBERS = (
    "compute_capability", "peak", "memory", "bandwidth", "link_bandwidth", "link_latency", "link_domain", "power",
)  # fmt: skip
HBM = {"big": 80e9, "small": 24e9}
SPEED = {"big": 1.0, "small": 0.25}


def gpu(name: str, *, domain: int) -> GPU:
    """A GPU type with round numbers; only its memory and link domain matter here."""
    return GPU(
        name=name,
        vendor="nvidia",
        compute_capability=90,
        peak={"bf16": "1000 TFLOP/s", "fp8": "2000 TFLOP/s"},
        memory=f"{HBM[name]} B",
        bandwidth="3 TB/s",
        link="nvlink" if domain > 1 else "pcie",
        link_bandwidth="450 GB/s",
        link_latency="1 us",
        link_domain=domain,
        power="700 W",
        sources=dict.fromkeys(NUMBERS, "test"),
    )


GPUS = {"big": gpu("big", domain=8), "small": gpu("small", domain=1)}
CLUSTER = Cluster(
    pools=(
        NodePool(name="big-a", gpu="big", gpus_per_node=8, nodes=4),
        NodePool(name="small-a", gpu="small", gpus_per_node=4, nodes=8),
    )
)
ALONE = Cluster(pools=(NodePool(name="big-a", gpu="big", gpus_per_node=8, nodes=2),))
"""One pool: small, for laws that are searched many times."""
PRICES = {"big-a": 2.0, "small-a": 0.6}
LAYER = Layer(attention="full", num_heads=32, num_kv_heads=8, head_dim=128, ffn="dense", intermediate_size=14336)
MODEL = Model(
    name="dense-8b",
    architecture="LlamaForCausalLM",
    hidden_size=4096,
    vocab_size=128256,
    layers=((LAYER, 32),),
    max_position_embeddings=131072,
    digest="0",
    source="test",
)
MOE_MODEL = replace(
    MODEL,
    name="moe",
    layers=((replace(LAYER, ffn="moe", intermediate_size=0), 32),),
    moe=MoE(num_experts=128, top_k=8, intermediate_size=768),
)
WEIGHTS = 16e9


@dataclass(frozen=True)
class Score:
    """A quality."""

    value: float


def quality_of(model: Model, quantization: str, kv_dtype: str) -> Score:  # noqa: ARG001 - the search passes the model
    """Fp8 keeps 0.99, fp8 KV 0.995."""
    return Score(value={"bf16": 1.0, "fp8": 0.99}.get(quantization, 0.95) * (0.995 if kv_dtype == "fp8" else 1.0))


def predictor_of(configuration: Configuration) -> Predictor:
    """A step of 8 ms + 40 us per token, both over the GPU's speed times tp**0.8, fp8 1.4 times faster."""
    speed = SPEED[configuration.gpu] * configuration.tp**0.8 * (1.4 if configuration.quantization == "fp8" else 1.0)
    axis, flat = np.array([1.0, 16384.0]), np.zeros(2)
    return Predictor(
        tokens=axis,
        token_s=axis * 40e-6 / speed,
        sequences=axis,
        sequence_s=flat,
        decode_batch=axis,
        decode_context=axis,
        decode_s=np.zeros((2, 2)),
        chunk=axis,
        prior=axis,
        prefill_s=np.zeros((2, 2)),
        decode_overhead_s=8e-3 / speed,
        mixed_overhead_s=8e-3 / speed,
        request_s=0.0,
        decode_interval=(0.9, 1.1),
        prefill_interval=(0.9, 1.1),
        source="measured",
    )


def memory_of(configuration: Configuration) -> Memory | Rejection:
    """16 GB of weights, 131 kB of KV per token, both split over tp x pp."""
    split = configuration.tp * configuration.pp
    weights = WEIGHTS * (0.5 if configuration.quantization == "fp8" else 1.0) / split
    space = HBM[configuration.gpu] * 0.9 - weights - configuration.max_num_batched_tokens * 1e5
    token = 131072 / split * (0.5 if configuration.kv_dtype == "fp8" else 1.0)
    if space / token < configuration.max_model_len:
        nearest = {"bytes": weights, "bytes_limit": HBM[configuration.gpu]}
        name = str(configuration)
        return Rejection(intent="", strategy=name, reason="does_not_fit_memory", detail="too large", nearest=nearest)
    return Memory(
        weights_bytes=weights,
        activation_bytes=0.0,
        graph_bytes=0.0,
        communication_bytes=0.0,
        kv_bytes=space,
        kv_bytes_per_token=token,
        kv_tokens=int(space / token),
        num_blocks=int(space / token) // 16,
        block_size=16,
        max_concurrency=1.0,
        max_num_batched_tokens=configuration.max_num_batched_tokens,
        groups=Groups(windows=((0, 1),), group_layers=32, layer_token_bytes=token / 32),
    )


def flat(x: float) -> Quantiles:
    """A latency that is the same for every request."""
    return Quantiles(mean=x, p50=x, p90=x, p99=x)


@dataclass(frozen=True)
class HandJudge:
    """Mean values only.

    A replica at load ρ has TPOT a + bSρ and TTFT t0·cv / √replicas / (1 - ρ). Of a pair the prompts alone decide TTFT,
    the outputs alone TPOT, and the link adds its time to TTFT and bounds the rate.
    """

    def _parts(self, engine: Any, requests: Any) -> tuple[float, float, float]:
        a = engine.predictor.decode_overhead_s
        b = float(engine.predictor.token_s[-1] / engine.predictor.tokens[-1])
        prompt, output = float(requests.prompt.mean()), float(requests.output.mean())
        return a, b, min(engine.seqs, max(1.0, engine.kv_tokens / (prompt + output / 2)))

    def seqs(self, engine: Any, requests: Any) -> float:
        """Sequences that KV space holds."""
        return float(engine.kv_tokens / (requests.prompt.mean() + requests.output.mean() / 2))

    def sides(self, engines: Any, requests: Any, transfer: Any) -> tuple[float, float]:
        """Rates of one prefill replica with its link, and of one decode replica."""
        (a, b, _), (a2, b2, batch) = (self._parts(engine, requests) for engine in engines)
        prompt, output = float(requests.prompt.mean()), float(requests.output.mean())
        return min(1 / (a + b * prompt), 1 / link_s(requests, transfer)), 1 / (output * (a2 / batch + b2))

    def latency(self, engine: Any, requests: Any, slo: SLO | None, *, rate: float, replicas: int) -> dict[str, float]:  # noqa: ARG002 - idle
        """Of idle replicas."""
        a, b, _ = self._parts(engine, requests)
        ttft = (a + b * float(requests.prompt.mean())) * requests.arrival_cv / math.sqrt(replicas)
        return {"ttft": ttft, "tpot": a, "e2e": ttft + float(requests.output.mean()) * a}

    def capacity(self, engines: Any, requests: Any, *, transfer: Any = None) -> float:
        """Requests per second of a full batch."""
        if transfer is not None:
            return min(self.sides(engines, requests, transfer))
        a, b, batch = self._parts(engines[0], requests)
        work = float((requests.prompt - requests.cached).mean()) * b
        return 1.0 / (float(requests.output.mean()) * (a / batch + b) + work)

    def goodput(self, engines: Any, requests: Any, slo: SLO | None, *, replicas: Any, transfer: Any = None) -> float:
        """The load at which TTFT or TPOT reaches its limit, times capacity."""
        a, b, _ = self._parts(engines[0], requests)
        a2, b2, batch = self._parts(engines[-1], requests)
        first, later = 1.0, 1.0
        if slo is not None and slo.ttft is not None:
            left = slo.ttft - (link_s(requests, transfer) if transfer else 0.0)
            alone = (a + b * float(requests.prompt.mean())) * requests.arrival_cv / math.sqrt(max(1, replicas[0]))
            first = max(0.0, 1 - alone / left) if left > 0 else 0.0
        if slo is not None and slo.tpot is not None:
            later = min(1.0, max(0.0, (slo.tpot - a2) / (b2 * batch)))
        if transfer is None:
            return min(first, later) * self.capacity(engines, requests) * replicas[0]
        prompts, tokens = self.sides(engines, requests, transfer)
        return min(first * prompts * replicas[0], later * tokens * replicas[1])

    def holds(self, engines: Any, requests: Any, slo: SLO, *, replicas: Any, transfer: Any = None) -> bool:
        """Whether goodput covers the rate."""
        return self.goodput(engines, requests, slo, replicas=replicas, transfer=transfer) >= requests.rate

    def estimate(self, strategy: Any, engines: Any, requests: Any, slo: SLO | None, *, method: Any) -> Estimate:
        """The same formulas read the other way."""
        counts = tuple(pool.replicas for pool in strategy.pools)
        network = None
        if len(counts) == 2:
            each = engines[0].kv_bytes_per_token
            network = Transfer(
                bandwidth=strategy.transfer_bandwidth, latency_s=strategy.transfer_latency, kv_bytes_per_token=each
            )
        sides = self.sides(engines, requests, network) if network else (self.capacity(engines, requests),)
        loads = [requests.rate / n / side for n, side in zip(counts, sides, strict=True)]
        a, b, _ = self._parts(engines[0], requests)
        a2, b2, batch = self._parts(engines[-1], requests)
        ttft = (a + b * float(requests.prompt.mean())) * requests.arrival_cv / math.sqrt(counts[0])
        ttft = ttft / max(1e-3, 1 - loads[0]) + (link_s(requests, network) if network else 0.0)
        tpot = a2 + b2 * batch * loads[-1]
        slow = tuple(engine.paced(engine.predictor.pessimistic) for engine in engines)
        return Estimate(
            ttft=flat(ttft),
            tpot=flat(tpot),
            e2e=flat(ttft + float(requests.output.mean()) * tpot),
            ttft_high=1.1 * ttft,
            tpot_high=1.1 * tpot,
            attainment=1.0,
            goodput=self.goodput(engines, requests, slo, replicas=counts, transfer=network),
            goodput_low=self.goodput(slow, requests, slo, replicas=counts, transfer=network),
            slo_probability=1.0,
            utilisation=max(loads),
            kv_utilisation=0.5,
            watts_per_gpu=None,
            method=method,
            source="measured",
        )


def link_s(requests: Any, transfer: Any) -> float:
    """Seconds that one prompt's KV takes over the network."""
    return float(transfer.latency_s + requests.prompt.mean() * transfer.kv_bytes_per_token / transfer.bandwidth)


def intent(*, rate: float = 20.0, **changes: Any) -> Intent:
    """A chat service with an SLO of 400 ms and 50 ms, with changes."""
    workload = Workload(rate=f"{rate} /s", prompt=Lengths(mean=600, cv=0.5), output=Lengths(mean=150, cv=0.5))
    limits = {"slo": SLO(ttft="400 ms", tpot="50 ms"), **changes}
    return Intent(name="chat", model="dense-8b", workload=workload, **limits)


def world(wish: Intent, **changes: Any) -> dict[str, Any]:
    """The keyword arguments of a search, with changes."""
    given = {
        "cluster": CLUSTER,
        "gpus": GPUS,
        "model": MODEL,
        "requests": realize(wish.workload, n=256),
        "facts": Facts(predictor_of=predictor_of, memory_of=memory_of),
        "prices": PRICES,
        "quality_of": quality_of,
        "judge": HandJudge(),
    }
    return {**given, **changes}


def found(wish: Intent, **changes: Any) -> Searched:
    """What the search finds in this world."""
    return explore(wish, **world(wish, **changes))


def cheapest(wish: Intent, **changes: Any) -> float:
    """Dollars per hour of the cheapest candidate for the whole rate, infinite where there is none."""
    return min((c.cost_per_hour for c in found(wish, **changes).candidates if c.share == 1.0), default=math.inf)
