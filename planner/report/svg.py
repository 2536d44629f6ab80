"""Plots as inline SVG whose colours are the page's CSS variables: one drawing for light, dark and print."""

from __future__ import annotations

import math
from html import escape

from planner.diff import margin
from planner.explain import seconds
from planner.plan import Choice, IntentDecision, Latency

WIDTH, HEIGHT = 340, 232
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 44
#: A plot shows up to this many times the chosen cost and the SLO (or the chosen latency); what is beyond is counted.
SHOWN_COST, SHOWN_LATENCY = 3.0, 1.8
RADII = {"option": "3.5", "runner-up": "5", "chosen": "6"}
NAMES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "whole request"}


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round tick positions from low to high: steps of 1, 2 or 5 times a power of ten."""
    span = (high - low) or 1.0
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def limit_of(decision: IntentDecision) -> str:
    """The latency that decides: the SLO's limit with the least margin, TTFT where there is none."""
    limits = [name for name in ("ttft", "tpot", "e2e") if name in decision.slo]
    known = [(share, name) for name in limits if (share := margin(decision, name)) is not None]
    return min(known)[1] if known else (limits or ["ttft"])[0]


def value_of(choice: Choice, limit: str) -> float | None:
    """The number of a choice that is held against one limit of the SLO; None where it has no bound or is not known."""
    latency: Latency | None = getattr(choice, limit)
    return None if latency is None else shown_of(latency)


def shown_of(latency: Latency) -> float | None:
    """The slow end of the SLO's quantile, the 90th percentile where there is none."""
    return latency.high_s if latency.high_s is not None else latency.p90_s


def together(chosen: tuple[Choice, ...], limit: str) -> Choice | None:
    """What was chosen as one point: costs add up, the slowest part counts; None for nothing or without a bound."""
    known = [(value, index) for index, part in enumerate(chosen) if (value := value_of(part, limit)) is not None]
    if not chosen or len(known) < len(chosen):
        return None
    cost = math.fsum(part.cost_per_hour for part in chosen)
    strategy = " + ".join(part.strategy for part in chosen)
    return chosen[max(known)[1]].model_copy(update={"cost_per_hour": cost, "strategy": strategy})


def number(value: float) -> str:
    """A coordinate: two decimals, so that bytes do not depend on the last bits."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


class Scale:
    """A linear map from data to pixels."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        """Pixel of a value."""
        return self.start + (value - self.low) / ((self.high - self.low) or 1.0) * (self.end - self.start)


def cost_against_latency(decision: IntentDecision) -> str:
    """Every strategy of the front by cost and deciding latency, the chosen one filled, the SLO and budget as lines."""
    limit = limit_of(decision)
    points = [(choice, value) for choice in decision.front if (value := value_of(choice, limit)) is not None]
    whole = together(decision.chosen, limit)
    chosen = [(whole, value)] if whole and (value := value_of(whole, limit)) is not None else []
    if not points and not chosen:
        return ""
    slo = decision.slo.get(limit)
    costs = [choice.cost_per_hour for choice, _ in chosen or points]
    top = SHOWN_LATENCY * max([slo or 0.0, *(value for _, value in chosen)]) or 1.3 * max(value for _, value in points)
    right = SHOWN_COST * max(costs)
    shown = [(c, v) for c, v in points if v <= top and c.cost_per_hour <= right]
    right = 1.08 * max([*costs, *(choice.cost_per_hour for choice, _ in shown), decision.budget or 0.0])
    x = Scale(0.0, right, LEFT, WIDTH - RIGHT)
    y = Scale(0.0, top, HEIGHT - BOTTOM, TOP)
    marks = [*_axes(x, y, limit), *_limits(x, y, slo, decision.budget), *_front(x, y, shown)]
    second = decision.runner_up
    beside = value_of(second, limit) if second else None
    if second and beside is not None and beside <= top and second.cost_per_hour <= right:
        marks.append(_dot((x(second.cost_per_hour), y(beside)), second, beside, "runner-up"))
    marks += [_dot((x(choice.cost_per_hour), y(value)), choice, value, "chosen") for choice, value in chosen]
    label = f"{decision.name}: cost against {NAMES[limit]}"
    drawing = "".join(marks)
    return f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{drawing}</svg>'


def _axes(x: Scale, y: Scale, limit: str) -> list[str]:
    unit = "s" if y.high >= 1.0 else "ms"
    factor = 1.0 if unit == "s" else 1000.0
    marks = []
    for tick in ticks(y.low, y.high):
        at = number(y(tick))
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        marks.append(
            f'<text class="tick" x="{LEFT - 6}" y="{number(y(tick) + 4)}" text-anchor="end">{tick * factor:g}</text>'
        )
    for tick in ticks(x.low, x.high):
        at = number(x(tick))
        marks.append(f'<text class="tick" x="{at}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    marks.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
    middle = number((LEFT + WIDTH - RIGHT) / 2)
    marks.append(f'<text class="label" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">cost, USD/h</text>')
    across = number((TOP + HEIGHT - BOTTOM) / 2)
    turned = f'transform="rotate(-90 12 {across})"'
    marks.append(f'<text class="label" x="12" y="{across}" text-anchor="middle" {turned}>{NAMES[limit]}, {unit}</text>')
    return marks


def _limits(x: Scale, y: Scale, slo: float | None, budget: float | None) -> list[str]:
    marks = []
    if slo is not None and slo <= y.high:
        at = y(slo)
        marks.append(f'<line class="slo" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{number(at)}" y2="{number(at)}"/>')
        where = f'x="{WIDTH - RIGHT}" y="{number(at - 5)}"'
        marks.append(f'<text class="slo-text" {where} text-anchor="end">SLO {seconds(slo)}</text>')
    if budget is not None and budget <= x.high:
        at = x(budget)
        marks.append(f'<line class="slo" x1="{number(at)}" x2="{number(at)}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        marks.append(
            f'<text class="slo-text" x="{number(at - 4)}" y="{TOP + 8}" text-anchor="end">budget {budget:g}</text>'
        )
    return marks


def _front(x: Scale, y: Scale, points: list[tuple[Choice, float]]) -> list[str]:
    """All points, and the staircase of those that no cheaper one beats."""
    marks: list[str] = []
    stairs: list[str] = []
    best = math.inf
    for choice, value in sorted(points, key=lambda point: (point[0].cost_per_hour, point[1], point[0].strategy)):
        if value < best:
            at = number(x(choice.cost_per_hour))
            stairs += [f"H{at}"] * bool(stairs) + [f"{'V' if stairs else f'M{at} '}{number(y(value))}"]
            best = value
    if stairs:
        marks.append(f'<path class="stairs" d="{"".join(stairs)}H{WIDTH - RIGHT}"/>')
    return marks + [_dot((x(choice.cost_per_hour), y(value)), choice, value, "option") for choice, value in points]


def _dot(at: tuple[float, float], choice: Choice, value: float, kind: str) -> str:
    guess = " guess" if choice.source == "roofline" else ""
    text = f"{choice.strategy}: {choice.cost_per_hour:.2f} USD/h, {seconds(value)}"
    where = f'cx="{number(at[0])}" cy="{number(at[1])}" r="{RADII[kind]}"'
    return f'<circle class="{kind}{guess}" {where}><title>{escape(text)}</title></circle>'


def against_slo(parts: list[tuple[float | None, float | None, float | None]], slo: float) -> str:
    """Median to 90th percentile to slow end as shares of the SLO, on a bar that ends at 150 % of it; no text inside."""
    bar: list[str] = ['<line class="rail" x1="0" x2="150" y1="6" y2="6"/>']
    for p50, p90, high in parts:
        known = [min(150.0, 100.0 * value / slo) for value in (p50, p90, high) if value is not None]
        if known:
            state = "over" if high is None or high > slo else "tight" if high > 0.9 * slo else "within"
            bar.append(f'<line class="reach {state}" x1="{number(known[0])}" x2="{number(known[-1])}" y1="6" y2="6"/>')
            bar += [
                f'<line class="mark {state}" x1="{number(at)}" x2="{number(at)}" y1="2.5" y2="9.5"/>' for at in known
            ]
    bar.append('<line class="limit" x1="100" x2="100" y1="0" y2="12"/>')
    return f'<svg class="gauge" viewBox="0 0 150 12" preserveAspectRatio="none" aria-hidden="true">{"".join(bar)}</svg>'


def stacked(segments: list[tuple[float, str]], total: float) -> str:
    """A full-width bar of (size, CSS class) segments out of a total; no text inside."""
    at, marks = 0.0, []
    for size, kind in segments:
        width = 1000.0 * size / total if total else 0.0
        marks.append(f'<rect class="{kind}" x="{number(at)}" y="0" width="{number(width)}" height="20"/>')
        at += width
    return (
        f'<svg class="bar" viewBox="0 0 1000 20" preserveAspectRatio="none" aria-hidden="true">{"".join(marks)}</svg>'
    )
