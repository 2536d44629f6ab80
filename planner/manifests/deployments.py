"""`Unit`: what one endpoint serves: one collocated group, or a prefill and a decode group that belong together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from planner.manifests.index import index
from planner.manifests.names import beside, group_names, safe, short_hash
from planner.plan import IntentDecision, Plan, ReplicaGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One endpoint of the fleet."""

    name: str
    """RFC 1123 label, unique in the plan."""
    decode: ReplicaGroup
    """The collocated group, or the decode group."""
    decode_name: str
    prefill: ReplicaGroup | None = None
    prefill_name: str = ""

    @property
    def intent(self) -> str:
        """The intent that it serves."""
        return self.decode.intent

    @property
    def disaggregated(self) -> bool:
        """True: prefill and decode run apart."""
        return self.prefill is not None

    @property
    def groups(self) -> tuple[tuple[str, ReplicaGroup], ...]:
        """(name, group), prefill first."""
        first = ((self.prefill_name, self.prefill),) if self.prefill is not None else ()
        return (*first, (self.decode_name, self.decode))


def units(plan: Plan) -> tuple[Unit, ...]:
    """Pair prefill with decode groups of the same intent, in order; a collocated group stands alone."""
    waiting: dict[str, list[tuple[str, ReplicaGroup]]] = {}
    for name, group in zip(group_names(plan), plan.placements, strict=True):
        if group.role == "prefill":
            waiting.setdefault(group.intent, []).append((name, group))
    pairs = Counter(group.intent for group in plan.placements if group.role == "decode")
    made: list[Unit] = []
    for name, group in zip(group_names(plan), plan.placements, strict=True):
        if group.role == "both":
            made.append(Unit(name=name, decode=group, decode_name=name))
        elif group.role == "decode" and waiting.get(group.intent):
            prefill_name, prefill = waiting[group.intent].pop(0)
            # several pairs of one intent, or a collocated group beside the pair, would share the intent's name
            base = (
                beside(plan, f"{safe(group.intent)}-pd")
                if pairs[group.intent] == 1
                else f"{safe(group.intent, 40)}-pd-{short_hash(name)}"
            )
            made.append(Unit(name=base, decode=group, decode_name=name, prefill=prefill, prefill_name=prefill_name))
    return tuple(made)


def decision_of(plan: Plan, intent: str) -> IntentDecision | None:
    """What was decided for the intent."""
    return index(plan).intents.get(intent)
