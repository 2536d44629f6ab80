"""Laws of the source itself: who imports whom, what is pure, what each file says of itself, what is never called.

Run as a program, it writes the layout tree into README.md.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PACKAGES = ("catalog", "probes", "planner", "flows")
MAY_IMPORT = {
    "catalog": {"catalog"},
    "probes": {"probes", "catalog"},
    "planner": {"planner", "catalog"},
    "flows": set(PACKAGES),
}
#: Library -> where alone it may be imported.
ONLY_IN = {
    "prefect": ("flows/",),
    "torch": ("probes/",),
    "vllm": ("probes/",),
    "pulp": ("planner/placement/",),
    "highspy": ("planner/placement/",),
    "typer": ("flows/cli/",),
    "obstore": ("catalog/store/",),
    "matplotlib": ("planner/report",),
}
#: Flows and what they alone use; nothing else may import Prefect, or the command line would take seconds to start.
PREFECT = {"flows/nightly.py", "flows/replan.py", "flows/tasks.py", "flows/artifacts.py", "flows/automations.py",
           "flows/events.py", "flows/spread.py",
           *(f"flows/deployed/{flow}.py" for flow in ("calibrate", "fit", "observe", "probe", "publish",
                                                  "whatif"))}  # fmt: skip
MOST_LINES = 400
#: Tests of no single module, and what they are about.
SPECIAL_TESTS = {
    "test_architecture": "the source itself",
    "test_laws": "laws across modules",
    "test_examples": "examples/",
    "test_readme": "README.md",
    "test_benchmarks": "benchmarks/",
}
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))
SOURCES = [*MODULES, *BENCHMARKS, *sorted((ROOT / "tests").rglob("*.py"))]
PLANNER = [path for path in MODULES if path.is_relative_to(ROOT / "planner")]


def name(path: Path) -> str:
    """A file as the README names it."""
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree(path: Path) -> ast.Module:
    """Its syntax."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions; relative imports do not occur."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)} imports relatively"
            yield node.module or ""


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an attribute or a name, else the empty text."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def calls(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every call."""
    found = (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))
    yield from ((node.lineno, dotted(node.func)) for node in found)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_down(path: Path) -> None:
    """The import law: flows -> planner | probes -> catalog, and planner and probes never each other."""
    allowed = MAY_IMPORT[name(path).split("/")[0]]
    ours = {module.split(".")[0] for module in imports(path)} & {*PACKAGES, "tests", "benchmarks"}
    assert ours <= allowed


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_libraries_stay_where_they_belong(path: Path) -> None:
    """Prefect only in flows, torch and vLLM only in probes, solvers only in placement, and so on."""
    used = {module.split(".")[0] for module in imports(path)} & set(ONLY_IN)
    assert all(name(path).startswith(ONLY_IN[library]) for library in used), used


def test_prefect_is_imported_by_flows_alone() -> None:
    """Only the flow modules import Prefect, and nothing imports those when it is itself imported."""
    assert {name(path) for path in MODULES if "prefect" in {m.split(".")[0] for m in imports(path)}} <= PREFECT
    flows = {entry.removesuffix(".py").replace("/", ".") for entry in PREFECT}
    for path in MODULES:
        top = {node.module for node in tree(path).body if isinstance(node, ast.ImportFrom)}
        assert name(path) in PREFECT or not top & flows, name(path)


IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "breakpoint", "datetime.now", "datetime.utcnow", "date.today"}
IMPURE_MODULES = {"os", "time", "random", "secrets", "subprocess", "socket", "urllib", "requests", "httpx", "shutil",
                  "tempfile", "logging", "uuid", "pathlib", "sys"}  # fmt: skip


@pytest.mark.parametrize("path", PLANNER, ids=name)
def test_the_planner_is_pure(path: Path) -> None:
    """planner/ opens no file, reads no clock and no environment, draws nothing without a seed, prints nothing.

    The solvers are the one exception: a child process that is watched and killed (planner/placement/cbc.py).
    """
    modules = {module.split(".")[0] for module in imports(path)}
    solver = {"os", "subprocess", "tempfile", "time", "pathlib", "shutil", "signal"}
    allowed = solver if name(path) == "planner/placement/cbc.py" else set()
    assert not modules & IMPURE_MODULES - allowed
    for line, called in calls(path):
        tail = ".".join(called.split(".")[-2:])
        assert called not in IMPURE_CALLS, f"line {line} calls {called}"
        assert tail not in IMPURE_CALLS, f"line {line} calls {called}"
        assert not called.startswith(("np.random.rand", "np.random.seed", "numpy.random.rand")), f"line {line}"
        assert called.split(".")[-1] not in {"read_text", "write_text", "read_bytes", "write_bytes"}, f"line {line}"


def test_random_generators_are_seeded() -> None:
    """`default_rng()` without a seed gives another answer every time: it occurs nowhere."""
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and dotted(node.func).endswith("default_rng"):
                assert node.args or node.keywords, f"{name(path)}:{node.lineno}"


FORBIDDEN_CALLS = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load", "pickle.load", "pickle.loads",
                   "cloudpickle.loads", "marshal.loads", "shelve.open", "eval", "exec", "os.system"}  # fmt: skip
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_nothing_read_can_run_code(path: Path) -> None:
    """No pickle, no unsafe YAML, no torch.load, no code of a model's repository: data stays data."""
    assert not {module.split(".")[0] for module in imports(path)} & FORBIDDEN_MODULES
    assert not {called for _, called in calls(path)} & FORBIDDEN_CALLS
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            assert isinstance(node.value, ast.Constant), f"line {node.value.lineno}"
            assert node.value.value is False, f"line {node.value.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_are_short_and_say_what_they_are(path: Path) -> None:
    """No file is longer than 400 lines; the first line of each is a one-sentence caption."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    caption = (ast.get_docstring(tree(path)) or "").split("\n\n", 1)[0]
    assert caption.endswith((".", "!", "?", ":")), caption
    assert "\n" not in caption, caption


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_names_say_what_things_are(path: Path) -> None:
    """No utils, no managers: names that fit everything name nothing."""
    assert path.stem not in {"utils", "util", "common", "helpers", "types", "misc", "base"}
    classes = [node.name for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]
    assert not [n for n in classes if re.search(r"(Manager|Handler|Helper|Utils?|Info)$|^Base", n)]


def module_of(test: str) -> bool:
    """Whether tests/test_<this>.py names a module or a package: `plan_assemble` is planner/plan/assemble.py.

    A package may have further test files, `<package>_<what>`.
    """
    paths = {path.relative_to(ROOT).with_suffix("").as_posix() for path in (*MODULES, *BENCHMARKS)}
    names = {path.removesuffix("/__init__").split("/", 1)[-1].replace("/", "_") for path in paths}
    packages = {path.parent.name for path in MODULES} | {"benchmarks"}
    return test in names or any(test == package or test.startswith(f"{package}_") for package in packages)


def test_every_test_file_is_about_a_module() -> None:
    """tests/test_<module>.py names a module that exists, or one of the few special tests."""
    stems = [path.stem for path in (ROOT / "tests").glob("test_*.py")]
    assert [stem for stem in stems if stem not in SPECIAL_TESTS and not module_of(stem.removeprefix("test_"))] == []


#: Modules without a test file of their own, and where they are tested.
TESTED_ELSEWHERE = {
    "catalog/errors.py": "every test of bad input",
    "flows/cli": "test_cli",
    "flows/steps.py": "test_flows",
}


def has_test(path: Path) -> bool:
    """Whether a module, or the package that it is part of, has a test file."""
    stems = {test.stem for test in (ROOT / "tests").glob("test_*.py")}
    parts = path.relative_to(ROOT).with_suffix("").parts
    inner = parts[1:-1] if parts[-1] == "__init__" else parts[1:]
    own = {"test_" + "_".join(inner[: end + 1]) for end in range(len(inner))}
    return bool(stems & (own | {f"test_{parts[0]}"})) or any(s.startswith(f"test_{inner[0]}_") for s in stems)


def test_every_module_has_a_test() -> None:
    """Each module, or the package that it is part of, has its test file."""
    inner = [path for path in MODULES if path.parent.name not in PACKAGES or path.name != "__init__.py"]
    missing = [name(path) for path in inner if not has_test(path)]
    assert [path for path in missing if not any(path.startswith(known) for known in TESTED_ELSEWHERE)] == []


LAYOUT = re.compile(r"(?<=<!-- layout -->\n```text\n)(.*?)\n(?=```)", re.DOTALL)


def layout() -> str:
    """The tree of README.md: each module of the four packages, and each package within them as one line."""
    lines = []
    for package in PACKAGES:
        caption = _caption(ROOT / package / "__init__.py")
        lines.append(f"{package + '/':<22} {caption}")
        inside = [p for p in (ROOT / package).iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
        for path in sorted(inside, key=lambda path: path.stem):
            if path.name != "__init__.py":
                name = path.name if path.suffix == ".py" else f"{path.name}/"
                lines.append(f"  {name:<20} {_caption(path if path.suffix else path / '__init__.py')}")
    return "\n".join(lines)


def _caption(path: Path) -> str:
    return (ast.get_docstring(tree(path)) or "").split("\n", 1)[0]


def test_readme_shows_the_layout() -> None:
    """README.md's tree lists modules and packages with the captions that they have."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = LAYOUT.search(readme)
    assert shown is not None
    assert layout() == shown[1], "write it anew: python tests/test_architecture.py"


def test_prefect_entrypoints_exist() -> None:
    """Each deployment of prefect.yaml names a flow that exists and gives it parameters that it has."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    assert {"nightly", "replan"} <= {deployment["name"] for deployment in deployments}
    for deployment in deployments:
        module, _, function = deployment["entrypoint"].partition(":")
        source = tree(ROOT / (module.replace(".", "/") + ".py"))
        found = {node.name: node for node in source.body if isinstance(node, ast.FunctionDef)}[function]
        arguments = {argument.arg for argument in (*found.args.args, *found.args.kwonlyargs)}
        assert set(deployment["parameters"]) <= arguments


def test_the_nightly_schedule_cannot_slip() -> None:
    """The night is scheduled in UTC under a slug, and a second one at the same time is cancelled."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    nightly = next(deployment for deployment in deployments if deployment["name"] == "nightly")
    (schedule,) = nightly["schedules"]
    assert (schedule["timezone"], schedule["slug"]) == ("UTC", "nightly")
    assert re.fullmatch(r"[0-5]?\d ([01]?\d|2[0-3]) \* \* \*", schedule["cron"])
    assert nightly["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}


def test_constraints_name_no_host() -> None:
    """Each line of constraints.txt is name==version: no URL, no path, no index."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line)] == []


def test_the_packages_import() -> None:
    """Each of the four packages can be imported and says why it is so."""
    for package in PACKAGES:
        assert importlib.import_module(package).__doc__


if __name__ == "__main__":
    README = ROOT / "README.md"
    README.write_text(LAYOUT.sub(lambda _: layout() + "\n", README.read_text(encoding="utf-8")), encoding="utf-8")
