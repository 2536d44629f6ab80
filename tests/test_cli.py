"""Laws of the command line: exit codes, one line on standard error, nothing written where nothing was planned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catalog.store import Store
from flows.cli.doctor import NEEDED
from flows.cli.main import fail, main

ROOT = Path(__file__).parent.parent
FLEET = """
cluster:
  pools:
    - {name: one, gpu: h100_sxm, gpus_per_node: 8, nodes: 1, price: 2.29 USD/GPU/h}
intents:
  - name: chat
    model: meta-llama/Llama-3.1-8B-Instruct
    workload: {rate: 2 /s, prompt: {mean: 500}, output: {mean: 100}}
    slo: {ttft: 1 s, tpot: 50 ms}
"""


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of the command line in this process."""
    before = sys.argv
    sys.argv = ["fleetplan", *arguments]
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.argv = before
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


BAD = {
    "missing": (None, "no such file"),
    "broken YAML": ("cluster: [", "fleet.yaml:"),
    "unknown key": (FLEET.replace("slo:", "sla:"), "did you mean 'slo'"),
    "unknown GPU": (FLEET.replace("h100_sxm", "h100_smx"), "h100_sxm"),
    "unknown model": (FLEET.replace("Llama-3.1-8B", "Lama-3.1-8B"), "Llama-3.1-8B"),
    "negative rate": (FLEET.replace("2 /s", "-2 /s"), "-2 /s"),
    "absurd rate": (FLEET.replace("2 /s", "1e30 /s"), "1e30 /s"),
    "no unit": (FLEET.replace("50 ms", "50"), "unit"),
    "declared twice": (FLEET + FLEET[FLEET.index("  - name") :], "declared twice"),
}


@pytest.mark.parametrize("command", [["plan"], ["plan", "--dry-run"], ["search"], ["nightly"]], ids=" ".join)
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_error(
    here: Path, capsys: pytest.CaptureFixture[str], command: list[str], case: str
) -> None:
    """Bad input ends with 2, names file and fault on standard error without a traceback, and writes nothing."""
    text, said = BAD[case]
    if text is not None:
        (here / "fleet.yaml").write_text(text)
    before = sorted(here.rglob("*"))
    code, out, err = run(capsys, *command, "fleet.yaml", *(["chat"] if command == ["search"] else []))
    assert (code, out) == (2, "")
    assert err.startswith("fleetplan: fleet.yaml")
    assert said in err
    assert "Traceback" not in err
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "fleet.yaml", "chatt"], "did you mean 'chat'"),
        (["explain", "chat"], "holds no plan yet"),
        (["explain", "7", "chat"], "no plan.json of plan 7"),
        (["explain", "a", "b", "c"], "not 3 words"),
        (["diff", "1", "2"], "no plan.json of plan 1"),
        (["diff", "fleet.yaml", "2"], "not a plan"),
        (["catalog", "show", "x"], "no record starts with 'x'"),
        (["catalog", "ls", "--root", "ftp://x"], "scheme 'ftp'"),
    ],
)
def test_wrong_names_are_bad_input(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """A name that nothing has ends with 2 and says what there is."""
    (here / "fleet.yaml").write_text(FLEET)
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert said in err


def test_usage_errors_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command or a missing argument is bad input too."""
    assert run(capsys, "plam")[0] == 2
    assert run(capsys, "plan")[0] == 2


def test_a_fault_ends_with_1_and_tells_how_to_see_it(capsys: pytest.CaptureFixture[str]) -> None:
    """What nobody foresaw is one line and exit 1; the plan in force stays."""
    assert fail(ZeroDivisionError("division by zero")) == 1
    assert fail(OSError(28, "No space left on device")) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("the plan in force stays" in line for line in lines)


def test_debug_shows_the_traceback(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--debug, anywhere on the line, shows where an error arose."""
    del here
    code, _, err = run(capsys, "plan", "--debug", "absent.yaml")
    assert code == 2
    assert "Traceback" in err


def test_catalog_lists_shows_and_verifies(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the store holds can be listed, shown by the start of its name, and verified; damage ends with 1."""
    name = Store(here / "var" / "catalog").put("note", {"gpu": "l4"}, note={"v": 1})
    code, out, _ = run(capsys, "catalog", "ls", "--json")
    assert (code, json.loads(out)) == (0, [{"record": str(name), "key": {"gpu": "l4"}}])
    code, out, _ = run(capsys, "catalog", "show", str(name)[:12], "--json")
    assert json.loads(out) == {"record": str(name), "key": {"gpu": "l4"}, "note": {"v": 1}, "rows": []}
    assert run(capsys, "catalog", "verify", "--json")[:2] == (0, '{\n  "damaged": {},\n  "records": 1\n}\n')
    (here / "var" / "catalog" / str(name)).write_bytes(b"{}")
    code, out, err = run(capsys, "catalog", "verify")
    assert (code, out) == (1, "1 records, 1 damaged\n")
    assert str(name) in err


def test_doctor_knows_what_is_installed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every package that a night needs is found here, with its version, and the folders can be written."""
    del here
    code, out, _ = run(capsys, "doctor", "--json")
    found = {finding["what"]: finding["verdict"] for finding in json.loads(out)}
    assert code == 0
    assert {found[name] for name in (*NEEDED, "root", "plans", "fastapi", "sqlalchemy", "python")} == {"ok"}


def test_doctor_faults_a_folder_that_cannot_be_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a night could not write, doctor ends with 1."""
    (here / "file").write_text("not a folder")
    code, out, _ = run(capsys, "doctor", "--json", "--root", "file/var")
    assert code == 1
    assert "fault" in out


def test_the_command_line_starts_quickly() -> None:
    """--help answers within 1.5 s of CPU: no command imports Prefect or the compiled planner before it runs."""
    code = "import sys; from flows.cli import app; sys.exit(bool({'prefect', 'numba', 'polars'} & set(sys.modules)))"
    before = os.times()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.5


def test_importing_takes_no_prefect() -> None:
    """Everything but the flows can be used where Prefect is not wanted."""
    code = "import sys, flows.night, flows.progress, flows.tables; sys.exit('prefect' in sys.modules)"
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert time.monotonic() - started < 60
