"""Conditions: benchmarks that others ran, reproduced on predicted engines, to prove the predictions or to use them.

The order to read in: `condition` (the noun, and what sources leave unsaid), `row` (how a row is read), `reproduce` (its
load, simulated), `metrics` (what `vllm bench` prints of it).
"""

from __future__ import annotations

from planner.conditions.condition import TASKS, Condition
from planner.conditions.metrics import METRICS
from planner.conditions.reproduce import reproduce
from planner.conditions.row import condition_of

__all__ = ["METRICS", "TASKS", "Condition", "condition_of", "reproduce"]
