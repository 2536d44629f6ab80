"""Goodput: the highest request rate at which an SLO holds, and `estimate`, what a strategy does under a workload.

Goodput belongs to (configuration, replicas, router, arrival law): it is not additive in replicas. The closed form takes
0.1 ms; the simulator, bracketed around it with common random numbers, about 10 ms and errs by 2-4 %.
"""

from planner.goodput.bracket import enough, highest_within
from planner.goodput.ends import END, probability
from planner.goodput.estimates import estimate
from planner.goodput.pooled import Goodput, goodput

__all__ = ["END", "Goodput", "enough", "estimate", "goodput", "highest_within", "probability"]
