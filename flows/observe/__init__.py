"""The stage observe: what each intent's service must serve tonight: declared, from its trace, or from Prometheus."""

from __future__ import annotations

from pathlib import Path

from flows.observe.good import Good, last_good, last_load
from planner.intents import Intent
from planner.workload import Requests, realize

#: Seed of every draw of a night; the same input gives the same plan.
SEED = 0


def observe(intent: Intent, trace: Path | None) -> Requests:
    """Turn the intent's workload into requests; `trace` is the file that it names."""
    if trace is None:
        return realize(intent.workload, seed=SEED)
    from flows.traces import read_trace  # noqa: PLC0415 - few fleets have traces

    return realize(intent.workload, trace=read_trace(trace), seed=SEED)


__all__ = ["SEED", "Good", "last_good", "last_load", "observe"]
