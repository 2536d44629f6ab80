"""`Rules`: how placement weighs change against cost, and how hard it tries."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Settings of one placement, each with the reason for its default."""

    time_limit_s: float = 60.0
    """Solver time of all stages together."""
    gap: float = 2e-4
    """Relative gap at which a stage counts as solved: far below the predictor's own error, and below `churn`, so that
    equal inputs leave the next night's plan as it is."""
    start_gpu_hours: float = 9.0
    """GPU-hours charged per replica start: what is asked for tonight and given back tomorrow is rarely worth one."""
    doubt: float = 0.1
    """Share of its cost that what does not run yet is charged on top, beside its start: predictions err, and the best
    of many is the luckiest. What runs, and more replicas of it, is charged nothing; where latency is the goal, what
    runs counts as that much faster. So a service changes strategy for a gain beyond the error, and scales for any that
    pays for its starts."""
    horizon_hours: float = 24.0
    """Time that the plan will stand; a start cost is spread over it."""
    coverage: float = 0.97
    """What runs now counts as serving in full while it covers this share of tonight's demand: the demand is a quantile
    and the goodput the slow end of an interval, so a shortfall of a few per cent on paper is none in service."""
    churn: float = 3e-4
    """Share of the cost that may be given up at the end for fewer starts and fewer intents touched, anew every night,
    so it is kept small."""
    wave_share: float = 0.1
    """Largest share of the GPUs in use that one wave of the change may start."""
    mixes: bool = True
    """Whether two strategies may share an intent's load."""
    columns_per_intent: int = 120
    """Most fully serving columns that an intent keeps."""
    rungs_per_intent: int = 40
    """Most partly serving columns that an intent keeps."""
    repairs: int = 12
    """How often the program is solved again after packing or validation found a fault."""
    second_opinion: bool = False
    """Let the other solver (CBC, where HiGHS decides) solve the cost stage too and note whether it agrees."""
