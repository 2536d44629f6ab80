"""Laws of configurations and strategies: what they take, and the short form they are printed in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.strategies import Collocated, Configuration, Disaggregated, Pool

powers = st.sampled_from([1, 2, 4, 8])


@given(tp=powers, pp=powers, dp=powers, replicas=st.integers(0, 50))
def test_gpus_multiply(tp: int, pp: int, dp: int, replicas: int) -> None:
    """A replica takes tp x pp x dp GPUs and keeps pp x dp batches in flight; a pool as many times its replicas."""
    configuration = Configuration(model="m", gpu="h100_sxm", tp=tp, pp=pp, dp=dp)
    assert (tp * pp * dp, pp * dp) == (configuration.gpus, configuration.engines)
    assert replicas * configuration.gpus == Pool(configuration=configuration, replicas=replicas, node_pool="a").gpus


@given(tp=powers, dp=powers)
def test_experts_spread_over_all_ranks(tp: int, dp: int) -> None:
    """The expert-parallel group is tp x dp where it is used, else 1."""
    plain = Configuration(model="m", gpu="h100_sxm", tp=tp, dp=dp)
    spread = Configuration(model="m", gpu="h100_sxm", tp=tp, dp=dp, expert_parallel=True)
    assert (plain.ep, spread.ep) == (1, tp * dp)


@pytest.mark.parametrize(
    ("configuration", "text"),
    [
        (Configuration(model="m", gpu="l4"), "l4-tp1"),
        (Configuration(model="m", gpu="h100_sxm", tp=4, quantization="fp8"), "h100_sxm-tp4-fp8"),
        (Configuration(model="m", gpu="h100_sxm", tp=8, pp=2, kv_dtype="fp8"), "h100_sxm-tp8-pp2-kv8"),
        (Configuration(model="m", gpu="b200", dp=8, expert_parallel=True), "b200-tp1-dp8-ep8"),
    ],
)
def test_configurations_have_a_short_form(configuration: Configuration, text: str) -> None:
    """What is at its default is not printed; the rest in one order."""
    assert text == str(configuration)


def test_strategies_have_a_short_form() -> None:
    """`h100_sxm-tp4 x3` together, `1P3D h100_sxm-tp2 / h100_sxm-tp4` apart."""
    two = Pool(configuration=Configuration(model="m", gpu="h100_sxm", tp=2), replicas=1, node_pool="a")
    four = Pool(configuration=Configuration(model="m", gpu="h100_sxm", tp=4), replicas=3, node_pool="a")
    apart = Disaggregated(prefill=two, decode=four, transfer_bandwidth=50e9, transfer_latency=5e-6)
    assert str(Collocated(pool=four)) == "h100_sxm-tp4 x3"
    assert str(apart) == "1P3D h100_sxm-tp2 / h100_sxm-tp4"
    assert apart.pools == (two, four)
    assert Collocated(pool=four).pools == (four,)
