"""`explore`: the whole search of one intent, stage by stage, with what it counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from catalog.cluster import Cluster
from catalog.gpus import GPU
from catalog.models import Model
from catalog.power import PowerConstants
from planner.candidates.asking import QualityOf, ask
from planner.candidates.front import front, placed, placed_pairs
from planner.candidates.judge import Judge
from planner.candidates.options import Facts, Option, Question, options
from planner.candidates.pairs import pairs, sized_pairs, worthwhile
from planner.candidates.screen import LATENCY_GOALS, Screened, pick, screen
from planner.candidates.sizing import Sizer
from planner.candidates.verify import closer_look, method_of, verify
from planner.intents import Intent
from planner.strategies import Candidate, Rejection
from planner.workload import Requests

Progress = Callable[[str, int, int], None]
#: Options that are simulated (or replayed) per intent.
SIMULATED = 20
#: Configurations between two reports.
COUNTED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What a search found, and how many strategies it looked at."""

    candidates: tuple[Candidate, ...]
    rejections: tuple[Rejection, ...]
    strategies: int
    """Distinct configurations x replica counts that got a goodput or a counted rejection."""
    judged: int
    """Those of them that got a goodput."""


def explore(  # noqa: PLR0913 - the inputs of the whole search
    intent: Intent,
    *,
    cluster: Cluster,
    gpus: Mapping[str, GPU],
    model: Model,
    requests: Requests,
    facts: Facts,
    prices: Mapping[str, float],
    quality_of: QualityOf,
    judge: Judge | None = None,
    simulated: int = SIMULATED,
    watts: PowerConstants | None = None,
    progress: Progress | None = None,
) -> Searched:
    """Search as `search` does, with counts; `facts` remembers predictors and memory for a next search."""
    question = ask(
        intent,
        cluster=cluster,
        gpus=gpus,
        model=model,
        requests=requests,
        facts=facts,
        judge=judge,
        prices=prices,
        quality_of=quality_of,
        watts=watts,
    )
    report = progress or _silent
    sizer = Sizer(judge=question.judge, requests=question.requests, slo=intent.slo, tally=question.tally)
    report("configurations", 0, 0)
    found = tuple(_counted(options(question), report))
    report("configurations", len(found), len(found))
    screened = screen(question, sizer, found, _ticker(report, "screened", len(found)))
    picked = pick(question, sizer, screened)
    report("screened", len(found), len(found))
    near = worthwhile(question, pairs(question, found), _beside(question, screened))
    if intent.disaggregated == "required":
        for one in picked:
            said = "the intent requires prefill and decode apart"
            question.tally.reject(str(one.option.configuration), "forbidden_by_intent", said, judged=True)
        picked = []
    report("paired", 1, 1)
    most = closer_look(question, simulated, len(picked))
    sized = tuple(verify(question, sizer, picked, most=simulated, tick=_ticker(report, "verified", most)))
    apart = tuple(sized_pairs(question, near, method_of(question, simulated)))
    candidates = front((*placed(question, sized), *placed_pairs(question, apart)))
    report("verified", most, most)
    tally = question.tally
    return Searched(
        candidates=candidates, rejections=tally.rejections, strategies=tally.strategies, judged=tally.judged
    )


def _beside(question: Question, screened: list[Screened]) -> dict[str, float]:
    """GPU type -> dollars per hour of its cheapest collocated strategy; nothing where price does not decide."""
    intent = question.wish.intent
    if intent.disaggregated == "required" or intent.goal in LATENCY_GOALS:
        return {}
    least: dict[str, float] = {}
    for one in screened:
        gpu = one.option.configuration.gpu
        if one.share >= 1.0:
            least[gpu] = min(one.cost, least.get(gpu, math.inf))
    return least


def _counted(found: Iterable[Option], report: Progress) -> Iterator[Option]:
    """Options as they are made, reported every few hundred: how many there will be nobody knows."""
    for count, option in enumerate(found, start=1):
        if count % COUNTED == 0:
            report("configurations", count, count)
        yield option


def _ticker(report: Progress, stage: str, total: int) -> Callable[[], None]:
    """Report a stage about a hundred times, however long it is."""
    step = max(1, total // 100)
    done = 0

    def tick() -> None:
        nonlocal done
        if done % step == 0:
            report(stage, done, total)
        done += 1

    return tick


def _silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""
