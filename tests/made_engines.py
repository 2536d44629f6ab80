"""Engines and requests made by hand or at random, for the tests of step times, queueing and simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from catalog.predictors import Predictor
from planner.queueing import Engine, EngineRules
from planner.workload import Requests


def linear(*, a: float, b: float, c: float = 0.0, q: float = 0.0, **changes: Any) -> Predictor:
    """Step = a + b·tokens + c·tokens read by decodes + q·Σ chunk·prior; all of it exactly representable."""
    chunk, prior = np.array([1.0, 20_000.0]), np.array([0.0, 100_000.0])
    batch, context = np.array([0.0, 1000.0]), np.array([0.0, 100_000.0])
    given = {
        "tokens": np.array([1.0, 20_000.0]),
        "token_s": b * np.array([1.0, 20_000.0]),
        "sequences": np.array([0.0, 1000.0]),
        "sequence_s": np.zeros(2),
        "decode_batch": batch,
        "decode_context": context,
        "decode_s": c * np.outer(batch, context),
        "chunk": chunk,
        "prior": prior,
        "prefill_s": q * np.outer(chunk, prior),
        "decode_overhead_s": a,
        "mixed_overhead_s": a,
        "request_s": 0.0,
        "decode_interval": (0.9, 1.1),
        "prefill_interval": (0.85, 1.2),
        "source": "measured",
    }
    return Predictor(**(given | changes))


def engine(predictor: Predictor, **limits: Any) -> Engine:
    """An engine with room to spare, but for the limits given."""
    return Engine(
        predictor=predictor,
        **(
            {"kv_tokens": 400_000, "max_num_seqs": 256, "max_num_batched_tokens": 2048, "max_model_len": 32_768}
            | limits
        ),
    )


def served(*, rate: float = 1.0, cv: float = 1.0, prompt: Any, output: Any, cached: Any = 0, **more: Any) -> Requests:
    """Requests of these lengths (arrays, or numbers for 4,096 equal ones)."""
    size = max(np.size(prompt), np.size(output), np.size(cached))
    size = 4096 if size == 1 and more.get("arrival_s") is None else max(size, np.size(more.get("arrival_s", 0)))
    lengths = (np.broadcast_to(np.asarray(x, np.int64), size).copy() for x in (prompt, output, cached))
    p, o, c = lengths
    return Requests(rate=rate, prompt=p, output=o, cached=c, arrival_cv=cv, **more)


def lognormal(mean: float, cv: float, n: int, *, seed: int = 0, longest: int = 8000) -> np.ndarray:
    """Lengths of a mean and a coefficient of variation, in tokens."""
    sigma = np.sqrt(np.log1p(cv * cv))
    drawn = np.random.default_rng(seed).lognormal(np.log(mean) - sigma**2 / 2, sigma, n)
    return np.clip(np.rint(drawn), 1, longest).astype(np.int64)


def chat(n: int = 4096, **more: Any) -> Requests:
    """Short prompts, short answers."""
    return served(prompt=lognormal(220, 1.3, n), output=lognormal(200, 1.0, n, seed=1), **more)


#: Coefficients of an 8B model on a GPU of today.
H100 = linear(a=6.5e-3, b=2.7e-5, c=4.9e-8, q=1.3e-9)


@dataclass(frozen=True, slots=True)
class Case:
    """An engine that preempts now and then, requests for it, and how they come."""

    engine: Engine
    requests: Requests
    rules: EngineRules
    n: int
    replicas: int
    router: str
    rate: float
    concurrency: int


def random_case(rng: np.random.Generator) -> Case:
    """Bent tables, tight limits, KV space for little more than the longest request."""
    seqs = int(rng.integers(1, 40))
    budget, n, block = (
        int(rng.integers(max(seqs, 16), 2048)),
        int(rng.integers(20, 300)),
        int(rng.choice([1, 8, 16, 32])),
    )
    prompt, output = rng.integers(1, int(rng.integers(5, 3000)), n), rng.integers(1, int(rng.integers(2, 300)), n)
    longest = int((prompt + output).max()) + 1
    blocks = -(-longest // block) + int(rng.integers(0, 400))
    cached = rng.integers(0, prompt) if rng.random() < 0.4 else np.zeros(n, np.int64)
    return Case(
        engine=Engine(
            predictor=_bent(rng, seqs, budget), kv_tokens=blocks * block, block_size=block, max_num_seqs=seqs,
            max_num_batched_tokens=budget, max_model_len=longest,
        ),
        requests=served(prompt=prompt, output=output, cached=cached, cv=float(rng.choice([0.0, 1.0, 2.0]))),
        rules=EngineRules(
            reserve_full_isl=bool(rng.integers(0, 2)), watermark=float(rng.choice([0.0, 0.02, 0.3])),
            lookahead=int(rng.integers(0, 2)),
        ),
        n=n, replicas=int(rng.choice([1, 1, 2, 4])),
        router=("round_robin", "least_requests", "random")[rng.integers(0, 3)],
        rate=10.0 ** rng.uniform(-1, 2), concurrency=int(rng.integers(1, 60)),
    )  # fmt: skip


def _bent(rng: np.random.Generator, seqs: int, budget: int) -> Predictor:
    def axis(low: float, high: int, points: int) -> np.ndarray:
        return np.unique(np.concatenate([[low], rng.integers(low, high, points)])).astype(float)

    tokens, batch = axis(1, budget + 2, 6), axis(1, seqs + 3, 4)
    context, chunk, prior = axis(1, 4000, 6), axis(1, budget + 2, 5), axis(0, 4000, 3)
    rising = [np.cumsum(rng.uniform(0, 2e-3, (len(x), len(y))), 0) for x, y in ((batch, context), (chunk, prior))]
    decode, prefill = (np.cumsum(table, 1) for table in rising)
    return Predictor(
        tokens=tokens, token_s=np.sort(rng.uniform(1e-3, 0.05, len(tokens))), sequences=np.array([0.0, 50.0]),
        sequence_s=np.array([0.0, rng.uniform(0, 0.01)]),
        decode_batch=batch, decode_context=context, decode_s=decode / 10,
        chunk=chunk, prior=prior, prefill_s=prefill, decode_overhead_s=rng.uniform(0, 5e-3),
        mixed_overhead_s=rng.uniform(0, 8e-3), request_s=float(rng.choice([0.0, 0.01])),
        output_token_s=float(rng.choice([0.0, 1e-4])), engines=int(rng.choice([1, 1, 2])), decode_interval=(0.9, 1.1),
        prefill_interval=(0.9, 1.1), source="measured",
    )  # fmt: skip
