"""Sweeps: one intent of a fleet asked again and again, with one thing varied by factors of what it is today."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import polars as pl

from catalog.errors import BadInput, near_names
from catalog.quality import quality
from flows.fleet import LoadedFleet
from flows.forms import Sweep
from flows.night import fitted
from flows.site import Site
from flows.steps import Perform, Step, in_process
from planner import whatif
from planner.candidates.options import Facts
from planner.whatif import Study


def sweep(  # noqa: PLR0913 - a sweep by name
    loaded: LoadedFleet,
    site: Site,
    intent: str,
    kind: Sweep,
    *,
    factors: Sequence[float],
    perform: Perform = in_process,
) -> pl.DataFrame:
    """One row per factor, ascending: the columns of `planner.whatif.SCHEMA`, for a network those of `networks` too.

    Raises:
        BadInput: no such intent, or a limit is varied that the intent does not have.
    """
    study = study_of(loaded, site, intent, perform=perform)
    if kind in ("ttft", "tpot", "e2e") and getattr(study.intent.slo, kind, None) is None:
        mend = f"give it one, such as slo: {{{kind}: 500 ms}}"
        raise BadInput(f"intent {intent!r} has no limit on {kind} to vary", mend=mend)
    steps = [
        Step(stage="search", label=f"{intent}, {kind} x {factor:g}", call=partial(point, study, kind, factor))
        for factor in sorted(set(factors))
    ]
    return pl.concat(perform(steps), how="vertical")


def study_of(loaded: LoadedFleet, site: Site, intent: str, *, perform: Perform = in_process) -> Study:
    """The intent in its surroundings, everything that its search asks for probed."""
    names = [wish.name for wish in loaded.fleet.intents]
    if intent not in names:
        raise BadInput(f"the fleet has no intent {intent!r}", mend=near_names(intent, names))
    facts, predictors = fitted(loaded.only(intent), site, perform=perform)
    wish = facts.loaded.fleet.intents[0]
    return Study(
        intent=wish,
        cluster=loaded.fleet.cluster,
        gpus=facts.gpus,
        model=loaded.models[wish.model],
        requests=facts.requests[intent],
        facts=Facts(predictor_of=predictors, memory_of=facts.memory_of),
        prices=facts.prices,
        quality_of=quality,
        judge=facts.judge,
    )


def point(study: Study, kind: Sweep, factor: float) -> pl.DataFrame:
    """One point of a sweep."""
    match kind:
        case "rate":
            return whatif.loads(study, [factor])
        case "price":
            return whatif.prices(study, [factor])
        case "prompt" | "output":
            return whatif.lengths(study, kind, [factor])
        case "network":
            fastest = max(pool.network.bandwidth for pool in study.cluster.pools)
            return whatif.networks(study, [fastest * factor])
        case limit:
            today = getattr(study.intent.slo, limit)
            return whatif.limits(study, limit, [today * factor])
