"""`fleetplan probe`: what is missing alone is measured, a kill loses one piece at most, hostile input stops early."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from catalog.errors import BadInput
from catalog.gpus import find_gpu
from catalog.store import Store
from flows import measuring
from flows.kept import KIND, Kept
from flows.measuring import Asked, key_of, measure_missing, quantization_of, read_model
from probes import torch

ROOT = Path(__file__).parents[1]
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 256,
    "max_position_embeddings": 512, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip
DRIVER = """
import json, sys, time
request = json.load(sys.stdin)
for op in request["ops"]:
    for x, y in op["points"]:
        point = {"op": op["name"], "x": x, "y": y}
        print(json.dumps({"begun": point}), flush=True)
        time.sleep(0)
        print(json.dumps(point | {"time_s": 1e-4 * (1 + x), "spread": 0.1}), flush=True)
"""


@pytest.fixture
def config(tmp_path):
    """A config.json of a tiny model."""
    path = tmp_path / "tiny" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
def asked(config, monkeypatch, tmp_path):
    """A torch probe whose driver is a script of ours, of a torch whose version we say."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    monkeypatch.setattr(torch, "_DRIVER", script)
    monkeypatch.setattr(measuring, "ask", lambda _: "2.13.0")
    model, parsed = read_model(str(config))
    return Asked(runner="torch", model=model, config=parsed, gpu=find_gpu("cpu"), python=sys.executable)


def test_what_is_there_is_not_measured_again(asked, tmp_path):
    """The second probe of a pair measures nothing and gives the same points."""
    store = Store(tmp_path / "store")
    first, second = measure_missing(asked, store), measure_missing(asked, store)
    assert first.measured > 10
    assert second.measured == 0
    assert second.fingerprint.points.equals(first.fingerprint.points)


def test_a_change_of_the_engine_is_measured_anew(asked, tmp_path, monkeypatch):
    """Another version, flag or TP is another key, whose pieces are all missing."""
    store = Store(tmp_path / "store")
    measured = measure_missing(asked, store).measured
    monkeypatch.setattr(measuring, "ask", lambda _: "2.14.0")
    assert measure_missing(asked, store).measured == measured
    keys = {key_of(asked), key_of(replace(asked, tp=2)), key_of(replace(asked, environment={"A": "1"}))}
    assert len(keys) == 3


@pytest.mark.parametrize("after", [1, 7])
def test_a_probe_that_ended_early_goes_on_where_it_stood(asked, tmp_path, after):
    """What was measured before the end is found, the rest alone is measured, and nothing is missing."""
    rows = _rows(asked, tmp_path)
    store = Store(tmp_path / "store")
    kept = Kept(store, key_of(asked))
    for row in rows[:after]:
        kept.add(row)
    again = measure_missing(asked, store)
    assert (again.found, again.measured) == (after, len(rows) - after)


def _rows(asked, tmp_path):
    rows = []
    measure_missing(asked, Store(tmp_path / "scratch"), on_row=rows.append)
    return rows


def test_a_model_without_a_config_cannot_be_cut(asked, tmp_path):
    """The vllm runner needs the config.json, and says so."""
    with pytest.raises(BadInput, match=r"config\.json"):
        measure_missing(replace(asked, runner="vllm", config=None), Store(tmp_path / "store"))


def test_an_interpreter_without_the_library_is_named(asked, monkeypatch):
    """Where the version cannot be asked for, the message names the interpreter and what it lacks."""
    monkeypatch.setattr(measuring, "ask", lambda _: "")
    with pytest.raises(BadInput, match="has no torch"):
        key_of(asked)


@pytest.mark.parametrize("text", [
    "[" * 10_000, "{", "[]", '{"num_hidden_layers": 1e308}', '{"auto_map": {"AutoModel": "x.py"}}', "\x00\x01", "",
])  # fmt: skip
def test_hostile_configs_are_refused(config, text):
    """Broken, absurd or 10,000-deep JSON and remote code are bad input, never a crash."""
    config.write_text(text)
    with pytest.raises(BadInput):
        read_model(str(config))


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\x00b", "/dev/zero", "../x.json", "\n", "A" * 10_000])
def test_hostile_names_are_refused(name):
    """A name that is no model's is bad input; nothing is opened for it."""
    with pytest.raises(BadInput):
        read_model(name)


def test_formats_are_checked():
    """A known format passes, another is refused with the names there are."""
    assert quantization_of("fp8") == "fp8"
    with pytest.raises(BadInput, match="bf17"):
        quantization_of("bf17")


_COMMAND = """
import sys
from pathlib import Path
from flows import measuring
from probes import torch
torch._DRIVER = Path(sys.argv.pop(1))
measuring.ask = lambda _: "2.13.0"
from flows.cli import main
main()
"""


def test_killed_at_any_moment_the_command_goes_on(config, tmp_path):
    """`fleetplan probe` killed twice at arbitrary instants, then run to its end, measures every piece once or twice.

    A kill loses at most the piece at work: what the last run finds is what the killed ones kept.
    """
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.replace("time.sleep(0)", "time.sleep(0.02)"))
    argv = [sys.executable, "-c", _COMMAND, str(script), "probe", "--model", str(config), "--gpu", "cpu", "--runner",
            "torch", "--root", str(tmp_path / "var"), "--json"]  # fmt: skip
    for pause in (0.1, 0.3):
        before = _pieces(tmp_path)
        child = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while _pieces(tmp_path) <= before and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(pause)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    kept = _pieces(tmp_path)
    last = json.loads(subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, timeout=120).stdout)
    assert last["found"] == kept > 0
    assert last["found"] + last["measured"] == last["points"] + len(last["failures"]) == _pieces(tmp_path)


def _pieces(tmp_path):
    folder = tmp_path / "var" / "catalog" / KIND
    return sum(1 for path in folder.glob("*.json")) if folder.exists() else 0


def test_a_budget_measures_where_interpolation_is_in_doubt(asked, monkeypatch, tmp_path):
    """Beyond the grid sizes are measured around the bend of the curve; they are kept, and not measured again."""
    bent = tmp_path / "bent.py"
    bent.write_text(DRIVER.replace("1e-4 * (1 + x)", "max(1e-4, 1e-6 * x)"))
    monkeypatch.setattr(torch, "_DRIVER", bent)
    store = Store(tmp_path / "store")
    plain = measure_missing(asked, store)
    more = measure_missing(asked, store, budget_s=5.0)
    assert plain.refined is None
    assert more.refined is not None
    assert more.found == plain.measured
    assert more.measured > 0
    assert more.fingerprint.points.height > plain.fingerprint.points.height
    sizes = {x for (axis, (x, _)) in more.refined.added if axis == "tokens"}
    assert any(64 < x < 256 for x in sizes)
    again = measure_missing(asked, store)
    assert again.measured == 0
    assert again.fingerprint.points.height == more.fingerprint.points.height
