"""Commands that hand a plan over through Git: `publish` it as a commit on a branch, `rollback` to an earlier one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalog.errors import BadInput
from flows.cli import options, reading

if TYPE_CHECKING:
    from flows.gitops import Outcome, Target

UNMET = 3
BRANCH, FOLDER = "fleetplan", "fleetplan"

Repo = Annotated[str, typer.Option(help="Root of a Git working copy; nothing is pushed.")]
Branch = Annotated[str, typer.Option(help="Branch to commit on; made from what is checked out if there is none.")]
Folder = Annotated[str, typer.Option("--path", help="Folder of the repository that the plan fills.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Drop changes made by hand to published files.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(publish)
    app.command()(rollback)


def publish(  # noqa: PLR0913 - options
    plan: Annotated[str, typer.Argument(help="A plan: serial, folder or plan.json.")],
    *,
    repo: Repo,
    branch: Branch = BRANCH,
    path: Folder = FOLDER,
    fleet: Annotated[Path | None, typer.Option(help="fleet.yaml: refuse a plan made for another one.")] = None,
    retire: Annotated[list[str] | None, typer.Option(help="A live service that may go; repeat.")] = None,
    formats: Annotated[list[str] | None, typer.Option("--format", help="A manifest format; repeat; all.")] = None,
    overwrite: Overwrite = False,
    out: options.Out = options.OUT,
    as_json: options.Json = False,
) -> None:
    """Commit a plan's files on a branch of a Git working copy; an unchanged plan makes no commit."""
    from flows import gitops  # noqa: PLC0415 - what only these commands need

    target = gitops.Target.at(repo, branch=branch, folder=path)
    wanted = reading.read(plan, out=out)
    now = None if fleet is None else digest_of(fleet)
    done = gitops.publish(wanted, target, place=plan, fleet_digest=now, retired=retire or (), formats=formats,
                          overwrite=overwrite)  # fmt: skip
    show(done, target, as_json=as_json)


def digest_of(fleet: Path) -> str:
    """The digest of a fleet as it is now."""
    from flows.fleet import read_fleet  # noqa: PLC0415

    return read_fleet(fleet).digest


def rollback(  # noqa: PLR0913 - options
    *,
    repo: Annotated[str | None, typer.Option(help="Root of a Git working copy: bring files back there.")] = None,
    branch: Branch = BRANCH,
    path: Folder = FOLDER,
    to: Annotated[int | None, typer.Option(help="Serial to go back to; by default the plan before.", min=1)] = None,
    overwrite: Overwrite = False,
    out: Annotated[str | None, typer.Option(help="Plans folder: make the plan the one in force there.")] = None,
    as_json: options.Json = False,
) -> None:
    """Bring an earlier plan back: its files as a new commit, and in the plans folder under the next serial."""
    if repo is None and out is None:
        what = "nothing says where to roll back"
        raise BadInput(what, mend="write --repo WORKINGCOPY, or --out plans, or both")
    from flows import gitops  # noqa: PLC0415 - what only these commands need

    target = None if repo is None else gitops.Target.at(repo, branch=branch, folder=path)
    if target is not None:
        to = to or gitops.before(target)
        if to not in gitops.held(target):
            gitops.rollback(target, to)  # says what it held
    serial = None if out is None else in_force_again(out, to, as_json=as_json and target is None)
    if target is not None and to is not None:
        show(gitops.rollback(target, to, serial=serial, overwrite=overwrite), target, as_json=as_json)


def in_force_again(out: str, to: int | None, *, as_json: bool) -> int:
    """Make an earlier plan of a plans folder the one in force; its new serial."""
    from catalog.store import Plans  # noqa: PLC0415
    from flows.publish import earlier, put_in_force  # noqa: PLC0415

    plans = Plans(out)
    old = earlier(plans, to)
    again = put_in_force(old, plans)
    if as_json:
        options.print_json({"serial": again.serial, "restores": old.serial, "folder": plans.folder(again.serial)})
    else:
        sys.stderr.write(f"plan {old.serial} is in force again as {plans.folder(again.serial)}\n")
    return again.serial


def show(done: Outcome, target: Target, *, as_json: bool) -> None:
    """Say what was committed, and exit with 3 if an intent is unmet."""
    for note in done.notes:
        sys.stderr.write(f"note: {note}\n")
    if as_json:
        told = {"branch": target.branch, "folder": target.folder, "commit": done.commit, "serial": done.plan.serial}
        counts = {"digest": done.plan.digest, "written": done.written, "deleted": done.deleted}
        options.print_json({**told, **counts, "message": done.message})
    elif done.commit is None:
        options.print_tables(f"unchanged: {target.branch} holds plan {done.plan.serial} already")
    else:
        counted = f"{done.written} files written, {done.deleted} deleted"
        options.print_tables(f"{target.branch} {done.commit[:12]}: plan {done.plan.serial}, {counted}",
                             f"push it: git -C {target.copy.root} push origin {target.branch}")  # fmt: skip
    if any(decision.status in {"unmet", "no_data"} for decision in done.plan.intents):
        raise typer.Exit(UNMET)
