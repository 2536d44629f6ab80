"""OPTIONS: `search`: every strategy for one intent, screened in closed form, decided by simulation.

    space      every configuration that vLLM would start, the others counted by reason
    screen     fewest replicas at the slow end of the predictor's interval, in closed form (5 % median error)
    pick       of every GPU type the cheapest, the fastest, the best of each quality: placement needs alternatives
    verify     simulated, or the measured arrivals replayed, and resized
    front      with prices, spares and survivors on every pool; the beaten ones dropped

Screening alone errs on the optimistic side under bursts; the top twenty simulated lose nothing against simulating all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from catalog.cluster import Cluster
from catalog.gpus import GPU
from catalog.models import Model
from catalog.power import PowerConstants
from catalog.predictors import Predictor
from planner.candidates.asking import QualityOf
from planner.candidates.exploring import SIMULATED, Progress, Searched, explore
from planner.candidates.judge import Judge
from planner.candidates.options import Facts
from planner.candidates.screen import SHARES
from planner.candidates.unmet import nearest_relaxations
from planner.intents import Intent
from planner.memory import Memory
from planner.strategies import Candidate, Configuration, Rejection
from planner.workload import Requests

__all__ = ["SHARES", "SIMULATED", "Facts", "Judge", "Progress", "Searched", "explore", "nearest_relaxations", "search"]


def search(  # noqa: PLR0913 - the inputs of the whole search
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
    simulated: int = SIMULATED,
    watts: PowerConstants | None = None,
    progress: Progress | None = None,
) -> tuple[tuple[Candidate, ...], tuple[Rejection, ...]]:
    """Find the strategies worth placing for one intent, at all shares of its rate, and count why the others fell.

    `prices` maps a node pool to dollars per GPU-hour (a pool without one is rejected). `predictor_of` is asked once
    per shape, without batch limits; `memory_of` once per configuration. With `watts` the estimates say watts per GPU,
    and owned pools pay for them where the cluster prices power. Same inputs, same candidates. Raises `BadInput` for a
    rate that is not above 0.
    """
    found = explore(
        intent,
        cluster=cluster,
        gpus=gpus,
        model=model,
        requests=requests,
        facts=Facts(predictor_of=predictor_of, memory_of=memory_of),
        prices=prices,
        quality_of=quality_of,
        judge=judge,
        simulated=simulated,
        watts=watts,
        progress=progress,
    )
    return found.candidates, found.rejections
