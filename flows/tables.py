"""Rich tables of a plan, of candidates and of the catalog, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from catalog.store import Record, RecordName
from flows.night import MET
from planner.plan import Plan
from planner.strategies import Candidate, Rejection

STATUS_STYLE = {"met": "green", "margin_consumed": "yellow", "unmet": "red", "no_data": "magenta"}
NUMBERS = ("serves", "TTFT", "TPOT", "USD/h")


def seconds(value: float | None) -> str:
    """Write `41 ms` or `1.2 s`; `-` where there is no bound."""
    if value is None:
        return "-"
    return f"{value * 1e3:.3g} ms" if value < 1.0 else f"{value:.3g} s"


def dollars(value: float | None) -> str:
    """Write dollars per hour to the cent."""
    return "-" if value is None else f"{value:,.2f}"


def decisions(plan: Plan) -> Table:
    """One row per intent: what was decided, with the slow end of the SLO's quantile."""
    table = Table(title=f"Plan {plan.serial}", title_justify="left", caption=_totals(plan), caption_justify="left")
    for name in ("intent", "status", "serves", "strategy", "TTFT", "TPOT", "USD/h", "bound by"):
        table.add_column(name, justify="right" if name in NUMBERS else "left", overflow="fold")
    for decision in plan.intents:
        chosen = decision.chosen
        table.add_row(
            decision.name,
            Text(decision.status.replace("_", " "), style=STATUS_STYLE[decision.status]),
            f"{decision.served_share:.0%}",
            "\n".join(choice.strategy for choice in chosen) or "-",
            "\n".join(seconds(choice.ttft.high_s) for choice in chosen) or "-",
            "\n".join(seconds(choice.tpot.high_s) for choice in chosen) or "-",
            dollars(decision.cost_per_hour) if chosen else "-",
            decision.binding,
        )
    return table


def unmet(plan: Plan) -> list[str]:
    """Lines on each intent that is not met: why, and what would help."""
    lines = []
    for decision in plan.intents:
        if decision.status not in MET:
            lines.append(f"{decision.name} is {decision.status.replace('_', ' ')}: {decision.reason}")
            lines += [f"  {relaxation.text}" for relaxation in decision.relaxations]
    return lines


def _totals(plan: Plan) -> str:
    proof = f"{plan.solved.solver} {plan.solved.status.replace('_', ' ')}, gap {plan.solved.gap:.2%}"
    base = plan.baseline_cost_per_hour
    if base is None:
        return f"{dollars(plan.cost_per_hour)} USD/h; {proof}"
    more = plan.cost_per_hour - base
    compared = f"{dollars(abs(more))} {'more' if more > 0 else 'less'} than {dollars(base)} for {plan.baseline}"
    return f"{dollars(plan.cost_per_hour)} USD/h; {proof}\n{compared}"


def pools(plan: Plan) -> Table:
    """One row per node pool: GPUs used and what one more would save."""
    table = Table(title="Node pools", title_justify="left")
    for name in ("pool", "GPU", "used", "of", "USD/GPU/h", "one more saves USD/h"):
        table.add_column(name, justify="left" if name in {"pool", "GPU"} else "right")
    for pool in plan.pools:
        price = dollars(pool.price_per_gpu_hour)
        table.add_row(pool.name, pool.gpu, str(pool.used), str(pool.gpus), price, dollars(pool.shadow_price))
    return table


def candidates(found: Sequence[Candidate], *, top: int) -> Table:
    """Show the cheapest candidates that serve the whole rate."""
    whole = sorted((c for c in found if c.share >= 1.0), key=lambda c: (c.cost_per_hour, str(c.strategy)))
    table = Table(title=f"{len(found):,} candidates, {len(whole):,} serve the whole rate", title_justify="left")
    for name in ("strategy", "on", "USD/h", "TTFT", "TPOT", "goodput /s", "SLO holds", "load", "quality", "source"):
        table.add_column(name, justify="left" if name in {"strategy", "on", "source"} else "right")
    for candidate in whole[:top]:
        estimate = candidate.estimate
        table.add_row(
            str(candidate.strategy),
            ", ".join(f"{pool} {gpus}" for pool, gpus in candidate.gpus),
            dollars(candidate.cost_per_hour),
            seconds(estimate.ttft_high),
            seconds(estimate.tpot_high),
            f"{estimate.goodput_low:.3g}-{estimate.goodput:.3g}",
            f"{estimate.slo_probability:.0%}",
            f"{estimate.utilisation:.0%}",
            f"{candidate.quality:.3f}",
            f"{estimate.method.replace('_', ' ')}, {estimate.source}",
        )
    return table


def rejections(found: Iterable[Rejection], *, top: int) -> Table:
    """Show the largest families of rejected strategies."""
    ordered = sorted(found, key=lambda rejection: (-rejection.count, rejection.reason, rejection.strategy))
    total = sum(rejection.count for rejection in ordered)
    table = Table(title=f"{total:,} strategies rejected", title_justify="left")
    for name in ("strategies", "count", "reason", "detail"):
        table.add_column(name, justify="right" if name == "count" else "left", overflow="fold")
    for rejection in ordered[:top]:
        reason = rejection.reason.replace("_", " ")
        table.add_row(rejection.strategy, f"{rejection.count:,}", reason, rejection.detail)
    return table


def records(rows: Sequence[tuple[RecordName, Record]]) -> Table:
    """One row per record of the catalog: its name, abbreviated, and its key."""
    table = Table(title=f"{len(rows):,} newest records", title_justify="left")
    table.add_column("record")
    table.add_column("serial", justify="right")
    table.add_column("key", overflow="fold")
    for name, record in rows:
        key = ", ".join(f"{part} {value}" for part, value in record.key.items() if value not in ("", [], None))
        table.add_row(str(name).partition("-")[0], str(name.serial), key)
    return table
