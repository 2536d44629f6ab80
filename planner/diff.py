"""`Difference`: what changes from one plan to the next: replicas, GPUs, money and margins to the SLOs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from planner.explain.change import waves_of
from planner.explain.words import clock
from planner.plan import IntentDecision, Plan, ReplicaGroup

ChangeKind = Literal["added", "removed", "moved", "resized", "reconfigured", "status"]
#: Margins that move by less than this share of the SLO are noise.
MARGIN_STEP = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One intent (in one role) that changes, and how."""

    kind: ChangeKind
    intent: str
    text: str
    gpus: int = 0
    """GPUs gained (+) or freed (-)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Everything that differs between two plans; empty where nothing does."""

    changes: tuple[Change, ...] = ()
    cost_before: float = 0.0
    cost_after: float = 0.0
    gpus: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Node pool -> GPUs used before and after, where they differ."""
    margins: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """`intent limit` -> share of the limit that is left, before and after, where it moves."""
    starts_from_nothing: bool = False
    waves: tuple[tuple[str, ...], ...] = ()
    """The order of the change, sentences of each wave; known where the later plan was made from the earlier one."""

    def __bool__(self) -> bool:
        """True where anything differs."""
        return bool(self.changes or self.gpus or self.margins) or self.cost_before != self.cost_after

    @property
    def cost(self) -> float:
        """Dollars per hour gained (+) or saved (-)."""
        return self.cost_after - self.cost_before

    @property
    def rows(self) -> tuple[tuple[str, str, str, str], ...]:
        """(kind, intent, what, GPUs) of each change, for a table."""
        return tuple((c.kind, c.intent, c.text, f"{c.gpus:+d}" if c.gpus else "0") for c in self.changes)

    def markdown(self) -> str:
        """Write it for a reviewer: the sum first, then every change."""
        if not self:
            return "No change.\n"
        lines = [f"**{self.cost_before:,.2f} → {self.cost_after:,.2f} USD/h** ({self.cost:+,.2f})", ""]
        if self.changes:
            lines += ["| change | intent | what | GPUs |", "|---|---|---|---:|"]
            lines += ["| " + " | ".join(map(cell, row)) + " |" for row in self.rows] + [""]
        if self.gpus:
            lines += ["| node pool | GPUs before | after |", "|---|---:|---:|"]
            lines += [f"| {cell(pool)} | {old} | {new} |" for pool, (old, new) in sorted(self.gpus.items())] + [""]
        if self.margins:
            lines += ["| margin to the SLO | before | after |", "|---|---:|---:|"]
            lines += [
                f"| {cell(name)} | {percent(a)} | {percent(b)} |" for name, (a, b) in sorted(self.margins.items())
            ]
            lines += [""]
        if self.waves:
            lines += ["Order of the change; each wave waits for the one before:", ""]
            lines += [f"{number}. {cell('; '.join(told))}" for number, told in enumerate(self.waves, start=1)] + [""]
        return "\n".join(lines)


def cell(text: str) -> str:
    """Text for a markdown table: one line, pipes escaped."""
    return " ".join(text.split()).replace("|", "\\|")


def percent(share: float | None) -> str:
    """A share as a percentage; a dash where there is none."""
    return "–" if share is None else f"{share:.0%}"


def diff(old: Plan | None, new: Plan) -> Difference:
    """Compare two plans; without an old one everything is added."""
    before = {decision.name: decision for decision in old.intents} if old else {}
    after = {decision.name: decision for decision in new.intents}
    changes = [
        change for key in _keys(old, new) for change in _group_changes(key, _groups(old, key), _groups(new, key))
    ]
    changes += [change for name in sorted({*before, *after}) if (change := _status(before.get(name), after.get(name)))]
    gpus = _by_pool(old), _by_pool(new)
    margins = _margins(before), _margins(after)
    return Difference(
        changes=tuple(changes),
        cost_before=old.cost_per_hour if old else 0.0,
        cost_after=new.cost_per_hour,
        gpus={pool: pair for pool in sorted({*gpus[0], *gpus[1]}) if (pair := _pair(gpus, pool))[0] != pair[1]},
        margins={name: (margins[0].get(name), margins[1].get(name)) for name in _moved(*margins)} if old else {},
        starts_from_nothing=old is None,
        waves=tuple(told for _, told in waves_of(new)) if old is not None and old.digest == new.changed_from else (),
    )


def _pair(gpus: tuple[dict[str, int], dict[str, int]], pool: str) -> tuple[int, int]:
    return gpus[0].get(pool, 0), gpus[1].get(pool, 0)


def _keys(old: Plan | None, new: Plan) -> list[tuple[str, str]]:
    plans = [plan for plan in (old, new) if plan is not None]
    return sorted({(group.intent, group.role) for plan in plans for group in plan.placements})


def _groups(plan: Plan | None, key: tuple[str, str]) -> list[ReplicaGroup]:
    return [group for group in plan.placements if (group.intent, group.role) == key] if plan else []


def shape(group: ReplicaGroup) -> str:
    """How a replica runs, in the short form that strategies are printed in."""
    parts = [group.gpu, f"tp{group.tp}"]
    parts += [f"pp{group.pp}"] * (group.pp > 1) + [f"dp{group.dp}"] * (group.dp > 1)
    parts += [f"ep{group.tp * group.dp}"] * group.expert_parallel
    parts += [group.quantization] * (group.quantization != "bf16") + ["kv8"] * (group.kv_dtype == "fp8")
    parts += [f"1of{group.engines_per_gpu}"] * (group.engines_per_gpu > 1)
    return "-".join(parts)


def _group_changes(key: tuple[str, str], old: list[ReplicaGroup], new: list[ReplicaGroup]) -> list[Change]:
    """Pair groups of equal shape and pool first, then what is left by order; the rest came or went."""
    intent = key[0] if key[1] == "both" else f"{key[0]} ({key[1]})"
    rest_old, rest_new, changes = list(old), list(new), []
    for match in (_same_place, _same_shape, _any):
        for group in tuple(rest_old):
            partner = next((other for other in rest_new if match(group, other)), None)
            if partner is not None:
                rest_old.remove(group)
                rest_new.remove(partner)
                changes += _between(intent, group, partner)
    changes += [Change(kind="removed", intent=intent, text=_place(group), gpus=-group.gpus) for group in rest_old]
    for group in rest_new:
        text = ", ".join([_place(group), *_overrides({}, group.overrides)])
        changes.append(Change(kind="added", intent=intent, text=text, gpus=group.gpus))
    return changes


def _same_place(one: ReplicaGroup, other: ReplicaGroup) -> bool:
    return _same_shape(one, other) and one.node_pool == other.node_pool


def _same_shape(one: ReplicaGroup, other: ReplicaGroup) -> bool:
    return shape(one) == shape(other)


def _any(_one: ReplicaGroup, _other: ReplicaGroup) -> bool:
    return True


def _place(group: ReplicaGroup) -> str:
    return f"{shape(group)} x{group.replicas} on {group.node_pool}"


def _between(intent: str, old: ReplicaGroup, new: ReplicaGroup) -> list[Change]:
    gpus = new.gpus - old.gpus
    if shape(old) != shape(new):
        text = ", ".join([f"{_place(old)} → {_place(new)}", *_overrides(old.overrides, new.overrides)])
        return [Change(kind="reconfigured", intent=intent, text=text, gpus=gpus)]
    changes = []
    if old.node_pool != new.node_pool:
        changes.append(Change(kind="moved", intent=intent, text=f"{_place(old)} → {_place(new)}", gpus=gpus))
    elif old.replicas != new.replicas:
        text = f"{shape(new)}: {old.replicas} → {new.replicas} replicas on {new.node_pool}"
        changes.append(Change(kind="resized", intent=intent, text=text, gpus=gpus))
    elif (moved := _moved_replicas(old, new)) > 0:
        text = f"{shape(new)}: {moved} of {new.replicas} replicas change nodes within {new.node_pool}"
        changes.append(Change(kind="moved", intent=intent, text=text))
    settings = _settings(old, new)
    return changes + [Change(kind="reconfigured", intent=intent, text=settings)] * bool(settings)


def _moved_replicas(old: ReplicaGroup, new: ReplicaGroup) -> int:
    stay = list(old.nodes)
    moved = 0
    for replica in new.nodes:
        if replica in stay:
            stay.remove(replica)
        else:
            moved += 1
    return moved


def _settings(old: ReplicaGroup, new: ReplicaGroup) -> str:
    """Settings that differ besides the shape: `max_num_seqs 256 → 128`, overrides included."""
    skipped = {"intent", "role", "node_pool", "replicas", "nodes", "gpus_per_replica", "overrides", "windows",
               "attention"}  # fmt: skip
    fields = [name for name in ReplicaGroup.model_fields if name not in skipped]
    told = [f"{n} {getattr(old, n)} → {getattr(new, n)}" for n in fields if getattr(old, n) != getattr(new, n)]
    told += [f"replicas by the hour {_hours(old)} → {_hours(new)}"] * (old.windows != new.windows)
    return ", ".join([*told, *_overrides(old.overrides, new.overrides)])


def _overrides(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Flags that a user sets by hand, and sets otherwise now."""
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return [f"override --{name} {old.get(name, 'none')} → {new.get(name, 'none')}" for name in names]


def _hours(group: ReplicaGroup) -> str:
    """Bounds by time of day: `00:00 1, 07:45 3`."""
    return ", ".join(f"{clock(window.start_hour)} {window.min_replicas}" for window in group.windows) or "none"


def _status(old: IntentDecision | None, new: IntentDecision | None) -> Change | None:
    if old is not None and new is not None and old.status == new.status:
        return None
    words = [decision.status.replace("_", " ") if decision else "not asked for" for decision in (old, new)]
    name = new.name if new else old.name if old else ""
    return Change(kind="status", intent=name, text=f"{words[0]} → {words[1]}")


def _by_pool(plan: Plan | None) -> dict[str, int]:
    return {pool.name: pool.used for pool in plan.pools} if plan else {}


def margin(decision: IntentDecision, limit: str) -> float | None:
    """Share of an SLO limit that is left at the slow end of the prediction; negative where it is broken.

    None without a limit or without a strategy. The worst part of a mix counts.
    """
    if limit not in decision.slo or not decision.chosen:
        return None
    latencies = [getattr(part, limit) for part in decision.chosen]
    highs = [latency.high_s if latency is not None else None for latency in latencies]
    known = [high for high in highs if high is not None]
    return 1.0 - max(known) / decision.slo[limit] if len(known) == len(highs) else None


def _margins(decisions: dict[str, IntentDecision]) -> dict[str, float]:
    found = {f"{name} {limit}": margin(d, limit) for name, d in decisions.items() for limit in ("ttft", "tpot")}
    return {name: share for name, share in found.items() if share is not None}


def _moved(old: dict[str, float], new: dict[str, float]) -> list[str]:
    both = sorted({*old, *new})
    return [name for name in both if abs(old.get(name, 2.0) - new.get(name, 2.0)) > MARGIN_STEP]
