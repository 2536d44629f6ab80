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
    start_gpu_hours: float = 12.0
    """GPU-hours charged per replica start: a start must pay for itself well beyond the predictor's noise."""
    horizon_hours: float = 24.0
    """Time that the plan will stand; a start cost is spread over it."""
    coverage: float = 0.98
    """What runs now counts as serving in full while it covers this share of tonight's demand."""
    churn: float = 3e-4
    """Share of the cost that may be given up at the end for fewer starts and fewer intents touched. Every night may
    give it up anew: in four draws of 30 nights with 5 % noise, 0.03 % keeps the cost 0.3 to 1.5 % up (0.9 % in the
    mean) and saves 88 to 93 % of the starts (91 %); 0.1 % keeps it up to 1.9 % up (`benchmarks nights`)."""
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
    """Let CBC solve the cost stage too and note whether it agrees."""
