"""The stages render and publish: the files of a plan, and the folder that they become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from catalog.errors import BadInput, CorruptRecord, FleetplanError
from catalog.store import Plans
from planner.plan import Plan, from_json, to_json

#: What becomes of a night's plan: it is published; kept for a review, or as a shadow of what would have been; or only
#: shown.
Ending = Literal["publish", "review", "shadow", "show"]
REPORT = "report.html"
#: Plans that are looked through for one that differs from the newest.
LOOK_BACK = 31


class InForce(NamedTuple):
    """The plan that stands when the night begins."""

    plan: Plan | None
    other: Plan | None
    """The newest plan whose decision differs from it: what a night without a change is compared with."""
    serial: int
    """Serial that tonight's plan takes."""
    notes: tuple[str, ...]


def in_force(plans: Plans) -> InForce:
    """Read the newest plan that is sound; damaged ones are passed over and named."""
    serial, notes = plans.next_serial(), []
    sound: list[Plan] = []
    for number in plans.serials()[: -LOOK_BACK - 1 : -1]:
        try:
            plan = read_plan(plans, number)
        except FleetplanError as error:
            notes.append(f"passed over: {error}")
            continue
        if not sound or plan.digest != sound[0].digest:
            sound.append(plan)
        if len(sound) == 2:
            break
    newest: list[Plan | None] = [*sound, None, None]
    return InForce(newest[0], newest[1], serial, tuple(notes))


def read_plan(plans: Plans, serial: int) -> Plan:
    """Read one published plan; CorruptRecord if it was damaged or changed by hand."""
    place = f"{plans.folder(serial)}/plan.json"
    try:
        text = plans.read(serial).decode()
    except UnicodeDecodeError as error:
        msg = f"{place}: not text"
        raise CorruptRecord(msg) from error
    return from_json(text, place=place)


def earlier(plans: Plans, to: int | None = None) -> Plan:
    """The plan to go back to: of that serial, or the newest whose decision differs from the one in force.

    Raises:
        BadInput: there is none.
    """
    if to is not None:
        return read_plan(plans, to)
    other = in_force(plans).other
    if other is None:
        raise BadInput("holds no other plan", place=plans.root, mend="name one: --to SERIAL")
    return other


def put_in_force(plan: Plan, plans: Plans) -> Plan:
    """Publish an earlier plan again, word for word, under the next serial.

    Raises:
        StalePlan: another night published meanwhile.
    """
    base = in_force(plans)
    again = plan.model_copy(update={"serial": base.serial})
    plans.publish(base.serial, files_of(again, previous=base.plan))
    return again


def files_of(plan: Plan, *, previous: Plan | None) -> dict[str, bytes]:
    """Every file of a plan's folder: plan.json, the manifests, the report against the previous plan."""
    from planner.manifests import render  # noqa: PLC0415 - the report draws with matplotlib, which starts slowly
    from planner.report import html  # noqa: PLC0415

    texts: Mapping[str, str] = {
        "plan.json": to_json(plan),
        **{f"manifests/{path}": text for path, text in render(plan).items()},
        REPORT: html(plan, previous=previous),
    }
    return {path: text.encode() for path, text in texts.items()}
