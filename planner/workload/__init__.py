"""WISHES: `Workload`: how many requests come, how bursty, how long; `realize` turns it into numbers.

A mean rate alone plans the wrong fleet: taking bursty traffic for Poisson overstates goodput by 54 % (coefficient of
variation 1.5) to 250 % (2), so a workload carries its arrival law or, better, the measured arrivals themselves.
"""

from planner.workload.admission import Admission, admit
from planner.workload.arrivals import Burstiness, arrival_cv_of, burstiness, daily_profile
from planner.workload.declared import Lengths, Workload
from planner.workload.observed import Observed
from planner.workload.prefix import prefix_hits
from planner.workload.requests import Requests, demand, lawful, realize
from planner.workload.telemetry import Scraped, Telemetry
from planner.workload.trace import Trace

__all__ = [
    "Admission",
    "Burstiness",
    "Lengths",
    "Observed",
    "Requests",
    "Scraped",
    "Telemetry",
    "Trace",
    "Workload",
    "admit",
    "arrival_cv_of",
    "burstiness",
    "daily_profile",
    "demand",
    "lawful",
    "prefix_hits",
    "realize",
]
