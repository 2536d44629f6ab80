"""The report's sections, each a function from a plan to HTML; every name from outside is escaped."""

from __future__ import annotations

from collections import Counter
from html import escape

from planner.diff import Difference, shape
from planner.explain import SOURCE_WORDS, counted, dollars, seconds, wish_of
from planner.plan import IntentDecision, Plan, PoolUse
from planner.report.svg import against_slo, cost_against_latency, shown_of, stacked

STATUS_WORDS = {"met": "met", "margin_consumed": "margin used up", "unmet": "unmet", "no_data": "no data"}
SOLVED_WORDS = {
    "proven": "proven optimal",
    "within_gap": "within the gap",
    "time_limit": "best at the time limit",
    "rounded": "rounded from the relaxation",
    "greedy": "greedy, no bound",
    "kept_last": "last plan kept",
}
COLOURS = 8


def text(value: object) -> str:
    """Escaped text."""
    return escape(str(value))


def table(head: list[tuple[str, str]], rows: list[list[str]], *, stack: bool = False) -> str:
    """A table from (heading, CSS class) and HTML cells; `stack` turns rows into cards on a phone."""
    heading = "".join(f'<th class="{kind}">{text(title)}</th>' for title, kind in head)
    body = "".join(
        "<tr>" + "".join(
            f'<td class="{kind}" data-label="{text(title)}">{cell}</td>'
            for (title, kind), cell in zip(head, row, strict=True)
        ) + "</tr>"
        for row in rows
    )  # fmt: skip
    kind = "stack" if stack else "plain"
    inside = f"<thead><tr>{heading}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="{kind}">{inside}</table></div>'


def badge(status: str) -> str:
    """A status as a coloured word."""
    return f'<span class="badge {text(status)}">{text(STATUS_WORDS.get(status, status))}</span>'


def summary(plan: Plan, previous: Plan | None) -> str:
    """One sentence for who reads no further."""
    counts = Counter(decision.status for decision in plan.intents)
    served = counts["met"] + counts["margin_consumed"]
    told = f"{served} of {len(plan.intents)} intents are served for {dollars(plan.cost_per_hour)}"
    if plan.baseline_cost_per_hour:
        told += f", {versus(plan.cost_per_hour, plan.baseline_cost_per_hour)} one configuration for all"
    if previous is not None:
        told += f" and {versus(plan.cost_per_hour, previous.cost_per_hour)} the plan in force"
    told += "."
    if counts["margin_consumed"]:
        told += f" {counts['margin_consumed']} of them without safety margin."
    rest = [f"{counts[kind]} {STATUS_WORDS[kind]}" for kind in ("unmet", "no_data") if counts[kind]]
    return f'<p class="lead">{text(told)} {text("Not served: " + ", ".join(rest) + "." if rest else "")}</p>'


def versus(cost: float, other: float) -> str:
    """`27 % below`, `4 % above` or `the same as`."""
    if other <= 0:
        return "not comparable with"
    change = cost / other - 1.0
    return "the same as" if abs(change) < 0.0005 else f"{abs(change):.1%} {'below' if change < 0 else 'above'}"


def tiles(plan: Plan, previous: Plan | None, difference: Difference | None) -> str:
    """The few numbers that a morning needs."""
    used, total = sum(pool.used for pool in plan.pools), sum(pool.gpus for pool in plan.pools)
    counts = Counter(decision.status for decision in plan.intents)
    shown = [(dollars(plan.cost_per_hour), f"{plan.cost_per_hour * 730:,.0f} USD a month")]
    if plan.baseline_cost_per_hour:
        saved = plan.baseline_cost_per_hour - plan.cost_per_hour
        word = "saved against" if saved >= 0 else "more than"
        shown.append((f"{abs(saved):,.2f} USD/h", f"{word} one configuration for all"))
    if previous is not None and difference is not None:
        shown.append((f"{difference.cost:+,.2f} USD/h".replace("-", "−"), f"against plan {previous.serial}, in force"))
    shown.append((f"{used} of {total}", "GPUs used"))
    shown.append((f"{counts['met']} of {len(plan.intents)}", "intents met with margin"))
    gap = f"{plan.solved.gap:.2%}" if plan.solved.bound is not None else "unknown"
    shown.append((gap, f"gap to the bound, {SOLVED_WORDS[plan.solved.status]}"))
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><b>{tile(number)}</b><span>{text(what)}</span></div>' for number, what in shown
    ) + "</div>"  # fmt: skip


def tile(number: str) -> str:
    """A number with its unit in small."""
    value, _, unit = number.partition(" USD")
    return text(value) + (f" <small>USD{text(unit)}</small>" if unit else "")


def attention(plan: Plan) -> str:
    """Intents that are not met, worst first, each with what would help."""
    order = ("unmet", "no_data", "margin_consumed")
    mine = sorted(
        (d for d in plan.intents if d.status in order), key=lambda d: (order.index(d.status), d.priority, d.name)
    )
    if not mine:
        return ""
    cards = []
    for decision in mine:
        helps = "".join(f"<li>{text(relaxation.text)}</li>" for relaxation in decision.relaxations)
        share = (
            f"<p><b>{decision.served_share:.0%}</b> of its load is served.</p>" if 0 < decision.served_share < 1 else ""
        )
        cards.append(
            f'<div class="card alert {decision.status}_"><header><h3>{text(decision.name)}</h3>{badge(decision.status)}'
            f"</header><p>{text(decision.reason)}</p>{share}"
            + (f"<small>What would help, each alone:</small><ul>{helps}</ul>" if helps else "")
            + "</div>"
        )
    return f'<section><h2>Needs a decision</h2><div class="cards alerts">{"".join(cards)}</div></section>'


def decisions(plan: Plan) -> str:
    """Every intent: strategy, cost, and predicted latency against the SLO."""
    limits = [("TTFT", "ttft"), ("TPOT", "tpot")]
    limits += [("whole request", "e2e")] * any("e2e" in decision.slo for decision in plan.intents)
    head = [("intent", ""), ("strategy", "wide"), ("USD/h", "r num")]
    head += [*((title, "") for title, _ in limits), ("load", "r num")]
    rows = []
    for decision in sorted(plan.intents, key=lambda d: (-d.cost_per_hour, d.name)):
        chosen = "<br>".join(text(part.strategy) for part in decision.chosen) or "–"
        why = decision.binding and f'<span class="why">bound by {text(decision.binding)}</span>'
        model = f'<span class="why">{text(decision.model)}</span>'
        goodput = sum(part.goodput_low for part in decision.chosen)
        rows.append(
            [
                f"<span><b>{text(decision.name)}</b> {badge(decision.status)}{model}</span>",
                f"<span>{chosen}{why}</span>",
                f"{decision.cost_per_hour:,.2f}" if decision.chosen else "–",
                *(gauge(decision, limit) for _, limit in limits),
                f"{decision.rate:.3g}/s" + (f" of {goodput:.3g}/s" if decision.chosen else ""),
            ]
        )
    legend = (
        '<p class="legend"><span>Marks: median, 90th percentile, SLO quantile at the slow end of the prediction. '
        "The upright line is the SLO, the bar ends at 150 % of it. Load: requests planned for, of those that keep the "
        "SLO at the slow end.</span></p>"
    )
    return f"<section><h2>Decisions</h2>{table(head, rows, stack=True)}{legend}</section>"


def gauge(decision: IntentDecision, limit: str) -> str:
    """One latency against its SLO, as numbers and a bar."""
    if not decision.chosen:
        return f"<span>– of {seconds(decision.slo[limit])}</span>" if limit in decision.slo else ""
    found = [getattr(part, limit) for part in decision.chosen]
    latencies = [(each.p50_s, each.p90_s, shown_of(each)) for each in found if each is not None]
    if not latencies:
        return ""
    slo = decision.slo.get(limit)
    worst = max(latencies, key=lambda three: float("inf") if three[2] is None else three[2])
    if slo is None:
        return f'<span><span class="num">{seconds(worst[0])}</span><span class="why">median, no limit</span></span>'
    told = f'<span class="num">{seconds(worst[2])} <span class="soft">of {seconds(slo)}</span></span>'
    return f"<span>{told}{against_slo(latencies, slo)}</span>"


def pools(plan: Plan) -> str:
    """GPUs of each pool by intent."""
    names = sorted({group.intent for group in plan.placements})
    colour = {name: f"c{index % COLOURS}" for index, name in enumerate(names)}
    cards = "".join(_pool(plan, pool, colour) for pool in plan.pools)
    return f'<section><h2>GPUs by pool</h2><div class="cards">{cards}</div></section>'


def _pool(plan: Plan, pool: PoolUse, colour: dict[str, str]) -> str:
    held: Counter[str] = Counter()
    for group in plan.placements:
        if group.node_pool == pool.name:
            held[group.intent] += group.gpus
    segments = [(float(held[name]), colour[name]) for name in sorted(held)]
    bar = stacked([*segments, (float(max(0, pool.gpus - pool.used)), "free")], float(max(pool.gpus, 1)))
    swatch = '<svg viewBox="0 0 9 9" aria-hidden="true"><rect class="{}" width="9" height="9"/></svg>'
    chips = "".join(f"<span>{swatch.format(colour[name])}{text(name)} {held[name]}</span>" for name in sorted(held))
    free = f"<span>{swatch.format('free')}free {max(0, pool.gpus - pool.used)}</span>"
    worth = "" if not pool.shadow_price else f" · one more GPU saves {pool.shadow_price:.2f} USD/h"
    worth = " · another GPU would save nothing" if pool.shadow_price == 0 else worth
    price = "no price" if pool.price_per_gpu_hour is None else f"{pool.price_per_gpu_hour:.2f} USD/GPU/h"
    name = f"<h3>{text(pool.name)}</h3>"
    return (
        f'<div class="card"><header>{name}<span class="num">{pool.used} of {pool.gpus}</span></header>'
        f"<small>{text(pool.gpu)} · {price}{worth}</small>{bar}"
        f'<div class="chips">{chips}{free}</div></div>'
    )


def trade_offs(plan: Plan) -> str:
    """Cost against latency per intent, the chosen point on the front."""
    drawn = [(decision, cost_against_latency(decision)) for decision in plan.intents]
    cards = "".join(
        f'<div class="card"><h3>{text(decision.name)}</h3><small>{text(wish_of(decision))}</small>{plot}'
        f"<small>{text(second(decision))}</small></div>"
        for decision, plot in drawn
        if plot
    )
    dot = '<svg viewBox="0 0 12 12" aria-hidden="true"><circle class="{}" cx="6" cy="6" r="4.5"/></svg>'
    legend = "".join(
        f"<span>{dot.format(kind)}{what}</span>"
        for kind, what in (
            ("chosen", "chosen"),
            ("runner-up", "runner-up"),
            ("option", "other option"),
            ("option guess", "unmeasured (roofline)"),
        )
    )
    inside = f'<p class="legend">{legend}</p><div class="cards">{cards}</div>'
    return f"<section><h2>Cost against latency</h2>{inside}</section>" if cards else ""


def second(decision: IntentDecision) -> str:
    """The runner-up in a line."""
    if decision.runner_up is None:
        return "No runner-up."
    gap = decision.runner_up.cost_per_hour - decision.cost_per_hour
    return f"Runner-up {decision.runner_up.strategy}: {abs(gap):,.2f} USD/h {'more' if gap >= 0 else 'less'}."


def savings(plan: Plan, previous: Plan | None) -> str:
    """This plan's cost beside the baseline's and the plan in force."""
    compared = [("this plan", plan.cost_per_hour, "best")]
    if previous is not None:
        compared.append((f"plan {previous.serial}, in force", previous.cost_per_hour, "plain"))
    if plan.baseline_cost_per_hour is not None:
        compared.append(("one configuration for all", plan.baseline_cost_per_hour, "plain"))
    top = max(cost for _, cost, _ in compared) or 1.0
    rows = [[text(name), stacked([(cost, kind)], top), f"{cost:,.2f}"] for name, cost, kind in compared]
    told = f"<p><small>Baseline: {text(plan.baseline.rstrip('.'))}.</small></p>" if plan.baseline else ""
    return f"<section><h2>What it saves</h2>{table([('', ''), ('', ''), ('USD/h', 'r num')], rows)}{told}</section>"


def changes(previous: Plan, difference: Difference) -> str:
    """What differs from the plan in force."""
    title = f"<h2>Changes from plan {previous.serial}</h2>"
    if not difference:
        return f"<section>{title}<p>No change.</p></section>"
    head = [("change", ""), ("intent", ""), ("what", ""), ("GPUs", "r num")]
    rows = [[text(cell) for cell in row] for row in difference.rows]
    return (
        f"<section>{title}{table(head, rows, stack=True)}{order(difference)}</section>"
        if rows
        else f"<section>{title}<p>Costs alone.</p></section>"
    )


def order(difference: Difference) -> str:
    """The waves of the change, behind a click."""
    if not difference.waves:
        return ""
    waves = "".join(f"<li>{text('; '.join(told))}.</li>" for told in difference.waves)
    said = "In this order; each wave waits until what it starts serves:"
    title = f"<summary>Order, {counted(len(difference.waves), 'wave')}</summary>"
    return f"<details>{title}<p>{said}</p><ol>{waves}</ol></details>"


def words(reason: str) -> str:
    """A reason without underscores, escaped."""
    return text(reason.replace("_", " "))


def rejections(plan: Plan) -> str:
    """Why other strategies fell: by reason, with the details behind a click."""
    if not plan.rejections:
        return ""
    counts: Counter[str] = Counter()
    for family in plan.rejections:
        counts[family.reason] += family.count
    top = max(counts.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    bars = [
        [text(reason.replace("_", " ")), stacked([(float(n), "plain")], float(top)), f"{n:,}"] for reason, n in ranked
    ]
    rows = [
        [text(f.intent), words(f.reason), text(f.strategy), text(f.detail), f"{f.count:,}"] for f in plan.rejections
    ]
    head = [("intent", ""), ("reason", ""), ("such as", ""), ("detail", ""), ("count", "r num")]
    return (
        f"<section><h2>Why other strategies fell</h2>{table([('reason', ''), ('', ''), ('strategies', 'r num')], bars)}"
        f"<details><summary>By intent</summary>{table(head, rows, stack=True)}</details></section>"
    )


def placements(plan: Plan) -> str:
    """Where everything runs."""
    head = [("intent", ""), ("role", ""), ("runs as", ""), ("replicas", "r num"), ("pool", ""), ("nodes", "")]
    rows = []
    for group in plan.placements:
        held: Counter[str] = Counter(share.node for replica in group.nodes for share in replica)
        names = sorted(held, key=lambda name: (len(name), name))
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        role = "prefill + decode" if group.role == "both" else group.role
        cells = [group.intent, role, shape(group), group.replicas, group.node_pool, shown]
        rows.append([text(cell) for cell in cells])
    inside = f"<summary>{len(rows)} replica groups</summary>{table(head, rows, stack=True)}"
    return f"<section><h2>Placements</h2><details>{inside}</details></section>"


def provenance(plan: Plan) -> str:
    """What the numbers rest on, and how good the answer provably is."""
    solved, origin = plan.solved, plan.provenance
    bound = f"; no plan can cost less than {dollars(solved.bound)}" if solved.bound is not None else ""
    sources = "; ".join(f"{count} {SOURCE_WORDS.get(name, name)}" for name, count in origin.sources.items())
    pairs = [
        (
            "Placement",
            f"{SOLVED_WORDS[solved.status]}, gap {solved.gap:.3%}{bound} ({solved.solver}, {solved.columns:,} columns)",
        ),
        ("Strategies by source", sources or "none chosen"),
        ("Kernel tables", origin.tables),
        ("Fitted constants", origin.constants),
        ("Fingerprints", f"{len(origin.fingerprints)} records"),
        ("vLLM", f"{plan.vllm_version}, image {plan.image}"),
        ("Plan digest", plan.digest),
        ("Fleet digest", plan.fleet_digest),
        *(("Price", f"{name}: {told}") for name, told in sorted(origin.prices.items())),
        *(("Note", note) for note in (*solved.notes, *origin.notes)),
    ]
    listed = "".join(f"<dt>{text(name)}</dt><dd>{text(told)}</dd>" for name, told in pairs)
    prints = "".join(f"<code>{text(digest)}</code><br>" for digest in origin.fingerprints)
    more = f"<details><summary>Fingerprint digests</summary><p>{prints}</p></details>" if prints else ""
    return f"<section><h2>What this rests on</h2><dl>{listed}</dl>{more}</section>"
