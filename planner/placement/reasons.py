"""Why each intent got what it got: reason, binding row, runner-up, and what is short."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.placement.columns import FULL, LATENCY_GOALS
from planner.placement.program import Program, at_most

if TYPE_CHECKING:
    from planner.intents import Fleet, Intent
    from planner.placement.columns import Columns
    from planner.placement.stages import Asking
    from planner.plan import Status
    from planner.strategies import Candidate

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Market:
    """Prices and room at the chosen point."""

    columns: Columns
    chosen: NDArray[np.int64]  # column of each intent
    prices: Floats  # per class row
    rows: Sequence[tuple[str, str, float, NDArray[np.int64], Floats]]
    """(kind, name, room left, columns, coefficients) of each capacity, quota, budget and movement row."""
    refused: NDArray[np.bool_]
    """Per intent: the validator refused columns of it, as their seats would not survive a loss."""
    shaped: bool
    """Whether some class counts more than GPUs, since its pieces did not pack."""

    def full_price(self, columns: NDArray[np.int64]) -> Floats:
        """Money of columns plus what their GPUs are worth to others, dollars per hour."""
        paid: Floats = self.columns.money[columns] + self.columns.load[columns] @ self.prices
        return paid


def market(columns: Columns, program: Program, values: Floats, prices: Floats) -> Market:
    """Read the room that is left in every row."""
    rows = [
        (row.kind, row.name, row.high - float(row.coefficient @ values[row.index]), row.index, row.coefficient)
        for row in program.rows
        if row.kind in ("capacity", "quota", "budget", "movement")
    ]
    refused = np.zeros(columns.first.size - 1, dtype=bool)
    refused[columns.intent[program.upper[: columns.count] == 0.0]] = True
    shaped = any(row.kind == "pattern" for row in program.rows)
    first = columns.first[:-1]
    chosen = np.array([int(at + np.argmax(values[columns.of(i)])) for i, at in enumerate(first)], dtype=np.int64)
    return Market(columns=columns, chosen=chosen, prices=prices, rows=rows, refused=refused, shaped=shaped)


def runner_up(intent: int, state: Market) -> tuple[tuple[Candidate, ...], float | None]:
    """The best other column that serves as much, and its extra cost at current prices.

    Where latency is the goal, the next fastest; among equals, and otherwise, the cheapest.
    """
    columns = state.columns
    mine = np.arange(columns.first[intent], columns.first[intent + 1])
    chosen = state.chosen[intent]
    others = mine[
        (columns.deficit[mine] <= columns.deficit[chosen] + 1e-9) & (mine != chosen) & (columns.one[mine] >= 0)
    ]
    strategies = {str(candidate.strategy) for candidate in columns.members(int(chosen))}
    price = state.full_price(others) if others.size else np.zeros(0)
    for at in np.lexsort((price, columns.latency[others])).tolist():
        members = columns.members(int(others[at]))
        if {str(candidate.strategy) for candidate in members} != strategies:
            return members, float(price[at] - state.full_price(np.array([chosen]))[0])
    return (), None


def binding(intent: int, wish: Intent, state: Market) -> str:
    """What kept the intent from a better column: the full classes that its best column by itself would need more of."""
    columns = state.columns
    mine = np.arange(columns.first[intent] + 1, columns.first[intent + 1])
    mine = mine[columns.deficit[mine] == 0.0]
    chosen = int(state.chosen[intent])
    if not mine.size:
        return ""
    best = int(mine[np.lexsort((columns.money[mine], columns.latency[mine]))[0]])
    same = columns.money[best] >= columns.money[chosen] - 1e-9 and columns.latency[best] >= columns.latency[chosen]
    if best == chosen or same:
        slo = " and ".join(wish.slo.model_dump(exclude_none=True, exclude={"attainment", "joint"})) if wish.slo else ""
        return f"slo ({slo})" if slo else "load"
    short = [text for text, _ in _short(best, chosen, state)]
    if short:
        return "; ".join(short)
    saved = columns.money[chosen] - columns.money[best]
    worth = [
        f"node pool {row.pool}"
        for row, price, more in zip(columns.rows, state.prices, columns.load[best] - columns.load[chosen], strict=True)
        if price > 1e-9 and more > 0
    ]
    where = " and ".join(dict.fromkeys(worth)) or "the fleet"
    return f"{where}: worth more to others than the {saved:.2f} USD/h it would save here"


def _short(wanted: int, chosen: int, state: Market) -> list[tuple[str, float]]:
    """Rows that have no room for exchanging one column for another: (words, amount short)."""
    found: list[tuple[str, float]] = []
    parts = {row.pool: row.parts for row in state.columns.rows}
    for kind, name, room, index, weights in state.rows:
        need = _weight(index, weights, wanted)
        lacking = need - _weight(index, weights, chosen) - room
        if lacking > 1e-6 and need > 0:
            each = parts[name.rsplit("/", 1)[0]] if kind == "capacity" else 1
            found.append((_words(kind, name, lacking / each, need / each), lacking))
    return found


def _weight(index: NDArray[np.int64], weights: Floats, column: int) -> float:
    at = int(np.searchsorted(index, column))
    return float(weights[at]) if at < index.size and index[at] == column else 0.0


def _words(kind: str, name: str, lacking: float, need: float) -> str:
    if kind == "capacity":
        pool, size = name.rsplit("/", 1)
        shape = f" in slots of {size}" if size != "1" else ""
        return f"capacity: node pool {pool} is short by {math.ceil(lacking)} of {math.ceil(need)} GPUs{shape}"
    if kind == "quota":
        team, gpu = name.split("/", 1)
        return f"quota: team {team} is short by {math.ceil(lacking)} of {math.ceil(need)} {gpu}"
    if kind == "budget":
        return f"budget: team {name} is short by {lacking:.2f} of {need:.2f} USD/h"
    return f"movement: {math.ceil(lacking)} GPUs more than tonight's limit would start"


def verdict(intent: int, wish: Intent, state: Market, *, offered: int, coverage: float) -> tuple[Status, str]:
    """Status and one sentence."""
    columns = state.columns
    chosen = int(state.chosen[intent])
    members = columns.members(chosen)
    true_share = min(1.0, sum(candidate.share for candidate in members))
    said = " + ".join(str(candidate.strategy) for candidate in members)
    if members and true_share >= FULL:
        goal = "lowest latency" if wish.goal in LATENCY_GOALS else "least cost"
        return "met", f"{said} serves the load within the SLO at {goal} for the fleet as a whole."
    if members and columns.standing[chosen] and columns.share[chosen] >= FULL and true_share >= coverage:
        kept = f"it still covers {true_share:.1%} of the load, so it is not restarted"
        return "margin_consumed", f"{said} runs already: {kept}."
    return "unmet", _unmet(intent, wish, state, offered=offered, said=said, share=true_share)


def _unmet(  # noqa: PLR0913 - everything that may be the reason
    intent: int, wish: Intent, state: Market, *, offered: int, said: str, share: float
) -> str:
    columns = state.columns
    mine = np.arange(columns.first[intent] + 1, columns.first[intent + 1])
    chosen = int(state.chosen[intent])
    given = f" {said} serves {share:.0%} of it." if said else " Nothing runs."
    if not mine.size:
        refused = columns.options[intent].refused
        if not offered:
            return "No candidate serves any share of the load within the SLO." + given
        why = refused[0] if refused and not columns.options[intent].candidates else _limits(intent, wish, columns)
        return f"None of {offered} candidates may be used: {why}." + given
    best = mine[columns.deficit[mine] == 0.0]
    top = float(columns.share[best].max())
    if columns.deficit[chosen] <= 1e-9:
        return f"No strategy serves more than {top:.0%} of the load within the SLO." + given
    ways = [(sum(amount for _, amount in short), short) for c in best if (short := _short(int(c), chosen, state))]
    if not ways:
        if state.refused[intent]:
            return "availability: no seats were found that survive the loss it must survive." + given
        if state.shaped:
            return "capacity: the GPUs that are left do not make pieces of the right size." + given
        return "The solver found no better plan in its time." + given
    _, short = min(ways, key=lambda way: way[0])
    return "; ".join(text for text, _ in short) + "." + given


def _limits(intent: int, wish: Intent, columns: Columns) -> str:
    """Which of the intent's own limits leaves no candidate: survival, where all others would."""
    options, rule = columns.options[intent], wish.availability
    room = {row.pool: row.limit for row in columns.rows if row.size == 1}
    held = np.array([room.get(row.pool, 0) if row.size == 1 else np.inf for row in columns.rows])
    fits = (options.replicas >= wish.min_replicas) & (options.load <= held).all(axis=1)
    if wish.max_replicas is not None:
        fits &= options.replicas <= wish.max_replicas
    if wish.budget is not None:
        fits &= options.cost <= wish.budget * (1 + 1e-9)
    if rule.survive == "none" or not fits.any():
        return "its limits on replicas and budget, and the size of the node pools, leave none"
    unit = rule.survive.replace("_", " ")
    return (
        f"availability: neither one nor two together serve {rule.share:.0%} of it after the loss of a {unit};"
        f" another {unit} to spread over, or a lower share, would help"
    )


def missing_gpus(fleet: Fleet, columns: Columns, program: Program, asking: Asking) -> dict[str, int]:
    """GPUs short per node pool for every intent to have its best column, added where that costs least (an LP bound)."""
    pools = {pool.name: at for at, pool in enumerate(fleet.cluster.pools)}
    n = program.variables
    price = _pool_prices(columns)
    upper = np.concatenate((program.upper, np.full(len(pools), np.inf)))
    upper[: columns.count][columns.deficit > 0.0] = 0.0
    rows = []
    for row in program.rows:
        if row.kind == "capacity":
            extra = n + pools[row.name.rsplit("/", 1)[0]]
            weights = np.zeros(n + len(pools))
            weights[row.index] = row.coefficient
            weights[extra] = -1.0
            rows.append(at_most("capacity", row.name, row.high, weights))
        elif row.kind in ("pick", "quota", "budget"):
            rows.append(row)
    integer = np.zeros(n + len(pools), dtype=bool)
    wide = Program(columns=columns.count, upper=upper, integer=integer, rows=tuple(rows))
    objective = np.concatenate((np.zeros(n), [price.get(name, 1.0) for name in pools]))
    answer = asking.ask(wide, objective, share=0.3, relax=True)
    if answer.values is None:
        return {}
    short = answer.values[n:]
    parts = {pool.name: pool.engines_per_gpu for pool in fleet.cluster.pools}
    return {name: math.ceil(short[at] / parts[name] - 1e-6) for name, at in pools.items() if short[at] > 1e-6}


def _pool_prices(columns: Columns) -> Mapping[str, float]:
    """Median dollars per GPU and hour of what runs on each pool alone."""
    held = columns.nominal.sum(axis=1)
    found = {}
    for at, name in enumerate(columns.pools):
        alone = (columns.nominal[:, at] > 0) & (columns.nominal[:, at] == held)
        if alone.any():
            found[name] = float(np.median(columns.cost[alone] / held[alone]))
    return found
