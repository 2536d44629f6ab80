"""Rich tables of a plan, of candidates and of the catalog, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from catalog.store import Record, RecordName
from flows.night import MET
from planner.explain import clock
from planner.explain.outlook import SURGE, saved
from planner.plan import Plan

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


def day(plan: Plan) -> list[Table]:
    """Replicas per window of every intent whose load changes over the day, and what that saves; none, no table."""
    shown = [(decision.name, decision.day) for decision in plan.intents if decision.day is not None]
    if not shown:
        return []
    title = "Through the day: replicas that are needed from each hour (UTC) on"
    told = None if plan.day is None else f"the fleet {saved(plan.day.cost, plan.day.peak_cost, plan.day.refunded)}"
    table = Table(title=title, title_justify="left", caption=told, caption_justify="left")
    table.add_column("intent", no_wrap=True)
    for part in shown[0][1].parts:
        table.add_column(clock(part.start_hour), justify="right")
    table.add_column("saves USD/day", justify="right")
    table.add_column("stays as it is, because", overflow="fold")
    for name, mine in shown:
        counts = (f"{part.replicas}" for part in mine.parts)
        table.add_row(name, *counts, dollars(mine.peak_cost - mine.cost), mine.kept or "-")
    return [table]


def margins(plan: Plan) -> list[Table]:
    """Up to which share of the planned load each intent keeps its SLO, case by case; without any, no table."""
    shown = [(decision.name, {s.case: s for s in decision.robustness}) for decision in plan.intents]
    if not any(stresses for _, stresses in shown):
        return []
    heads = {"as_predicted": "as predicted", "slow_end": "slow end", "fast_end": "fast end",
             "half_bandwidth": "half the network"}  # fmt: skip
    title = "Margins: the SLO holds up to this share of the planned load"
    table = Table(title=title, title_justify="left")
    for name in ("intent", *heads.values(), "breaks first", "20 % more load"):
        table.add_column(name, justify="left" if name in {"intent", "breaks first"} else "right")
    for name, stresses in shown:
        if (slow := stresses.get("slow_end")) is None:
            continue
        cells = [f"{stresses[case].breaks_at:.0%}" if case in stresses else "-" for case in heads]
        first = slow.first_to_break.upper() if slow.first_to_break != "capacity" else "capacity"
        table.add_row(name, *cells, first, "carried" if slow.breaks_at >= SURGE else "not carried")
    return [table]


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
