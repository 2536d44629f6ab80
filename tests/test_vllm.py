"""`VllmRunner`: the equations of stand-ins, and a driver that is a script of ours."""

import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.fingerprints import FingerprintKey
from probes import vllm
from probes.grid import Grid
from probes.vllm import VllmRunner, _best, _designs, _excess, _nonnegative, _solve, sound, typical

KEY = FingerprintKey(
    model="tiny", model_digest="", gpu="cpu", tp=1, quantization="bf16", kv_dtype="bf16", engine_version="0.32.0",
    runner="vllm",
)  # fmt: skip
CONFIG = {"model_type": "llama", "num_hidden_layers": 8, "hidden_size": 64, "vocab_size": 256}
SIZES = Grid(tokens=(1,), sequences=(1,), decode=((1, 16), (4, 16)), prefill=((16, 0),))
DENSE, MOE = ("attention", "dense"), ("attention", "moe")


def _rows(designs, time):
    return [[{"kind": "block_decode", "x": 4, "y": 64, "time_s": time(design)}] for design in designs]


@given(base=st.floats(1e-4, 1e-2), dense=st.floats(1e-5, 1e-2), moe=st.floats(1e-5, 1e-2))
def test_blocks_come_out_as_they_were_put_in(base, dense, moe):
    """Steps of base + n_dense · dense + n_moe · moe give the three back, with the full model's counts."""
    counts = {DENSE: 3, MOE: 20}
    designs = _designs(counts, 2)
    found = _solve(counts, designs, _rows(designs, lambda d: base + d[DENSE] * dense + d[MOE] * moe), 0.1)
    times = {op.name: (op.count, float(timing.time_s[0])) for op, timing in found}
    assert times == {
        "base": (1, pytest.approx(base, abs=1e-8)),
        "block_attention_dense": (3, pytest.approx(dense, abs=1e-8)),
        "block_attention_moe": (20, pytest.approx(moe, abs=1e-8)),
    }


def test_a_kind_of_a_single_block_belongs_to_the_base():
    """A block that the model has once needs no stand-in of its own: it is part of what every step pays."""
    counts = {DENSE: 1, MOE: 4}
    designs = _designs(counts, 2)
    assert designs == [{DENSE: 1, MOE: 1}, {DENSE: 1, MOE: 3}]
    names = {op.name for op, _ in _solve(counts, designs, _rows(designs, lambda d: 1e-3 * (1 + d[MOE])), 0.0)}
    assert names == {"base", "block_attention_moe"}


@given(st.lists(st.floats(1e-5, 1.0), min_size=2, max_size=2))
def test_noise_never_makes_a_block_negative(measured):
    """Whatever the two stand-ins took, no part takes less than nothing, and the parts add up to no less."""
    solved = _nonnegative(np.array([[1.0, 1.0], [1.0, 3.0]]), np.array(measured))
    assert (solved > 0).all()


def test_the_least_disturbed_round_stands_and_a_typical_one_is_known():
    """Medians of 3, 2 and 4 ms: the least, and that a round takes half as much again; what was timed once says none."""

    def rows(engine, *times):
        one = {"engine": engine, "kind": "block_decode", "x": 1, "y": 16}
        return [one | {"round": number, "time_s": time} for number, time in enumerate(times)]

    several = rows(0, 3e-3, 2e-3, 4e-3)
    assert _best(several, 0) == [{"kind": "block_decode", "x": 1, "y": 16, "time_s": 2e-3}]
    assert _best(several, 1) == []
    # the deeper one took twice as long as the shallow one in two rounds of three
    deeper = _best(several + rows(1, 6e-3, 5e-3, 8e-3), 1)
    assert [row["time_s"] for row in deeper] == [pytest.approx(4e-3)]
    assert _excess(several) == pytest.approx(0.5)
    assert _excess(several + rows(1, 1e-3, 1e-3)) == pytest.approx(0.25)
    assert _excess(rows(0, 3e-3)) == _excess([]) == 0.0


@pytest.mark.parametrize("time", [float("nan"), 0.0, -1e-3, float("inf"), None, "1e-3"])
def test_impossible_rows_are_refused(time):
    """NaN, zero, negative, infinite or missing times are refused with the reason, the good row stays."""
    rows = [{"engine": 0, "kind": "block_decode", "x": x, "y": 16, "round": 0, "time_s": 1e-3} for x in (1, 4)]
    kept, failures = sound([rows[0], rows[1] | {"time_s": time}])
    assert kept == rows[:1]
    assert len(failures) == 1


@pytest.fixture
def driven(monkeypatch, tmp_path):
    """Put a script in the driver's place: a step takes as many milliseconds as the stand-in has blocks, and one."""

    def place(body="", **options):
        script = tmp_path / "driver.py"
        script.write_text(
            "import json, os, sys\nfrom pathlib import Path\nrequest = json.load(sys.stdin)\n"
            "say = lambda r: print(json.dumps(r), flush=True)\nsay({'vllm': '0.32.0'})\n"
            "for work in request['work']:\n"
            "  model = request['engines'][work['engine']]['model']\n"
            "  layers = json.loads((Path(model) / 'config.json').read_text())['num_hidden_layers']\n"
            "  say({'begun': work})\n" + "".join(f"  {line}\n" for line in body.splitlines()) +
            "  say(work | {'time_s': 1e-3 * (1 + layers)})\n"
        )  # fmt: skip
        monkeypatch.setattr(vllm, "_DRIVER", script)
        return VllmRunner(
            python=sys.executable, config=CONFIG, sizes=SIZES, engine={}, environment={}, rounds=2, deadline_s=20.0,
            together=True, **options,
        )  # fmt: skip

    return place


def test_stand_ins_of_one_and_three_blocks_are_told_apart(driven):
    """Steps of 1 ms + 1 ms a block give a base of 1 ms and eight blocks of 1 ms at every size."""
    found = driven().run(KEY)
    assert not found.failures
    assert found.points["time_s"].to_list() == pytest.approx([1e-3] * 6)
    assert dict(found.points.select("op", "count").rows()) == {"base": 1, "block_attention_dense": 8}


def test_a_typical_fingerprint_takes_longer_by_its_spread(driven):
    """Every time grows by the share by which its round exceeded the least; what was steady stays."""
    steady = driven().run(KEY)
    assert typical(steady).points.equals(steady.points)
    shaken = replace(steady, points=steady.points.with_columns(spread=pl.lit(0.25)))
    assert typical(shaken).points["time_s"].to_list() == pytest.approx([1.25e-3] * 6)


def test_a_crash_costs_one_piece(driven):
    """An engine that dies at one size and round is started again; the size stands by its other round."""
    found = driven("if work['x'] == 4 and work['round'] == 0 and work['engine'] == 1: os.abort()").run(KEY)
    assert found.points.height == 6
    assert list(found.failures) == ["stand-in 1: block_decode(4, 16)"]
    assert "crashed" in found.failures["stand-in 1: block_decode(4, 16)"]


def test_an_engine_that_never_comes_up_is_a_failure(driven):
    """Where nothing had begun the engine's own words are the failure, and there is no point."""
    runner = driven()
    vllm._DRIVER.write_text("import sys; sys.exit('unsupported architecture')")
    found = runner.run(KEY)
    assert found.points.is_empty()
    assert "unsupported architecture" in found.failures["engine"]


def test_a_probe_goes_on_where_it_stood(driven):
    """Rows that are known are not measured again, and every new one is handed over as it comes."""
    heard = []
    runner = driven()
    first = runner.run(KEY, on_row=heard.append)
    assert len(heard) == len(runner.work(2)) == 12
    again = []
    second = runner.run(KEY, known=heard[:7], on_row=again.append)
    assert again == heard[7:]
    assert second.points.equals(first.points)


def test_without_together_one_engine_is_up_at_a_time(driven):
    """On an accelerator all work of one stand-in comes before that of the next."""
    engines = [piece["engine"] for piece in VllmRunner(python="", config=CONFIG, engine={}, environment={}).work(3)]
    assert engines == sorted(engines)
    assert [piece["engine"] for piece in driven().work(2)][:2] == [0, 1]
