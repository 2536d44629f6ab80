"""`rollback`: the files of an earlier published plan as a new commit, as they were."""

from __future__ import annotations

from catalog.errors import BadInput
from flows.gitops import commit as commits
from flows.gitops.commit import PLAN, Target
from flows.gitops.publish import Outcome, live_plan, message_of, outcome
from flows.gitops.published import NAME, Published
from planner.plan import from_json, to_json
from planner.review import gone


def held(target: Target) -> dict[int, str]:
    """Serial -> the newest commit of the branch that holds that plan, newest commit first."""
    base = commits.standing(target).base
    if base is None:
        return {}
    log = target.copy.git("log", "--format=%H", base, "--", f"{target.folder}/{NAME}").decode().split()
    found: dict[int, str] = {}
    for one in log:
        _, list_ = commits.listed(target, one)
        if list_ is not None:
            found.setdefault(list_.serial, one)
    return found


def before(target: Target) -> int:
    """The serial of the plan before the one that the branch holds.

    Raises:
        BadInput: there is none.
    """
    now = commits.standing(target).published
    if now is None:
        raise BadInput("holds no published plan", place=target.place(NAME), mend="fleetplan publish writes one")
    for serial, one in held(target).items():
        list_ = commits.listed(target, one)[1]
        if list_ is not None and serial < (now.restores or now.serial) and list_.digest != now.digest:
            return serial
    what = f"holds no plan before {now.serial}"
    raise BadInput(what, place=target.place(NAME), mend="name one that it held: --to SERIAL")


def rollback(target: Target, to: int, *, serial: int | None = None, overwrite: bool = False) -> Outcome:
    """Bring the files of plan `to` back as they were published; `serial` names the plan anew.

    A rollback is a person's decision: nothing is reviewed, but what stops is said in the notes.

    Raises:
        BadInput: the branch never held that plan, or a path of the repository is not ours to write.
    """
    now, known = commits.standing(target), held(target)
    if to not in known or now.published is None:
        what = f"never held plan {to}"
        mend = "it held " + (", ".join(map(str, sorted(known)[-8:])) or "none: fleetplan publish writes one")
        raise BadInput(what, place=target.place(NAME), mend=mend)
    entries, then = commits.listed(target, known[to])
    assert then is not None  # noqa: S101 - `held` lists commits that have one
    oids = {path: entry.oid for path in then.files if (entry := entries.get(f"{target.folder}/{path}")) is not None}
    if PLAN not in oids:
        raise BadInput(f"lost its {PLAN}", place=f"plan {to} of {target.branch}", mend="name another: --to SERIAL")
    plan = from_json(target.copy.content(oids[PLAN]).decode(errors="replace"), place=f"plan {to}")
    if serial is not None:
        plan = plan.model_copy(update={"serial": serial})
        oids |= commits.written(target, {PLAN: to_json(plan).encode()})
    commits.refuse_strangers(target, now, oids)
    by_hand = commits.changed_by_hand(target, now)
    if by_hand and not overwrite:
        raise BadInput("changed by hand", place=target.place(by_hand[0]), mend="say --overwrite to drop the change")
    live = live_plan(target, now)
    newest, restores = max(now.published.newest, plan.serial), to if serial else None
    list_ = Published(serial=plan.serial, newest=newest, restores=restores, digest=plan.digest,
                      fleet_digest=plan.fleet_digest, files=oids)  # fmt: skip
    message = f"Back to plan {to}: " + message_of(plan, live)
    made = commits.commit(target, now, oids, list_=list_, message=message)
    lost = gone(plan, live) if live else ()
    told = (f"stops for good: {', '.join(lost)}",) if lost else ()
    return outcome(plan, made, commits.held(target, now), oids, message=message, notes=told)
