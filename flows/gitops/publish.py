"""`publish`: a reviewed plan's files as one commit on a branch."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from catalog.errors import BadInput, StalePlan, near_names
from flows.gitops import commit as commits
from flows.gitops.commit import PLAN, Standing, Target
from flows.gitops.published import Published
from planner.manifests import pull_request, render
from planner.plan import Plan, from_json, to_json
from planner.review import review

MANIFESTS = "manifests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What publishing came to."""

    plan: Plan
    """As it stands on the branch now."""
    commit: str | None
    """None: the branch held it already."""
    message: str
    written: int = 0
    deleted: int = 0
    notes: tuple[str, ...] = ()


def publish(  # noqa: PLR0913 - what a reviewer may say
    plan: Plan,
    target: Target,
    *,
    place: str = PLAN,
    fleet_digest: str | None = None,
    retired: Collection[str] = (),
    formats: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Outcome:
    """Commit a plan's files on the target's branch, unless something stands against it.

    Raises:
        StalePlan: the plan was made for another fleet or base than what stands.
        BadInput: the plan is empty, drops or moves too much, or a path of the repository is not ours to write.
    """
    now = commits.standing(target)
    live = live_plan(target, now)
    newest = now.published.newest if now.published else 0
    raise_objections(plan, live, place=place, newest=newest, retired=retired, fleet_digest=fleet_digest)
    unchanged = live is not None and live.digest == plan.digest
    if unchanged and live is not None:
        plan = plan.model_copy(update={"serial": live.serial})  # the decision stands, so does its name
    contents = files(plan, target.folder, formats)
    commits.refuse_strangers(target, now, contents)
    by_hand = commits.changed_by_hand(target, now)
    if by_hand and not overwrite:
        what = f"changed by hand since plan {now.published.serial if now.published else 0}"
        mend = "put it into the intents' overrides, and say --overwrite to drop it here"
        raise BadInput(what, place=target.place(by_hand[0]), mend=mend)
    oids = commits.written(target, contents)
    message = message_of(plan, live)
    restores = now.published.restores if now.published and unchanged else None
    list_ = Published(serial=plan.serial, newest=max(newest, plan.serial), restores=restores, digest=plan.digest,
                      fleet_digest=plan.fleet_digest, files=oids)  # fmt: skip
    made = commits.commit(target, now, oids, list_=list_, message=message)
    return outcome(plan, made, commits.held(target, now), oids, message=message, notes=notes(plan, live))


def outcome(  # noqa: PLR0913 - a record of what was done
    plan: Plan, made: str | None, old: dict[str, str], oids: dict[str, str], *, message: str, notes: tuple[str, ...]
) -> Outcome:
    """Count what a commit changed of the files that the branch held."""
    changed = sum(old.get(path) != oid for path, oid in oids.items()) if made else 0
    gone = len(set(old) - set(oids)) if made else 0
    return Outcome(plan=plan, commit=made, message=message, written=changed, deleted=gone, notes=notes)


def live_plan(target: Target, now: Standing) -> Plan | None:
    """The plan that the branch holds; None before the first."""
    entry = now.entries.get(f"{target.folder}/{PLAN}")
    if now.published is None or entry is None or entry.mode not in commits.FILES:
        return None
    return from_json(target.copy.content(entry.oid).decode(errors="replace"), place=target.place(PLAN))


def raise_objections(  # noqa: PLR0913 - what `review` asks, and where the plan lies
    plan: Plan, live: Plan | None, *, place: str, newest: int, retired: Collection[str], fleet_digest: str | None
) -> None:
    """Turn the first objection into an error; the others follow it."""
    known = {group.intent for group in live.placements} if live else set()
    for name in sorted(set(retired) - known):
        raise BadInput(f"{name!r} is not live", place="--retire", mend=near_names(name, known))
    found = review(plan, live, newest=newest, retired=retired, fleet_digest=fleet_digest)
    if not found:
        return
    first, *rest = found
    text = "".join(f"\n{place}: {objection.text}; {objection.mend}" for objection in rest)
    if first.kind == "stale":
        raise StalePlan(f"{place}: stale: {first.text}; {first.mend}{text}")
    raise BadInput(first.text, place=place, mend=first.mend + text)


def files(plan: Plan, folder: str, formats: Sequence[str] | None) -> dict[str, bytes]:
    """Every file below the folder but the list: plan.json and the manifests, which know where they will lie."""
    texts = render(plan, formats=formats, folder=f"{folder}/{MANIFESTS}")
    named = {PLAN: to_json(plan), **{f"{MANIFESTS}/{path}": text for path, text in texts.items()}}
    return {path: text.encode() for path, text in named.items()}


def message_of(plan: Plan, live: Plan | None) -> str:
    """The commit's message: one line that says what it costs, then the pull request's text."""
    more = f" ({plan.cost_per_hour - live.cost_per_hour:+,.2f})" if live else ""
    body = re.sub(r"[^\n -~\u00a0-\ud7ff]", " ", pull_request(plan, live))
    return f"Fleet plan {plan.serial}: {plan.cost_per_hour:,.2f} USD/h{more}\n\n{body}"


def notes(plan: Plan, live: Plan | None) -> tuple[str, ...]:
    """What a person should know before pushing."""
    if live is None or live.digest in {plan.digest, plan.changed_from}:
        return ()
    return (f"plan {plan.serial} was made from a plan that was never published here: its waves start from that one",)
