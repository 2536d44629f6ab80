"""`fleetplan publish` and `fleetplan rollback`: exit codes, what is said, and the plans folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_repositories import FIRST, after, git, plan_of, resized, started, without
from test_cli import run

from catalog.store import Plans
from flows.cli import publishing
from flows.publish import earlier, files_of, in_force, put_in_force, read_plan
from planner.plan import Plan, to_json

SECOND = after(FIRST, placements=resized(FIRST, "chat", 2))


def stored(folder: Path, *plans: Plan) -> Plans:
    """A plans folder that holds these, without manifests and reports."""
    made = Plans(folder)
    for plan in plans:
        made.publish(plan.serial, {"plan.json": to_json(plan).encode()})
    return made


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a working copy `repo` and two plans."""
    started(tmp_path, monkeypatch)
    stored(tmp_path / "plans", FIRST, SECOND)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_publish_commits_and_says_what_to_push(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plan becomes a commit, the same again does not; the exit code is 3 where an intent is unmet, else 0."""
    unmet = any(decision.status in ("unmet", "no_data") for decision in FIRST.intents)
    code, out, _ = run(capsys, "publish", "1", "--repo", "repo", "--format", "vllm", "--json")
    said = json.loads(out)
    assert code == (3 if unmet else 0)
    assert said["commit"] == git(here / "repo", "rev-parse", "fleetplan")
    code, out, _ = run(capsys, "publish", "1", "--repo", "repo", "--format", "vllm")
    assert "unchanged" in out
    code, out, _ = run(capsys, "publish", "plans/2", "--repo", "repo", "--format", "vllm")
    assert "push it: git -C" in out
    assert git(here / "repo", "rev-list", "--count", "main..fleetplan") == "2"


def test_the_exit_code_follows_the_plan(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 where every intent is met, 3 where one is not."""
    for status, expected in (("met", 0), ("unmet", 3)):
        intents = tuple(intent.model_copy(update={"status": status}) for intent in FIRST.intents)
        (here / "plan.json").write_text(to_json(plan_of(1, intents=intents)))
        arguments = ["--repo", "repo", "--format", "vllm", "--branch", status]
        assert run(capsys, "publish", "plan.json", *arguments)[0] == expected


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["publish", "1", "--repo", "absent"], 2, "absent: no such folder"),
        (["publish", "9", "--repo", "repo"], 2, "no plan.json of plan 9"),
        (["publish", "1", "--repo", "repo", "--path", "../x"], 2, "--path: '../x'"),
        (["publish", "1", "--repo", "repo", "--format", "kubernets"], 2, "did you mean 'kubernetes'"),
        (["publish", "empty.json", "--repo", "repo"], 2, "empty.json: it places nothing at all"),
        (["publish", "1", "--repo", "repo", "--fleet", "fleet.yaml"], 1, "1: stale: it was made for fleet"),
        (["rollback"], 2, "write --repo WORKINGCOPY"),
        (["rollback", "--repo", "repo"], 2, "holds no published plan"),
        (["rollback", "--repo", "repo", "--to", "1", "--out", "plans"], 2, "never held plan 1"),
        (["rollback", "--out", "plans", "--to", "7"], 2, "no plan.json of plan 7"),
    ],
)
def test_refusals_write_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    """Bad input ends with 2, a stale plan with 1; neither branch nor plans folder changes."""
    (here / "empty.json").write_text(to_json(plan_of(1, placements=())))
    example = Path(__file__).parent.parent / "examples" / "fleet.yaml"
    (here / "fleet.yaml").write_text(example.read_text().replace("traces/", f"{example.parent}/traces/"))
    found, _, err = run(capsys, *arguments)
    assert found == code
    assert said in err
    assert git(here / "repo", "branch", "--list", "fleetplan") == ""
    assert Plans(here / "plans").serials() == (1, 2)


def test_a_retired_service_is_named_on_the_command_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--retire lets the last replica of a live service go."""
    (here / "less.json").write_text(to_json(after(SECOND, placements=without(SECOND, "chat"))))
    options = ["--repo", "repo", "--format", "vllm"]
    run(capsys, "publish", "2", *options)
    code, _, err = run(capsys, "publish", "less.json", *options)
    assert code == 2
    assert "--retire chat" in err
    assert run(capsys, "publish", "less.json", "--retire", "chat", *options)[0] in {0, 3}


def test_rollback_of_branch_and_plans_folder_together(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The earlier plan is in force again under the next serial, here and on the branch, word for word."""
    for serial in ("1", "2"):
        run(capsys, "publish", serial, "--repo", "repo", "--format", "vllm")
    code, out, _ = run(capsys, "rollback", "--repo", "repo", "--out", "plans", "--json")
    assert code in {0, 3}
    assert json.loads(out)["serial"] == 3
    assert read_plan(Plans(here / "plans"), 3) == FIRST.model_copy(update={"serial": 3})
    assert (
        git(here / "repo", "show", "fleetplan:fleetplan/plan.json") + "\n" == (here / "plans/3/plan.json").read_text()
    )


def test_rollback_of_the_plans_folder_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a serial it goes to the newest plan that differs; the folder is whole, manifests and report included."""
    code, out, _ = run(capsys, "rollback", "--out", "plans", "--json")
    assert (code, json.loads(out)["restores"]) == (0, 1)
    plans = Plans(here / "plans")
    assert in_force(plans).plan == FIRST.model_copy(update={"serial": 3})
    assert (here / "plans" / "3" / "report.html").exists()
    assert earlier(plans).digest == SECOND.digest
    assert earlier(plans, 2) == SECOND


def test_a_plan_of_an_older_version_is_restated_as_it_was_written(tmp_path: Path) -> None:
    """Fields that joined the plan later are not added to a plan that was sealed without them."""
    text = json.loads(to_json(FIRST))
    older = {key: value for key, value in text.items() if key not in {"waves", "movement", "retired", "changed_from"}}
    import hashlib  # noqa: PLC0415

    from planner.plan import canonical_json, from_json  # noqa: PLC0415

    content = {key: value for key, value in older.items() if key not in {"serial", "digest"}}
    older["digest"] = hashlib.sha256(canonical_json(content)).hexdigest()
    plan = from_json(json.dumps(older))
    plans = stored(tmp_path / "plans", plan)
    again = put_in_force(plan, plans)
    assert read_plan(plans, 2) == again
    assert json.loads(files_of(again, previous=None)["plan.json"]).keys() == older.keys()


def test_publishing_goes_where_argo_cd_expects_it() -> None:
    """The default folder is part of the names that the README gives."""
    assert (publishing.BRANCH, publishing.FOLDER) == ("fleetplan", "fleetplan")
