"""`Tally`: every strategy of a search, counted once: judged, or rejected for one reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.strategies import Reason, Rejection


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts the strategies of one intent. Mutable on purpose: it lives for one search."""

    intent: str
    judged: int = 0
    """Distinct configurations x replica counts that got a goodput."""
    unjudged: int = 0
    """Strategies rejected before any goodput was asked."""
    families: dict[tuple[str, Reason], Rejection] = field(default_factory=dict)

    def reject(  # noqa: PLR0913 - keywords with defaults
        self,
        family: str,
        reason: Reason,
        detail: str,
        *,
        count: int = 1,
        nearest: Mapping[str, float] | None = None,
        judged: bool = False,
    ) -> None:
        """Count `count` strategies of a family that fell to `reason`; `judged` ones had got a goodput before.

        The words of the first one stay. Of the numbers the nearest miss stays: a key `x` with a limit `x_limit`
        beside it keeps the pair whose ratio is closest to 1.
        """
        if count <= 0:
            return
        self.unjudged += 0 if judged else count
        before = self.families.get((family, reason))
        numbers = dict(nearest or {})
        if before is None:
            merged = Rejection(
                intent=self.intent, strategy=family, reason=reason, detail=detail, count=count, nearest=numbers
            )
        else:
            closer = _miss(numbers) < _miss(before.nearest)
            merged = Rejection(
                intent=self.intent,
                strategy=family,
                reason=reason,
                detail=detail if closer else before.detail,
                count=before.count + count,
                nearest=numbers if closer else before.nearest,
            )
        self.families[family, reason] = merged

    @property
    def strategies(self) -> int:
        """Distinct configurations x replica counts that got a goodput or a counted rejection."""
        return self.judged + self.unjudged

    @property
    def rejected(self) -> int:
        """Strategies rejected so far."""
        return sum(rejection.count for rejection in self.families.values())

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """All families, the largest first."""
        return tuple(sorted(self.families.values(), key=lambda r: (-r.count, r.reason, r.strategy)))


def _miss(numbers: Mapping[str, float]) -> float:
    """How far the numbers are from their limits: the largest |x / limit - 1|, infinite where there are none."""
    misses = [
        abs(value / numbers[f"{key}_limit"] - 1.0)
        for key, value in numbers.items()
        if numbers.get(f"{key}_limit", 0.0) > 0
    ]
    return max(misses, default=float("inf"))
