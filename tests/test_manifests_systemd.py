"""`planner.manifests.systemd`: unit files that read back as the commands of the plan, and that systemd accepts."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_plans import random_plan

from planner.manifests import render
from planner.manifests.compose import Part, Router, processes
from planner.manifests.systemd import ENVIRONMENT_FILE, command, word
from planner.plan import Plan, from_json

SAMPLE = Path(__file__).parent / "plans" / "sample.json"
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "s": " ", "\\": "\\", '"': '"', "'": "'"}


def sample() -> Plan:
    """The hand-made plan."""
    return from_json(SAMPLE.read_text(encoding="utf-8"))


def words(text: str, *, dollars: bool = True) -> list[str]:
    r"""Split a line as systemd.syntax(7) says: quotes, `\\xNN` bytes, `%%`, and `$$` on command lines."""
    found: list[bytes] = []
    token = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))(?=\s|$)')
    at = 0
    while at < len(text.rstrip()):
        match = token.match(text, at)
        assert match is not None, text[at:]
        at = match.end()
        raw = match[1] if match[1] is not None else match[2]
        piece = re.sub(r"\\(x[0-9a-f]{2}|.)", lambda m: unescaped(m[1]), raw)
        piece = piece.replace("%%", "%")
        found.append((piece.replace("$$", "$") if dollars else piece).encode("latin-1"))
    return [one.decode("utf-8", "surrogatepass") for one in found]


def unescaped(code: str) -> str:
    """One escape as the byte that it stands for."""
    return chr(int(code[1:], 16)) if code.startswith("x") and len(code) == 3 else ESCAPES[code]


def unit(text: str) -> configparser.RawConfigParser:
    """Read a unit file; keys that stand more than once hold their lines."""

    class Lines(dict):
        def __setitem__(self, key: str, value: object) -> None:
            if isinstance(value, list) and key in self and isinstance(self[key], list):
                self[key].extend(value)
            else:
                super().__setitem__(key, value)

    parser = configparser.RawConfigParser(strict=False, interpolation=None, dict_type=Lines, delimiters=("=",))
    parser.optionxform = str
    parser.read_string(text)
    return parser


@given(st.lists(st.text(max_size=40).filter(lambda text: "\0" not in text), min_size=1, max_size=6))
def test_words_read_back_as_what_was_written(line: list[str]) -> None:
    """Quotes, dollars, percent signs, control characters and any other text survive systemd's syntax, in one line."""
    assert words(command(line)) == line
    assert words(" ".join(map(word, line)), dollars=False) == line
    assert "\n" not in command(line)
    assert command(line).isascii()


@pytest.mark.parametrize("seed", [None, *range(6)])
def test_each_process_is_one_unit(seed: int | None) -> None:
    """Every process of the plan has a unit on its node that runs the same arguments as the compose file's service."""
    plan = sample() if seed is None else random_plan(seed)
    files = render(plan, formats=["systemd"])
    made = list(processes(plan))
    assert len(files) == len(made) + len({part.node for part in made})
    for part in made:
        found = unit(files[f"systemd/{part.node}/fleetplan-{part.name}.service"])
        line = words(found["Service"]["ExecStart"])
        program = ["vllm-router"] if isinstance(part, Router) else ["vllm", "serve"]
        assert line == ["/usr/bin/env", *program, *part.line]
        assert found["Unit"]["PartOf"] == "fleetplan.target"
        assert f"Wants=fleetplan-{part.name}.service\n" in files[f"systemd/{part.node}/fleetplan.target"]
        assert found["Service"]["EnvironmentFile"] == ENVIRONMENT_FILE


def test_units_of_a_node_share_a_user_and_its_home() -> None:
    """One dynamic user owns the folder that all units write to, which is its home; a stop spares the workers."""
    for path, text in render(sample(), formats=["systemd"]).items():
        if path.endswith(".service"):
            found = unit(text)["Service"]
            assert (found["DynamicUser"], found["User"], found["KillMode"]) == ("yes", "fleetplan", "mixed"), path
            assert "vllm-router" in text or f"Environment=HOME=/var/cache/{found['CacheDirectory']}\n" in text, path


def test_gpus_of_a_node_are_given_once() -> None:
    """The processes of one node see GPUs of their own, by index, as many as the plan places there."""
    plan = sample()
    seen: dict[str, list[str]] = {}
    for part in processes(plan):
        if isinstance(part, Part):
            text = render(plan, formats=["systemd"])[f"systemd/{part.node}/fleetplan-{part.name}.service"]
            (devices,) = re.findall(r"^Environment=(?:CUDA|HIP)_VISIBLE_DEVICES=(.*)$", text, flags=re.MULTILINE)
            seen.setdefault(part.node, []).extend(devices.split(","))
    assert all(len(devices) == len(set(devices)) for devices in seen.values())
    assert sum(map(len, seen.values())) == sum(group.gpus for group in plan.placements)


def test_a_drain_ends_before_the_process_is_killed() -> None:
    """The grace period is longer than vLLM's own shutdown timeout."""
    for path, text in render(sample(), formats=["systemd"]).items():
        timeout = re.search(r"--shutdown-timeout=(\d+)", text)
        if timeout:
            (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, flags=re.MULTILINE)
            assert int(stop) > int(timeout[1]), path


def test_a_pair_asks_for_the_nodes_address() -> None:
    """A unit that hands KV over does not start without the address that the other end reaches."""
    files = render(sample(), formats=["systemd"])
    for path, text in files.items():
        apart = '"--kv-transfer-config' in text
        assert ("ExecStartPre=" in text) == apart, path
    checks = {line for text in files.values() for line in text.splitlines() if line.startswith("ExecStartPre=")}
    (check,) = checks
    assert words(check.partition("=")[2]) == ["/bin/sh", "-c", 'test -n "$VLLM_NIXL_SIDE_CHANNEL_HOST"']


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing to say about a node's units."""
    files = render(sample(), formats=["systemd"])
    for path, text in files.items():
        if path.startswith("systemd/h100-eu-3/"):
            (tmp_path / Path(path).name).write_text(text)
    units = sorted(str(path) for path in tmp_path.iterdir())
    # offline: units are looked for in the folder alone, next to systemd's own
    environment = {"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
    )
    ours = [line for line in done.stderr.splitlines() if "fleetplan" in line]
    assert ours == []
