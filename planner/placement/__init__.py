"""Placement: one whole plan per intent, then nodes.

Why it is so. Replica counts per GPU type look natural and do not solve (0.4 % gap after two minutes for 1,000 models);
whole plans as columns do, because everything that is not linear (goodput at this replica count, survival after a loss,
quality, start cost) is settled before the integer program sees it, and what is left is a choice with a few shared rows.
Counting GPUs is exact for slots that divide one another, so nodes come after; where it is not, patterns are added.
No answer of a solver is shown: `validate` checks the seats from scratch, and whatever a solver does (runs out of time,
crashes, returns zeros), the best plan that passes stands, last night's at worst, and `solved.notes` says so.
"""

from planner.placement.decide import place
from planner.placement.placed import Move, Placed, Seats, Served, Stage, Wave
from planner.placement.rules import Rules
from planner.placement.validate import validate

__all__ = ["Move", "Placed", "Rules", "Seats", "Served", "Stage", "Wave", "place", "validate"]
