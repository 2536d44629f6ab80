"""Rich tables of a plan, of candidates and of the catalog, for a terminal."""

from __future__ import annotations

from collections import defaultdict
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
    title = f"{len(whole):,} candidates serve the whole rate, {len(found) - len(whole):,} a part of it, for mixes"
    table = Table(title=title, title_justify="left", caption=_LEGEND, caption_justify="left")
    for name in ("strategy", "GPUs", "USD/h", "TTFT", "TPOT", "goodput /s", "holds", "load", "quality", "known from"):
        table.add_column(name, justify="left" if name in {"strategy", "GPUs", "known from"} else "right")
    for candidate in whole[:top]:
        estimate = candidate.estimate
        table.add_row(
            str(candidate.strategy).replace(" / ", " /\n"),
            ",\n".join(f"{gpus} of {pool}" for pool, gpus in candidate.gpus),
            dollars(candidate.cost_per_hour),
            seconds(estimate.ttft_high),
            seconds(estimate.tpot_high),
            f"{estimate.goodput_low:.3g}-{estimate.goodput:.3g}",
            f"{estimate.slo_probability:.0%}",
            f"{estimate.utilisation:.0%}",
            f"{candidate.quality:.3f}",
            f"{estimate.method.replace('_', ' ')},\n{estimate.source}",
        )
    return table


#: What the columns of candidates mean.
_LEGEND = (
    "TTFT, TPOT: at the SLO's quantile, slow end of the interval. goodput: requests/s within the SLO, slow end to "
    "middle.\nholds: probability that the SLO holds at this load. load: share of capacity in use. "
    "quality: share of the unquantized score."
)


def rejections(found: Iterable[Rejection], *, top: int) -> Table:
    """Show why strategies were rejected: the reasons by count, each with its largest families as examples."""
    by_reason: dict[str, list[Rejection]] = defaultdict(list)
    for rejection in sorted(found, key=lambda rejection: (-rejection.count, rejection.strategy)):
        by_reason[rejection.reason].append(rejection)
    ranked = sorted(by_reason.items(), key=lambda item: (-_total(item[1]), item[0]))
    title = f"{_total(family for families in by_reason.values() for family in families):,} strategies rejected"
    table = Table(title=title, title_justify="left")
    for name in ("count", "reason", "for example", "since"):
        table.add_column(name, justify="right" if name == "count" else "left", overflow="fold")
    shown = max(1, top // max(1, len(ranked)))
    for reason, families in ranked:
        for at, family in enumerate(families[:shown]):
            first = (f"{_total(families):,}", reason.replace("_", " ")) if at == 0 else ("", "")
            table.add_row(*first, f"{family.strategy} ({family.count:,})", family.detail)
    return table


def _total(families: Iterable[Rejection]) -> int:
    return sum(family.count for family in families)


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
