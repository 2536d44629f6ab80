"""Queueing: capacity, unloaded latency and the quasi-static closed form of one engine, and of pools of them.

Screen with it, decide by simulation: a goodput takes about 0.1 ms and errs by 5 % (median) off the KV limit, where
`planner.simulate` is exact on the same step times. In reading order: `engine`, `summary` (the workload's moments),
`clumps` (bursts), `pace` (the engine's step times), `side`, `bounds` (capacity), `chain` (how many reside), `prompts`
(how long they wait), `laws` (of the latencies), `solve` (both sides, links, goodput), `queue` (what others call).
"""

from __future__ import annotations

from planner.queueing.engine import Engine, EngineRules, rules_for
from planner.queueing.queue import (
    Capacity,
    Latencies,
    Queue,
    Transfer,
    capacity,
    goodput,
    kv_aware_seqs,
    latencies,
    with_replicas,
)

__all__ = [
    "Capacity",
    "Engine",
    "EngineRules",
    "Latencies",
    "Queue",
    "Transfer",
    "capacity",
    "goodput",
    "kv_aware_seqs",
    "latencies",
    "rules_for",
    "with_replicas",
]
