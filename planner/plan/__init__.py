"""DECISIONS: `Plan`: what plan.json holds, how it is assembled, and its canonical bytes."""

from planner.plan.assemble import Facts, Search, assemble, checkpoint_of, digest_of_fleet
from planner.plan.baseline import baseline
from planner.plan.canonical import canonical_json, digest_of, from_json, json_schema, rounded, seal, to_json
from planner.plan.nouns import (
    Argument,
    Choice,
    IntentDecision,
    Latency,
    NodeShare,
    Plan,
    PoolUse,
    Provenance,
    RejectedFamily,
    Relaxation,
    ReplicaGroup,
    Role,
    Solved,
    Status,
    Window,
)

__all__ = [
    "Argument",
    "Choice",
    "Facts",
    "IntentDecision",
    "Latency",
    "NodeShare",
    "Plan",
    "PoolUse",
    "Provenance",
    "RejectedFamily",
    "Relaxation",
    "ReplicaGroup",
    "Role",
    "Search",
    "Solved",
    "Status",
    "Window",
    "assemble",
    "baseline",
    "canonical_json",
    "checkpoint_of",
    "digest_of",
    "digest_of_fleet",
    "from_json",
    "json_schema",
    "rounded",
    "seal",
    "to_json",
]
