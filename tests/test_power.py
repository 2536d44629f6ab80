"""Laws and checks of `planner.power` and of the constants that ship in catalog/power.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.gpus import find_gpu, load_gpus
from catalog.models import Layer, Model
from catalog.power import load_power
from planner.power import Load, Utilisation, power, utilisation
from planner.strategies import Configuration

DATA = Path(__file__).parents[1] / "../shared/data/e2e/mlenergy_h100"
CONSTANTS = load_power()
SHARES = st.floats(0.0, 1.0)


def model() -> Model:
    """Llama-3.1-8B."""
    layer = Layer(attention="full", num_heads=32, num_kv_heads=8, head_dim=128, intermediate_size=14336)
    return Model(
        name="llama-8b", architecture="LlamaForCausalLM", hidden_size=4096, vocab_size=128256, layers=((layer, 32),),
        max_position_embeddings=131072, digest="0", source="test",
    )  # fmt: skip


def configuration(**changes) -> Configuration:
    """One H100."""
    return Configuration(**({"model": "llama-8b", "gpu": "h100_sxm"} | changes))


@given(gpu=st.sampled_from(sorted(load_gpus())), duty=SHARES, compute=SHARES, kv=SHARES)
def test_watts_lie_between_nothing_and_the_tdp(gpu, duty, compute, kv):
    """Whatever the load, a GPU takes at most its TDP, and the interval holds the middle."""
    card = load_gpus()[gpu]
    found = power(card, Utilisation(duty=duty, compute=compute, kv=kv), constants=CONSTANTS)
    assert 0 < found.low <= found.watts <= found.high <= card.power


@given(duty=SHARES, compute=SHARES, kv=SHARES, more=SHARES)
def test_more_work_never_takes_fewer_watts(duty, compute, kv, more):
    """Watts rise with each utilisation."""
    card = find_gpu("h100_sxm")
    base = power(card, Utilisation(duty=duty, compute=compute, kv=kv), constants=CONSTANTS).watts
    for one in (
        Utilisation(duty=duty, compute=min(1.0, compute + more), kv=kv),
        Utilisation(duty=duty, compute=compute, kv=min(1.0, kv + more)),
        Utilisation(duty=min(1.0, duty + more), compute=compute, kv=kv),
    ):
        assert power(card, one, constants=CONSTANTS).watts >= base - 1e-9


def test_an_idle_gpu_takes_its_idle_power():
    """No step runs: the data sheet's idle watts."""
    card = find_gpu("h100_sxm")
    idle = power(card, Utilisation(duty=0.0, compute=0.0, kv=0.0), constants=CONSTANTS)
    assert idle.watts == card.idle_power


def test_another_gpu_is_marked_transferred_with_a_wider_interval():
    """Only the calibration GPU is `fitted`."""
    use = Utilisation(duty=1.0, compute=0.04, kv=0.1)
    here, there = (power(find_gpu(name), use, constants=CONSTANTS) for name in ("h100_sxm", "a100_sxm"))
    assert (here.source, there.source) == ("fitted", "transferred")
    assert there.high / there.low > here.high / here.low


def test_utilisation_of_a_decode_is_what_its_bytes_say():
    """64 sequences of 2048 tokens at 50 steps/s read 64 x 2048 x 131072 B of KV each step."""
    card = find_gpu("h100_sxm")
    load = Load(steps_per_s=50.0, sequences=64, context=2048)
    found = utilisation(model(), configuration(), card, load=load)
    assert found.kv == pytest.approx(50 * 64 * 2048 * 131072 / card.bandwidth, rel=0.02)
    # 2 FLOP per parameter but the embedding's, and 4 n_q d per token of context and layer.
    flop = 2 * 7.5e9 + 4 * 32 * 128 * 32 * 2048
    assert found.compute == pytest.approx(50 * 64 * flop / card.peak["bf16"], rel=0.02)


def test_half_the_duty_means_twice_the_utilisation_while_busy():
    """Utilisation counts the time in which a step runs."""
    card = find_gpu("h100_sxm")
    busy, half = (
        utilisation(model(), configuration(), card, load=Load(steps_per_s=20, sequences=8, context=500, duty=duty))
        for duty in (1.0, 0.5)
    )
    assert half.compute == pytest.approx(2 * busy.compute)
    assert half.kv == pytest.approx(2 * busy.kv)


def test_joules_per_token_divide_the_watts_of_all_gpus():
    """Two GPUs of 500 W at 1000 tokens/s take 1 J per token; no tokens take infinitely much."""
    found = power(find_gpu("h100_sxm"), Utilisation(duty=1.0, compute=0.04, kv=0.1), constants=CONSTANTS)
    assert found.joules_per_token(2, 1000.0) == pytest.approx(found.watts * 2 / 1000)
    assert found.joules_per_token(2, 0.0) == float("inf")


def test_shipped_constants_are_what_the_refit_command_writes(tmp_path):
    """catalog/power.yaml is reproduced byte by byte from the data that its digest names."""
    if not DATA.exists():
        pytest.skip("the runs ../shared/data/e2e/mlenergy_h100 are absent")
    from benchmarks.refit_power import PATH, main  # noqa: PLC0415 - needs scipy and the data

    assert main(False, ["--out", str(tmp_path / "power.yaml")]) == 0
    assert (tmp_path / "power.yaml").read_bytes() == PATH.read_bytes()


def test_stated_error_is_within_what_planning_needs():
    """Models left out: 90 % of the runs within a tenth."""
    assert 0.0 < CONSTANTS.error <= 0.1
    assert CONSTANTS.error_elsewhere >= 2 * CONSTANTS.error
