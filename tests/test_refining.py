"""Laws of refining: the most doubtful size first, none twice, an end by certainty or by budget."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from catalog.fingerprints import POINTS_SCHEMA, Fingerprint, FingerprintKey
from flows.refining import ENOUGH, planned, refine
from planner.plan import from_json

KEY = FingerprintKey(
    model="tiny", model_digest="", gpu="cpu", tp=1, quantization="bf16", kv_dtype="bf16", engine_version="2",
    runner="torch",
)  # fmt: skip
SAMPLE = Path(__file__).parent / "plans" / "sample.json"


class Device:
    """A device on which a GEMM is flat up to 256 tokens and linear beyond; it remembers what it measured."""

    def __init__(self, *, fails: bool = False) -> None:
        self.sizes = {1, 8, 64, 512, 4096}
        self.asked: list[int] = []
        self.fails = fails

    def fingerprint(self) -> Fingerprint:
        """All that was measured so far."""
        rows = [("qkv", "gemm", "bf16", "", 1, float(m), 0.0, max(1e-5, m * 4e-8), 0.0, "measured")
                for m in sorted(self.sizes)]  # fmt: skip
        return Fingerprint(key=KEY, points=pl.DataFrame(rows, schema=POINTS_SCHEMA, orient="row"))

    def measure(self, sizes) -> Fingerprint:
        """Measure more, or fail to."""
        self.asked += sizes.tokens
        self.sizes |= set() if self.fails else set(sizes.tokens)
        return self.fingerprint()


def ticking(step: float):
    """A clock that goes on by `step` seconds each time it is read."""
    now = iter(range(10**6))
    return lambda: step * next(now)


def test_refining_ends_where_all_is_certain() -> None:
    """With time enough no doubt above the noise is left, and the sizes measured crowd around the knee at 256."""
    device = Device()
    found = refine(device.fingerprint(), device.measure, budget_s=1e9, clock=ticking(1.0))
    assert found.ended == "certain enough"
    assert found.widest <= ENOUGH
    assert len(device.asked) == len(set(device.asked)) == len(found.added)
    assert any(182 <= m <= 300 for m in device.asked)


def test_the_budget_ends_it_too() -> None:
    """Without seconds nothing is measured, and what is left in doubt is said."""
    device = Device()
    found = refine(device.fingerprint(), device.measure, budget_s=0.0, clock=ticking(1.0))
    assert (found.ended, found.added, device.asked) == ("the budget is spent", (), [])
    assert found.widest > ENOUGH


def test_a_size_that_fails_is_not_asked_again() -> None:
    """Where nothing more can be measured it ends, each size tried once."""
    device = Device(fails=True)
    found = refine(device.fingerprint(), device.measure, budget_s=1e9, clock=ticking(1.0))
    assert found.ended == "certain enough"
    assert len(device.asked) == len(set(device.asked)) > 0


def test_the_plan_decides_where() -> None:
    """Sizes beyond what tonight's replicas run matter less, and hardly at all far beyond; elsewhere all count alike."""
    plan = from_json(SAMPLE.read_text(encoding="utf-8"))
    group = plan.placements[0]
    weight = planned(plan, model=group.model, gpu=group.gpu)
    seqs = max(g.max_num_seqs for g in plan.placements if (g.model, g.gpu) == (group.model, group.gpu))
    assert weight(("decode", (seqs, 1024))) == 1.0
    assert weight(("decode", (50 * seqs, 1024))) < 0.01
    assert weight(("prefill", (group.max_num_batched_tokens, 0))) == 1.0
    assert planned(plan, model="another", gpu=group.gpu)(("decode", (10**6, 1))) == 1.0
    assert planned(None, model=group.model, gpu=group.gpu)(("tokens", (10**6, 0))) == 1.0


@pytest.mark.parametrize("limit", [16, 4096])
def test_nothing_is_measured_where_no_plan_goes(limit: int) -> None:
    """With no weight beyond a limit, no size beyond it is measured."""
    device = Device()
    refine(device.fingerprint(), device.measure, budget_s=1e9, clock=ticking(1.0),
           weight=lambda where: float(where[1][0] <= limit))  # fmt: skip
    assert all(m <= limit for m in device.asked)
