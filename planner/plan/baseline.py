"""The baseline that a plan's cost is measured against: what the same intents would cost naively, summed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from catalog.cluster import Cluster
from planner.plan.nouns import IntentDecision

STATEMENT = (
    "one configuration for all: every intent collocated on {gpu}, the fleet's most common GPU type, in its model's "
    "published format with bf16 KV space and vLLM's own batch limits, at the smallest replica that fits and can keep "
    "the SLO, with as many replicas as the same estimates ask for"
)


def baseline(
    decisions: Sequence[IntentDecision], naive: Mapping[str, float | None], cluster: Cluster
) -> tuple[float | None, str]:
    """Naive cost, dollars per hour, of the intents that the plan serves, and the sentence that says how.

    An intent that cannot be served naively counts at the plan's own cost, so it neither adds to the savings nor takes
    from them; one that the plan serves in part counts for that part. None where nothing is served or compared.
    """
    served = [decision for decision in decisions if decision.chosen]
    known = [decision.name for decision in served if naive.get(decision.name) is not None]
    statement = STATEMENT.format(gpu=most_common_gpu(cluster))
    if not known:
        return None, statement
    costs = [_naive(naive[d.name], d) for d in served]
    rest = len(served) - len(known)
    if rest:
        statement += f"; {rest} of {len(served)} cannot be served so and count at the plan's own cost"
    return math.fsum(costs), statement


def _naive(cost: float | None, decision: IntentDecision) -> float:
    return decision.cost_per_hour if cost is None else cost * min(1.0, decision.served_share)


def most_common_gpu(cluster: Cluster) -> str:
    """GPU type with the most GPUs, first by name among equals."""
    count: Counter[str] = Counter()
    for pool in cluster.pools:
        count[pool.gpu] += pool.gpus
    return min(count, key=lambda gpu: (-count[gpu], gpu))
