"""The circuit breaker: a service whose prediction was optimistic keeps what it has until that is no longer so.

Rule. It opens for a service when, in the newest hours that were compared, at a load that the plan held,

1. a mean latency lies beyond the slow end of its predicted interval by more than the measurement leaves open, or
2. fewer requests kept a limit of the SLO than it asks for, even at the favourable bound of the buckets.

While it is open a night may give the service more replicas of the engine that runs (GPU, parallelism, formats), and
nothing else: neither fewer, nor another engine whose prediction no one has tested yet. It closes with the first
comparison in which neither holds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from planner.calibrate.compare import Comparison, Reading
from planner.intents import Intent
from planner.placement.running import configuration_of
from planner.plan import ReplicaGroup, Search
from planner.strategies import Candidate, Configuration

#: A load this much above the plan's is no load that the plan held.
_LOAD = 1.05
#: A share this close to one is the whole load.
_WHOLE = 1.0 - 1e-9
#: Two-sided 90 %.
_Z = 1.645
#: A comparison older than this many hours says nothing of tonight.
STALE_HOURS = 72
Held = Mapping[tuple[str, Configuration], int]
"""Replicas by role and engine."""


def optimistic(row: Comparison) -> str | None:
    """Why the breaker opens for a service; None where it stays closed."""
    if row.rate > _LOAD * row.planned_rate:
        return None
    for name, reading in (("TTFT", row.ttft), ("TPOT", row.tpot)):
        said = None if reading is None else _said(name, reading, row.attainment)
        if said is not None:
            return said
    return None


def _said(name: str, reading: Reading, attainment: float | None) -> str | None:
    least = reading.observed * math.exp(-_Z * reading.error)
    if least > reading.high:
        return (
            f"mean {name} was {reading.observed * 1e3:.4g} ms, above the slow end {reading.high * 1e3:.4g} ms of its "
            "prediction"
        )
    if attainment is not None and reading.within is not None and reading.within[1] < attainment:
        return f"{reading.within[1]:.1%} of the requests kept {name}, {attainment:.1%} must"
    return None


def open_breakers(comparisons: Iterable[Comparison], at_hour: int) -> dict[str, str]:
    """Services whose breaker is open, with the reason, by the newest comparison of each."""
    newest = {row.intent: row for row in sorted(comparisons, key=lambda each: each.at_hour)}
    found = {}
    for intent, row in sorted(newest.items()):
        reason = optimistic(row)
        if reason is not None and at_hour - row.at_hour <= STALE_HOURS:
            found[intent] = reason
    return found


def restricted(intent: Intent, groups: Sequence[ReplicaGroup]) -> Intent | None:
    """The wish narrowed to the GPUs and formats that run; None where it does not allow them any more."""
    wanted = {
        "gpus": tuple(sorted({group.gpu for group in groups})),
        "quantizations": tuple(sorted({group.quantization for group in groups})),
        "kv_dtypes": tuple(sorted({group.kv_dtype for group in groups})),
    }
    apart = any(group.role != "both" for group in groups)
    if intent.disaggregated == ("forbidden" if apart else "required"):
        return None
    for name, values in wanted.items():
        allowed = getattr(intent, name)
        if allowed is not None and not set(values) <= set(allowed):
            return None
    return intent.model_copy(update={**wanted, "disaggregated": "required" if apart else "forbidden"})


def hold(search: Search, groups: Sequence[ReplicaGroup]) -> Search | None:
    """The search with the candidates alone that keep the engine of every running replica, and as many or more of them.

    None where none of these serves the whole load: then nothing can be held, and the caller says so.
    """
    runs: Counter[tuple[str, Configuration]] = Counter()
    for group in groups:
        runs[group.role, _engine(configuration_of(group))] += group.replicas
    kept = tuple(candidate for candidate in search.candidates if _keeps(candidate, runs))
    if not runs or not any(candidate.share >= _WHOLE for candidate in kept):
        return None
    return replace(search, candidates=kept)


def _keeps(candidate: Candidate, runs: Held) -> bool:
    pools = candidate.strategy.pools
    roles = ("both",) if len(pools) == 1 else ("prefill", "decode")
    offered = {(role, _engine(pool.configuration)): pool.replicas for role, pool in zip(roles, pools, strict=True)}
    return offered.keys() == runs.keys() and all(offered[key] >= count for key, count in runs.items())


def _engine(configuration: Configuration) -> Configuration:
    """What tells one engine's step times from another's: everything but its batch limits."""
    return replace(configuration, max_num_seqs=1, max_num_batched_tokens=1, max_model_len=1, enable_prefix_caching=True)
