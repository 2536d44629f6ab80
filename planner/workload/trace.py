"""`Trace`: measured requests, one row each: when they came, how long they were, what the prefix cache held."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalog.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Measured requests in order of arrival. Raises `BadInput` where a row is impossible (rows counted from 1)."""

    arrival_s: NDArray[np.float64]  # (n,) seconds, ascending; any origin
    prompt: NDArray[np.int64]  # (n,) tokens, >= 1
    output: NDArray[np.int64]  # (n,) tokens, >= 0; 0: nothing came back, since the client left or an error came
    cached: NDArray[np.int64] | None = None  # (n,) prompt tokens found in the prefix cache, < prompt
    source: str
    """Where it was read, and what was left out."""
    day_offset_s: float | None = None
    """Seconds from 00:00 UTC to `arrival_s` = 0; None where the trace does not say."""

    def __post_init__(self) -> None:
        size = len(self.arrival_s)
        if size == 0:
            what = "the trace holds no requests"
            raise BadInput(what, place=self.source, mend="give at least two requests")
        columns = {"prompt": self.prompt, "output": self.output}
        if self.cached is not None:
            columns["cached"] = self.cached
        for name, column in columns.items():
            if len(column) != size:
                what = f"{name} has {len(column)} values and arrival_s {size}"
                raise BadInput(what, place=self.source, mend="give one value per request")
        wrong = self.first_wrong_row()
        if wrong is not None:
            raise BadInput(wrong[1], place=f"{self.source}, row {wrong[0] + 1}", mend=wrong[2])

    def first_wrong_row(self) -> tuple[int, str, str] | None:
        """Index of the first impossible row, what is wrong with it and what to do; None where all rows are sound."""
        times = self.arrival_s
        checks: list[tuple[NDArray[np.bool_], str, str]] = [
            (~np.isfinite(times), "the arrival time is not a number", "leave such rows out"),
            (np.diff(times, prepend=times[:1]) < 0, "the arrival is earlier than the row before", "sort by arrival"),
            (self.prompt < 1, "the prompt has no tokens", "vLLM refuses it: leave such rows out"),
            (self.output < 0, "the output is negative", "mend the row or leave it out"),
        ]
        if self.cached is not None:
            outside = (self.cached < 0) | (self.cached >= self.prompt)
            checks.append((outside, "cached is not within 0 and prompt - 1", "vLLM computes at least one prompt token"))
        found = [(int(np.argmax(bad)), what, mend) for bad, what, mend in checks if bad.any()]
        return min(found, key=lambda row: row[0], default=None)

    def where(self, kept: NDArray[np.bool_]) -> Trace:
        """The rows that are kept, (n,); at least one."""
        cached = None if self.cached is None else self.cached[kept]
        arrival, prompt, output = self.arrival_s[kept], self.prompt[kept], self.output[kept]
        return replace(self, arrival_s=arrival, prompt=prompt, output=output, cached=cached)

    def __len__(self) -> int:
        """Number of requests."""
        return len(self.arrival_s)

    @property
    def duration_s(self) -> float:
        """Seconds from the first arrival to the last."""
        return float(self.arrival_s[-1] - self.arrival_s[0])

    @property
    def rate(self) -> float:
        """Mean requests per second: gaps over duration. Raises `BadInput` where all arrive at once."""
        if self.duration_s <= 0:
            what = f"all {len(self)} requests arrive at once: a rate cannot be told"
            raise BadInput(what, place=self.source, mend="give a longer trace, or declare rate, prompt and output")
        return (len(self) - 1) / self.duration_s
