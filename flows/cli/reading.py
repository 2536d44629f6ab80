"""Commands that read and explain: `search` one intent, `explain` a decision, `diff` two plans."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.errors import BadInput, near_names
from flows.cli import options

if TYPE_CHECKING:
    from planner.plan import IntentDecision, Plan, Search

YAML = (".yaml", ".yml")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(search)
    app.command()(explain)
    app.command()(diff)


def search(
    fleet: options.Fleet,
    intent: Annotated[str, typer.Argument(help="Name of an intent of the fleet.")],
    *,
    top: Annotated[int, typer.Option(help="Rows to show.", min=1)] = 15,
    root: options.Root = options.ROOT,
    as_json: options.Json = False,
) -> None:
    """Search every strategy for one intent and show the candidates and why the rest was rejected."""
    from flows.search_tables import Candidates, rejections  # noqa: PLC0415

    found, notes = found_for(fleet, intent, root=root)
    if as_json:
        options.print_json(plain(asdict(found)))
    else:
        lines = [f"nearest relaxation: {relaxation.text}" for relaxation in found.relaxations]
        lines += [f"note: {note}" for note in notes]
        shown = [Candidates(found=found.candidates, top=top), rejections(found.rejections, top=top), *lines]
        options.print_tables(f"{intent} is planned for {found.rate:.3g} requests/s", *shown)


def found_for(fleet: Path, intent: str, *, root: str) -> tuple[Search, tuple[str, ...]]:
    """Observe, probe and search one intent of a fleet; what was found, and what was said of its load."""
    from flows.fleet import read_fleet  # noqa: PLC0415

    loaded = read_fleet(fleet)
    names = [wish.name for wish in loaded.fleet.intents]
    if intent not in names:
        what = f"{fleet} has no intent {intent!r}"
        raise BadInput(what, mend=near_names(intent, names))
    from flows.night import search_fleet  # noqa: PLC0415
    from flows.progress import Shown  # noqa: PLC0415
    from flows.site import site_at  # noqa: PLC0415

    with Shown() as shown:
        facts, searches = search_fleet(loaded, site_at(root, options.OUT), perform=shown, only=intent)
    return searches[intent], facts.notes


def plain(value: Any) -> Any:  # noqa: ANN401 - any value of dataclasses and containers
    """Turn what `asdict` leaves into JSON: numbers without bound become null, pydantic models mappings."""
    match value:
        case float():
            return value if abs(value) < float("inf") else None
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case None | str() | int() | bool():
            return value
        case _:
            return plain(value.model_dump(mode="json"))


def explain(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[FLEET|PLAN] INTENT", help="A fleet.yaml or a plan (folder, plan.json, serial) and an intent."
        ),
    ],
    *,
    out: options.Out = options.OUT,
    root: options.Root = options.ROOT,
    as_json: options.Json = False,
) -> None:
    """Say why an intent is served as it is: of the plan in force, of another one, or of a fleet not yet planned."""
    if len(words) > 2:
        what = f"explain takes a plan and an intent, not {len(words)} words"
        raise BadInput(what, mend="write: fleetplan explain plans/1 chat")
    target, intent = (words[0] if len(words) == 2 else None), words[-1]
    plan = dry_plan(Path(target), out=out, root=root) if target and target.endswith(YAML) else read(target, out=out)
    decision = decision_of(plan, intent)
    if as_json:
        options.print_json(explained(plan, decision))
        return
    from planner.explain import explain as in_words  # noqa: PLC0415

    options.print_tables(in_words(plan, intent))


def explained(plan: Plan, decision: IntentDecision) -> dict[str, Any]:
    """The part of a plan that concerns one intent, in JSON."""
    from planner.explain import waves_of  # noqa: PLC0415

    return {
        "intent": decision.model_dump(mode="json"),
        "placements": [group.model_dump(mode="json") for group in plan.placements if group.intent == decision.name],
        "waves": [{"wave": number, "what": list(told)} for number, told in waves_of(plan, decision.name)],
        "rejections": [family.model_dump(mode="json") for family in plan.rejections if family.intent == decision.name],
    }


def dry_plan(fleet: Path, *, out: str, root: str) -> Plan:
    """Plan a fleet without publishing."""
    from flows.fleet import read_fleet  # noqa: PLC0415

    loaded = read_fleet(fleet)
    from flows.night import plan_night  # noqa: PLC0415
    from flows.progress import Shown  # noqa: PLC0415
    from flows.site import site_at  # noqa: PLC0415

    with Shown() as shown:
        return plan_night(loaded, site_at(root, out), perform=shown, dry_run=True).plan


def decision_of(plan: Plan, intent: str) -> IntentDecision:
    """The decision of that name; BadInput with near names if there is none."""
    decisions = {decision.name: decision for decision in plan.intents}
    if intent not in decisions:
        what = f"plan {plan.serial} has no intent {intent!r}"
        raise BadInput(what, mend=near_names(intent, decisions))
    return decisions[intent]


def diff(
    before: Annotated[str, typer.Argument(help="A plan: folder, plan.json or serial.")],
    after: Annotated[str, typer.Argument(help="Another plan.")],
    *,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
) -> None:
    """Show what changes from one plan to another: services, replicas, cost, margins."""
    from planner.diff import diff as difference_of  # noqa: PLC0415

    difference = difference_of(read(before, out=out), read(after, out=out))
    if as_json:
        options.print_json(plain(asdict(difference)))
        return
    from rich.markdown import Markdown  # noqa: PLC0415

    options.print_tables(Markdown(difference.markdown()))


def read(target: str | None, *, out: str) -> Plan:
    """Read a plan: a serial of OUT, a folder, a plan.json; without a target the one in force."""
    from catalog.store import Plans  # noqa: PLC0415
    from flows.publish import read_plan  # noqa: PLC0415
    from planner.plan import from_json  # noqa: PLC0415

    plans = Plans(out)
    if target is None or target.isdecimal():
        serial = plans.latest() if target is None else int(target)
        if serial is None:
            what = f"{out} holds no plan yet"
            raise BadInput(what, mend="make one: fleetplan plan fleet.yaml")
        return read_plan(plans, serial)
    path = Path(target) / "plan.json" if Path(target).is_dir() else Path(target)
    if not path.is_file():
        what = f"{target}: no plan there"
        raise BadInput(what, mend="give a serial, a plans/<serial> folder or its plan.json")
    try:
        return from_json(path.read_text(encoding="utf-8"), place=str(path))
    except UnicodeDecodeError:
        what = f"{path}: not text"
        raise BadInput(what, mend="give the plan.json of a plans/<serial> folder") from None
