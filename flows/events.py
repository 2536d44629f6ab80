"""Events of Prefect that a night emits, and that automations wait for.

fleetplan.model.registered   a model is planned for the first time: probe it
fleetplan.intent.unmet       a wish is not met, or not all of its load
fleetplan.plan.published     a plan is in force       (likewise .proposed, .shadowed)
fleetplan.plan.refused       a night ended without a plan on purpose: superseded, damaged, bad input
fleetplan.drift              a service behaves otherwise than predicted
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.events import emit_event

from catalog.errors import BadInput, FleetplanError
from catalog.models import Model
from catalog.store import Store
from flows.night import MET, Night
from planner.diff import diff

REGISTERED = "fleetplan.model.registered"
UNMET = "fleetplan.intent.unmet"
REFUSED = "fleetplan.plan.refused"
DRIFT = "fleetplan.drift"
ENDED = {"publish": "fleetplan.plan.published", "review": "fleetplan.plan.proposed",
         "shadow": "fleetplan.plan.shadowed"}  # fmt: skip
#: Kind of the record that says that a model has been planned before.
KIND = "model"
#: Unmet intents that are told one by one; the rest is in the artifacts.
MOST = 50


def emit(event: str, resource: str, payload: dict[str, Any]) -> None:
    """Emit one event about `fleetplan.<resource>`; its name is a label, so that an automation can hand it on."""
    kind, _, name = resource.partition(".")
    about = {"prefect.resource.id": f"fleetplan.{resource}", "prefect.resource.name": name, "fleetplan.kind": kind}
    emit_event(event, resource=about, payload=payload)


def register(models: dict[str, Model], store: Store) -> list[str]:
    """Say of each model whether it is new: once, whichever night comes first to it."""
    known = store.newest(KIND)
    new = []
    for name, model in sorted(models.items()):
        key = {"name": name, "digest": model.digest}
        record = store.put(KIND, key)
        if record.key not in known:
            new.append(name)
            emit(REGISTERED, f"model.{name}", {"model": name, "digest": model.digest})
    return new


def tell(night: Night) -> None:
    """Emit what became of a night."""
    plan = night.plan
    for decision in [each for each in plan.intents if each.status not in MET][:MOST]:
        about = {"status": decision.status, "reason": decision.reason, "share": decision.served_share}
        emit(UNMET, f"intent.{decision.name}", {**about, "serial": plan.serial})
    if night.ending in ENDED:
        payload = {"serial": plan.serial, "digest": plan.digest, "cost_per_hour": plan.cost_per_hour,
                   "folder": night.folder, "changed": bool(diff(night.in_force.plan, plan))}  # fmt: skip
        emit(ENDED[night.ending], "plan.fleet", payload)


@contextmanager
def refusals_told() -> Iterator[None]:
    """Emit that a run ended without a result on purpose (superseded, damaged, bad input) where it did."""
    try:
        yield
    except FleetplanError as error:
        refused(error)
        raise


def refused(error: Exception) -> None:
    """Emit that a night ended without a plan on purpose."""
    kind = "bad input" if isinstance(error, BadInput) else type(error).__name__
    emit(REFUSED, "plan.fleet", {"kind": kind, "reason": str(error)[:2000]})
