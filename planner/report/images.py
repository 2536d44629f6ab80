"""PNG plots of a plan for places that show images alone, such as Prefect's artifacts."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

from planner.explain import seconds
from planner.plan import IntentDecision, Plan
from planner.report.svg import NAMES, SHOWN_COST, SHOWN_LATENCY, limit_of, together, value_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Intents on one picture of fronts; the report shows all.
SHOWN = 12
INK, SOFT, ACCENT, LIMIT, FREE = "#17202a", "#8a96a5", "#1f5fd0", "#b3261e", "#e3e7ed"


def images(plan: Plan) -> dict[str, bytes]:
    """Draw `pareto` (cost against latency per intent) and `utilisation` (GPUs by pool): name -> PNG bytes."""
    return {"pareto": pareto(plan), "utilisation": utilisation(plan)}


def _png(figure: Any) -> bytes:  # noqa: ANN401 - matplotlib has no types
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - half a second, only where drawn

    target = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(target, metadata={"Software": None})
    return target.getvalue()


def _figure(width: float, height: float) -> Any:  # noqa: ANN401 - matplotlib has no types
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above; the object-oriented way keeps no global state

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def pareto(plan: Plan) -> bytes:
    """Cost against the deciding latency, one panel per intent, dearest intents first."""
    ranked = sorted((d for d in plan.intents if d.front or d.chosen), key=lambda d: (-d.cost_per_hour, d.name))[:SHOWN]
    columns = min(3, max(1, len(ranked)))
    rows = max(1, math.ceil(len(ranked) / columns))
    figure = _figure(4.2 * columns, 3.0 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for index, axis in enumerate(axes.flat):
        if index < len(ranked):
            _panel(axis, ranked[index])
        else:
            axis.axis("off")
    return _png(figure)


def _panel(axis: Axes, decision: IntentDecision) -> None:
    limit = limit_of(decision)
    whole = together(decision.chosen, limit)
    chosen = (whole,) if whole else ()
    for kind, choices in (("option", decision.front), ("chosen", chosen)):
        points = [(choice.cost_per_hour, value) for choice in choices if (value := value_of(choice, limit)) is not None]
        colour, size = (ACCENT, 60) if kind == "chosen" else (SOFT, 18)
        axis.scatter([cost for cost, _ in points], [value for _, value in points], c=colour, s=size, zorder=3)
    slo = decision.slo.get(limit)
    if slo is not None:
        axis.axhline(slo, color=LIMIT, linestyle="--", linewidth=1)
        axis.set_ylim(0, SHOWN_LATENCY * max([slo, *(value_of(c, limit) or 0.0 for c in chosen)]))
    if chosen:
        axis.set_xlim(0, SHOWN_COST * chosen[0].cost_per_hour)
    told = f", SLO {seconds(slo)}" if slo is not None else ""
    # a dollar sign would start a formula
    axis.set_title(decision.name.replace("$", r"\$"), fontsize=10, loc="left", color=INK)
    axis.set_xlabel("cost, USD/h", fontsize=8, color=SOFT)
    axis.set_ylabel(f"{NAMES[limit]}, s{told}", fontsize=8, color=SOFT)
    axis.tick_params(labelsize=8, colors=SOFT)
    axis.spines[["top", "right"]].set_visible(False)


def utilisation(plan: Plan) -> bytes:
    """GPUs used and free, one bar per node pool."""
    figure = _figure(8.0, 0.9 + 0.45 * max(1, len(plan.pools)))
    axis = figure.subplots()
    names = [f"{pool.name} ({pool.gpu})".replace("$", r"\$") for pool in plan.pools]
    places = range(len(names))
    used = [pool.used for pool in plan.pools]
    free = [max(0, pool.gpus - pool.used) for pool in plan.pools]
    axis.barh(places, used, color=ACCENT)
    axis.barh(places, free, left=used, color=FREE)
    for place, pool in zip(places, plan.pools, strict=True):
        axis.text(max(pool.gpus, pool.used), place, f"  {pool.used} of {pool.gpus}", va="center", fontsize=8, color=INK)
    axis.set_yticks(list(places), names, fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel("GPUs", fontsize=8, color=SOFT)
    axis.tick_params(labelsize=8, colors=SOFT)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.12)
    return _png(figure)
