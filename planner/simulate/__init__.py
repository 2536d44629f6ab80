"""Exact simulation of vLLM V1 engines on predicted step times: every request's latency, a million requests a second.

The order to read in: `arrivals` (traffic with common random numbers), `state` (what is remembered), `jump` (the
scheduler, from event to event), `plain` (the same, iteration by iteration: its proof), `drive` (routers and load),
`simulation` (the result). Prefix caching is the requests' `cached` share, whose KV each request still holds;
speculative decoding and imbalance between data-parallel ranks are not modelled.
"""

from __future__ import annotations

from planner.simulate.arrivals import Burst
from planner.simulate.disaggregated import simulate_closed_disaggregated, simulate_disaggregated
from planner.simulate.run import simulate, simulate_closed, simulate_static
from planner.simulate.simulation import Simulation

__all__ = [
    "Burst",
    "Simulation",
    "simulate",
    "simulate_closed",
    "simulate_closed_disaggregated",
    "simulate_disaggregated",
    "simulate_static",
]
