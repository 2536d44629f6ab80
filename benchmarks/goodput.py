"""Goodput: the closed form and the hybrid against exhaustive simulation, over 1,000 configurations and 8 problems.

Truth is the simulator itself on every configuration (`planner.simulate`, which agrees event for event with its plain
twin), so this measures what screening loses, not how well step times are predicted. The configurations are 30 engines
(five GPUs by bandwidth, compute and memory, TP 1-4, 8- and 16-bit weights) with tables bent as rooflines are, each with
59 pairs of max_num_seqs and max_num_batched_tokens; the objective is goodput per dollar. `--quick` takes every tenth.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.predictors import Predictor
from planner.goodput import goodput
from planner.intents import SLO
from planner.queueing import Engine, kv_aware_seqs
from planner.simulate import Burst, simulate
from planner.workload import Requests

TOP = 20
"""Configurations that the hybrid simulates after screening."""
REQUESTS = 4000
"""Rows of a problem's sample of lengths."""
SEQS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
BUDGETS = (512, 1024, 2048, 4096, 16384)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A named workload with an SLO."""

    name: str
    prompt: tuple[float, float]
    """Mean and coefficient of variation (lognormal)."""
    output: tuple[float, float]
    slo: SLO
    arrival_cv: float = 1.0
    burst: Burst | None = None
    kv_share: float = 1.0
    """Share of the memory's KV space that is left: small ones make KV the limit."""


def slo(ttft: str, tpot: str, attainment: float = 0.9) -> SLO:
    """Marginal limits."""
    return SLO(ttft=ttft, tpot=tpot, attainment=attainment)


PROBLEMS = (
    Problem(name="chat", prompt=(220, 1.3), output=(200, 1.0), slo=slo("200 ms", "25 ms")),
    Problem(name="chat_gamma1.5", prompt=(220, 1.3), output=(200, 1.0), slo=slo("200 ms", "25 ms"), arrival_cv=1.5),
    Problem(name="conversation", prompt=(1155, 0.96), output=(211, 0.77), slo=slo("500 ms", "30 ms")),
    Problem(
        name="conversation_mmpp", prompt=(1155, 0.96), output=(211, 0.77), slo=slo("800 ms", "40 ms"),
        burst=Burst(ratio=2.5, high_s=5.0, low_s=15.0),
    ),
    Problem(name="rag", prompt=(6000, 0.5), output=(200, 1.0), slo=slo("2500 ms", "50 ms")),
    Problem(name="code_gamma2", prompt=(2048, 0.96), output=(28, 2.15), slo=slo("1500 ms", "60 ms"), arrival_cv=2.0),
    Problem(name="reasoning_kv", prompt=(500, 1.0), output=(2000, 1.0), slo=slo("1 s", "40 ms"), kv_share=0.15),
    Problem(
        name="documents_kv_gamma1.5", prompt=(3000, 0.6), output=(800, 0.8), slo=slo("2 s", "60 ms"), arrival_cv=1.5,
        kv_share=0.25,
    ),
)  # fmt: skip

#: GPU-like machines: bytes/s, FLOP/s, bytes, dollars per hour. Round numbers of today's range.
MACHINES = {
    "small": (0.6e12, 120e12, 24e9, 0.9),
    "medium": (0.9e12, 360e12, 48e9, 1.6),
    "large": (2.0e12, 310e12, 80e9, 2.2),
    "fast": (3.3e12, 990e12, 80e9, 3.0),
    "wide": (4.8e12, 990e12, 141e9, 3.8),
}
PARAMETERS, LAYERS = 8e9, 32
KV_BYTES = 131_072.0
"""Of one token: 32 layers, 8 heads of 128, keys and values in 16 bits."""


def engine_of(machine: str, tp: int, bits: int, kv_share: float) -> tuple[Engine, float] | None:
    """An engine with roofline-like tables and its price, or None where weights leave no KV space."""
    bandwidth, flops, memory, price = MACHINES[machine]
    weights = PARAMETERS * bits / 8
    room = (0.9 * memory - 2e9) * tp - weights
    if room < 2e9:
        return None
    reads, rate = bandwidth * 0.8 * tp, flops * 0.5 * tp * (2.0 if bits == 8 else 1.0)
    links = 0.0 if tp == 1 else LAYERS * 2 * 12e-6 * np.log2(tp)
    tokens = np.unique(np.geomspace(1, 16384, 40).astype(int)).astype(float)
    # weights are streamed or tokens computed, whichever takes longer, with a round corner
    token_s = (
        ((weights / reads) ** 4 + (2 * PARAMETERS * tokens / rate) ** 4) ** 0.25 + links + 2e-8 * tokens * (tp > 1)
    )
    batch, context = np.array([1.0, 8, 32, 128, 512]), np.array([0.0, 512, 2048, 8192, 65536])
    decode_s = KV_BYTES * np.outer(batch, context) / reads + 1e-4 * (1 + batch[:, None] / 256)
    chunk, prior = np.unique(np.geomspace(2, 16384, 24).astype(int)).astype(float), np.array([0.0, 65536.0])
    pairs = chunk[:, None] * prior[None, :] + chunk[:, None] ** 2 / 2
    prefill_s = 4.0 * LAYERS * 4096 * pairs / (0.4 * flops * tp) + KV_BYTES * prior[None, :] / reads
    predictor = Predictor(
        tokens=tokens, token_s=token_s, sequences=np.array([0.0, 512]), sequence_s=np.array([5e-5, 1.5e-3]),
        decode_batch=batch, decode_context=context, decode_s=decode_s, chunk=chunk, prior=prior, prefill_s=prefill_s,
        decode_overhead_s=8e-4, mixed_overhead_s=2e-3, request_s=5e-3, decode_interval=(0.9, 1.1),
        prefill_interval=(0.85, 1.18), source="roofline",
    )  # fmt: skip
    tokens_held = int(room * kv_share / KV_BYTES)
    return Engine(
        predictor=predictor, kv_tokens=tokens_held, max_model_len=min(tokens_held // 16 * 16, 32768)
    ), price * tp


def configurations(problem: Problem, requests: Requests) -> list[tuple[Engine, float]]:
    """Every engine with every pair of limits, max_num_seqs below the preemption cliff; each configuration once."""
    found: dict[tuple[str, int, int, int, int], tuple[Engine, float]] = {}
    for machine in MACHINES:
        for tp in (1, 2, 4):
            for bits in (16, 8):
                made = engine_of(machine, tp, bits, problem.kv_share)
                for seqs, budget in ((s, b) for s in SEQS for b in BUDGETS if b > s and made is not None):
                    engine = replace(made[0], max_num_seqs=seqs, max_num_batched_tokens=budget)
                    capped = kv_aware_seqs(engine, requests)
                    found[machine, tp, bits, capped, budget] = (replace(engine, max_num_seqs=capped), made[1])
    return list(found.values())


def workload(problem: Problem, n: int) -> Requests:
    """Lognormal lengths, cut to what the smallest engine takes."""
    rng = np.random.default_rng(11)

    def draw(mean: float, cv: float, longest: int) -> NDArray[np.int64]:
        sigma = np.sqrt(np.log1p(cv * cv))
        return np.clip(np.rint(rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, n)), 1, longest).astype(np.int64)

    return Requests(
        rate=1.0, prompt=draw(*problem.prompt, 24_000), output=draw(*problem.output, 8_000), cached=np.zeros(n,
        np.int64), arrival_cv=problem.arrival_cv,
    )  # fmt: skip


def judge(problem: Problem, every: int) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Screen and simulate every configuration of one problem: its row, and the screen's errors."""
    requests = workload(problem, REQUESTS)
    chosen = configurations(problem, requests)[::every]
    engines = [engine for engine, _ in chosen]
    prices = np.array([price for _, price in chosen])
    screen, truth, bounds = (np.zeros(len(engines)) for _ in range(3))
    simulated = 0
    goodput(engines[0], requests, problem.slo, burst=problem.burst)
    start = time.process_time()
    for i, engine in enumerate(engines):
        screen[i] = goodput(engine, requests, problem.slo, burst=problem.burst).rate
    screened = time.process_time() - start
    start = time.process_time()
    for i, engine in enumerate(engines):
        found = goodput(engine, requests, problem.slo, burst=problem.burst, method="simulated", seed=5)
        truth[i], bounds[i], simulated = found.rate, found.capacity, simulated + found.evaluations
    spent = time.process_time() - start
    row = compare(problem.name, screen, truth, prices) | {
        "goodput_over_capacity": float(np.median((truth / bounds)[truth > 0])),
        "us_per_goodput": 1e6 * screened / len(engines),
        "simulations": simulated,
        "ms_per_simulated_goodput": 1e3 * spent / len(engines),
        "cpu_s": spent + screened,
    }
    return row, errors_of(screen, truth)


def compare(
    name: str, screen: NDArray[np.float64], truth: NDArray[np.float64], prices: NDArray[np.float64]
) -> dict[str, Any]:
    """Errors of the screen where a goodput exists, rank correlation, and what the hybrid loses against exhaustion."""
    feasible = truth > 0
    errors = errors_of(screen, truth)
    by_screen = np.argsort(-screen / prices, kind="stable")
    best = (truth / prices).max()
    regrets = {k: 1.0 - (truth / prices)[by_screen[:k]].max() / best for k in (1, 5, TOP)}
    return {
        "problem": name, "configurations": len(truth), "feasible": int(feasible.sum()),
        "median_error": float(np.median(errors)), "p90_error": float(np.quantile(errors, 0.9)),
        "bias": float(np.median(screen[feasible] / truth[feasible] - 1.0)), "spearman": spearman(screen[feasible],
        truth[feasible]), "regret_top1": float(regrets[1]), "regret_top5": float(regrets[5]), "regret":
        float(regrets[TOP]),
    }  # fmt: skip


def errors_of(screen: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Relative errors of the screen where a goodput exists."""
    feasible = truth > 0
    return np.abs(screen[feasible] / truth[feasible] - 1.0)


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Rank correlation, ties by their mean rank."""

    def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        return np.asarray((ends - (counts - 1) / 2.0)[inverse])

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def speed() -> float:
    """Simulated requests per second and core: one engine of the conversation problem at 70 % of its capacity."""
    problem = PROBLEMS[2]
    requests = workload(problem, 100_000)
    made = engine_of("fast", 1, 16, 1.0)
    if made is None:
        return float("nan")
    engine = replace(made[0], max_num_seqs=256, max_num_batched_tokens=2048)
    bound = goodput(engine, requests, problem.slo).capacity
    simulate(engine, requests, rate=0.7 * bound, n=1000)
    start = time.process_time()
    simulate(engine, requests, rate=0.7 * bound)
    return 100_000 / (time.process_time() - start)


def main(json_lines: bool, argv: list[str]) -> int:  # noqa: FBT001 - keywords
    """Print one line per problem and the headline last."""
    every = 10 if "--quick" in argv else 1
    rows, errors = [], []
    for problem in PROBLEMS:
        row, found = judge(problem, every)
        rows.append(row)
        errors.append(found)
        show(row, json_lines)
    whole = {
        "problems": len(rows),
        "configurations": min(row["configurations"] for row in rows),
        "hybrid_regret_mean": float(np.mean([row["regret"] for row in rows])),
        "cpu_s": float(sum(row["cpu_s"] for row in rows)),
    }
    show(whole, json_lines)
    headline = {
        "screen_median_error": float(np.median(np.concatenate(errors))),  # over all problems and configurations
        "screen_spearman": min(row["spearman"] for row in rows),  # of the worst problem
        "screen_us_per_goodput": float(np.mean([row["us_per_goodput"] for row in rows])),
        "simulated_requests_per_s": speed(),
        "hybrid_regret": max(row["regret"] for row in rows),  # of the worst problem
    }
    show(headline, json_lines)
    return 0


def show(row: dict[str, Any], json_lines: bool) -> None:  # noqa: FBT001 - keywords
    """Print a row."""
    if json_lines:
        print(json.dumps(row), flush=True)
    else:
        print(
            "  ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            ),
            flush=True,
        )
