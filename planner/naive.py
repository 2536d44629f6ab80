"""The naive baseline: one configuration for all, sized by the same estimates as the plan.

Every intent is collocated on the fleet's most common GPU type, in the format that its model was published in, with
bf16 KV space and vLLM's own batch limits, at the smallest replica that fits and can keep the SLO, with as many replicas
as the same closed-form estimates ask for at the slow end, spares and survivors included. Pools are as large as it
takes, whatever the intent may use: a team that starts without a planner would order so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from catalog.cluster import Cluster, NodePool
from catalog.gpus import GPU
from catalog.models import Model
from catalog.predictors import Predictor
from catalog.units import GIB
from planner.candidates.asking import QualityOf, ask, find
from planner.candidates.judge import Judge
from planner.candidates.options import Facts, Option, Question, engine_for
from planner.candidates.sizing import Sizer, with_reserve
from planner.candidates.space import shapes
from planner.intents import Intent
from planner.memory import Memory
from planner.plan.baseline import most_common_gpu
from planner.strategies import Configuration, Rejection
from planner.workload import Requests

#: A pool that is never too small.
NODES, REPLICAS = 100_000, 10_000
#: Shapes that are tried, smallest first, before an intent counts as not served naively.
TRIED = 6
#: vLLM's defaults of (max_num_seqs, max_num_batched_tokens) for a server, by GPU memory (engine/arg_utils.py, 0.32).
LARGE_GPU, MIDDLE_GPU = 160 * GIB, 70 * GIB
DEFAULT_LIMITS = {"large": (1024, 16384), "middle": (1024, 8192), "small": (256, 2048)}


def naive_cost_of(  # noqa: PLR0913 - what a search takes
    intent: Intent,
    *,
    cluster: Cluster,
    gpus: Mapping[str, GPU],
    model: Model,
    requests: Requests,
    predictor_of: Callable[[Configuration], Predictor | Rejection],
    memory_of: Callable[[Configuration], Memory | Rejection],
    prices: Mapping[str, float],
    quality_of: QualityOf,
    judge: Judge | None = None,
) -> float | None:
    """Dollars per hour of serving one intent naively; None where that GPU type cannot. Takes what `search` takes."""
    pools = [pool for pool in cluster.pools if _is(pool, most_common_gpu(cluster), gpus) and pool.name in prices]
    if not pools:
        return None
    cheapest = min(pools, key=lambda pool: (prices[pool.name], pool.name))
    pool = cheapest.model_copy(update={"nodes": NODES, "lost": 0, "reserved_gpus": 0})
    question = ask(
        _unrestricted(intent, model),
        cluster=cluster.model_copy(update={"pools": (pool,)}),
        gpus=gpus,
        model=model,
        requests=requests,
        facts=Facts(predictor_of=predictor_of, memory_of=memory_of),
        judge=judge,
        prices={pool.name: prices[pool.name]},
        quality_of=quality_of,
    )
    return _cost(question, pool)


def default_limits(gpu: GPU) -> tuple[int, int]:
    """Give vLLM's own (max_num_seqs, max_num_batched_tokens) on a GPU type; an A100 counts as small."""
    if gpu.memory >= LARGE_GPU:
        return DEFAULT_LIMITS["large"]
    return DEFAULT_LIMITS["middle" if gpu.memory >= MIDDLE_GPU and "a100" not in gpu.name else "small"]


def _is(pool: NodePool, name: str, gpus: Mapping[str, GPU]) -> bool:
    return pool.gpu == name or find(gpus, pool.gpu) == find(gpus, name) is not None


def _unrestricted(intent: Intent, model: Model) -> Intent:
    """The wish without what a planner would read of it."""
    free = {"pools": None, "forbidden_pools": (), "gpus": None, "forbidden_gpus": (), "budget": None, "quality": 0.0}
    plain = {"quantizations": (model.native,), "kv_dtypes": ("bf16",), "disaggregated": "forbidden"}
    return intent.model_copy(update={**free, **plain, "max_replicas": None})


def _cost(question: Question, pool: NodePool) -> float | None:
    intent = question.wish.intent
    sizer = Sizer(judge=question.judge, requests=question.requests, slo=intent.slo, tally=question.tally)
    for option in _smallest_first(question):
        needed = sizer.least(option, question.requests.rate)
        if needed is not None:
            after = math.ceil(needed * intent.availability.share)
            total = max(with_reserve(needed, after, pool, intent.availability), intent.min_replicas)
            if intent.availability.survive == "failure_domain":
                total += after  # in a second domain
            return total * option.configuration.gpus * question.prices[pool.name]
    return None


def _smallest_first(question: Question) -> list[Option]:
    """Options of plain shapes (tensor parallel, pipelined only over nodes), smallest replica first."""

    def fits(shape: Configuration) -> bool:
        return isinstance(question.facts.memory(_limited(shape, question)), Memory)

    found = sorted(
        {
            shape
            for _, shape in shapes(question.wish, question.places, fits, question.tally)
            if shape.dp == 1 and not shape.expert_parallel
        },
        key=lambda shape: (shape.gpus, shape.pp),
    )
    made = (_option(shape, question) for shape in found[:TRIED])
    return [option for option in made if option is not None]


def _limited(shape: Configuration, question: Question) -> Configuration:
    seqs, tokens = default_limits(question.places[0].gpu)
    return replace(shape, max_num_seqs=seqs, max_num_batched_tokens=tokens)


def _option(shape: Configuration, question: Question) -> Option | None:
    configuration = _limited(shape, question)
    held, predictor = question.facts.memory(configuration), question.facts.predictor(shape)
    if isinstance(held, Rejection) or isinstance(predictor, Rejection):
        return None
    engine = engine_for(configuration, predictor, held, question.typical)
    return Option(
        configuration=configuration,
        place=question.places[0],
        engine=engine,
        slow=engine.slowest(question.facts.slow[shape]),
        quality=1.0,
        most=REPLICAS,
    )
