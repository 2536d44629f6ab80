"""`planner.calibrate`: biases are believed as far as they can be, drifts found, and bold promises not repeated."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_fleets import estimate, intent, pool

from catalog.predictors import Predictor
from planner.calibrate import Calibration, Comparison, Reading, calibrate, corrected, hold, markdown, rows, summary
from planner.calibrate.bias import MOST, PRIORS, Night, bias, engine_key, night_spread
from planner.calibrate.breaker import STALE_HOURS, open_breakers, optimistic, restricted
from planner.calibrate.compare import measured, reading, strategy_in_force
from planner.calibrate.drift import cusum, drifts
from planner.plan import ReplicaGroup, Search
from planner.strategies import Candidate, Collocated, Configuration, Pool
from planner.workload.histogram import Histogram

LN = math.log


def seen(ratio: float = 1.0, *, predicted: float = 0.1, error: float = 0.0, **more) -> Reading:
    """A latency that came out `ratio` times what was predicted, whose interval is a quarter either way."""
    return Reading(predicted=predicted, low=predicted / 1.25, high=predicted * 1.25, raw_ratio=ratio,
                   observed=predicted * ratio, error=error, **more)  # fmt: skip


def night(name: str = "chat", at: int = 0, ratio: float = 1.0, **more) -> Comparison:
    """A comparison of TPOT alone."""
    known = {"strategy": "h100-tp1 x2", "model": "m", "gpu": "h100", "basis": "b", "serial": 1, "rate": 1.0,
             "planned_rate": 2.0, "attainment": 0.9, "tpot": seen(ratio)}  # fmt: skip
    return Comparison(intent=name, at_hour=at, **{**known, **more})


def ratios(*values: float, name: str = "chat", engine: str = "m/h100", error: float = 0.0) -> list[Night]:
    """Nights of one service."""
    return [Night(intent=name, engine=engine, ratio=value, error=error) for value in values]


class TestBias:
    """Shrinkage from intent to engine to all."""

    def test_one_night_by_hand(self) -> None:
        """One leaf: the posterior of g + b + c given r with variance s² is r·τ²/(τ² + s²), τ² the sum of three."""
        prior = PRIORS["decode"]
        found = bias(ratios(1.1), "decode").of("m", "h100", "chat")
        shared = prior.overall**2 + prior.engine**2 + prior.intent**2
        spread = night_spread([[LN(1.1)]], prior.night) ** 2
        assert found.mean == pytest.approx(LN(1.1) * shared / (shared + spread))
        assert found.sd**2 == pytest.approx(shared * spread / (shared + spread))

    def test_the_tree_is_exact(self) -> None:
        """Message passing equals conditioning the joint normal of all effects directly."""
        prior = PRIORS["decode"]
        data = {("a", "m/h100"): [1.05, 1.07], ("b", "m/h100"): [0.98], ("c", "n/h100"): [1.02, 1.01, 1.04]}
        nights = [n for (name, engine), values in data.items() for n in ratios(*values, name=name, engine=engine)]
        found = bias(nights, "decode")
        leaves = list(data)
        noise = night_spread([[LN(v) for v in values] for values in data.values()], prior.night)
        cov = np.array([[prior.overall**2 + (e == f) * prior.engine**2 + ((n, e) == (m, f)) * prior.intent**2
                         for m, f in leaves] for n, e in leaves])  # fmt: skip
        means = np.array([np.mean(np.log(values)) for values in data.values()])
        noisy = cov + np.diag([noise**2 / len(values) for values in data.values()])
        expected = cov @ np.linalg.solve(noisy, means)
        got = [found.intents[f"{name}/{engine}"].mean for name, engine in leaves]
        assert got == pytest.approx(expected.tolist())
        spread = np.sqrt(np.diag(cov - cov @ np.linalg.solve(noisy, cov)))
        assert [found.intents[f"{n}/{e}"].sd for n, e in leaves] == pytest.approx(spread.tolist())

    def test_who_was_measured_moves_most(self) -> None:
        """A slow service moves itself more than its engine, that more than another engine; all the same way."""
        found = bias(ratios(1.15, 1.15, 1.15), "decode")
        own, engine, other = found.of("m", "h100", "chat"), found.of("m", "h100"), found.of("n", "l40s", "chat")
        assert 0 < other.mean < engine.mean < own.mean < LN(1.15)
        assert own.sd < engine.sd < other.sd

    def test_nothing_measured_corrects_nothing(self) -> None:
        """Without a night the mean is 0 and the spread that of the priors."""
        found = bias([], "decode").of("m", "h100", "chat")
        assert found.mean == 0.0
        prior = PRIORS["decode"]
        assert found.sd == pytest.approx(math.hypot(prior.overall, prior.engine, prior.intent))

    @given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
    def test_no_ratio_is_believed_beyond_a_bound(self, values: list[float]) -> None:
        """Whatever was measured, no correction is beyond a factor of 3, and none is NaN."""
        found = bias(ratios(*values), "decode").of("m", "h100", "chat")
        assert abs(found.mean) <= LN(MOST) + 1e-9
        assert found.sd > 0

    def test_more_nights_are_believed_more(self) -> None:
        """The same ratio seen on ten nights is followed closer than seen once."""
        once, often = (bias(ratios(*[1.1] * n), "decode").of("m", "h100", "chat").mean for n in (1, 10))
        assert once < often < LN(1.1)

    def test_buckets_that_leave_much_open_are_believed_less(self) -> None:
        """A median from wide buckets moves the bias less than an exact mean, however many nights agree."""
        exact, blurred = (bias(ratios(*[1.1] * 20, error=e), "decode").of("m", "h100", "chat").mean for e in (0.0, 0.3))
        assert blurred < 0.5 * exact

    def test_one_wild_service_among_many_moves_others_little(self) -> None:
        """Nine services as predicted and one a hundred times off: the engine's bias stays below 15 %."""
        nights = [n for i in range(9) for n in ratios(1.0, 1.0, name=f"s{i}")] + ratios(100.0, name="wild")
        assert abs(bias(nights, "decode").of("m", "h100").mean) < LN(1.15)

    def test_only_the_newest_basis_of_an_engine_counts(self) -> None:
        """Ratios to a prediction that has since been measured anew are not mixed with those to the new one."""
        old = [night(at=24 * i, ratio=1.3) for i in range(5)]
        new = night(at=24 * 6, ratio=1.0, basis="c")
        assert abs(calibrate([*old, new], 24 * 6).decode.of("m", "h100", "chat").mean) < 1e-9


class TestCorrected:
    """How a night applies it."""

    def test_times_move_and_intervals_never_narrow(self, predictor: Predictor) -> None:
        """A service 10 % slow for ten nights: decode is slower by 7 to 10 %, and the interval at least as wide."""
        found = calibrate([night(at=24 * i, ratio=1.1) for i in range(10)], 24 * 9)
        learned = corrected(predictor, found, model="m", gpu="h100", intent="chat")
        factor = learned.decode_s[0, 0] / predictor.decode_s[0, 0]
        assert 1.07 < factor < 1.10
        assert learned.decode_interval[0] <= predictor.decode_interval[0]
        assert learned.decode_interval[1] >= predictor.decode_interval[1]
        assert "10 nights" in learned.notes[-1]

    def test_a_tight_interval_is_widened_to_what_production_leaves(self, predictor: Predictor) -> None:
        """A predictor that claims 1 % is given at least the spread from night to night."""
        sure = replace(predictor, decode_interval=(0.99, 1.01))
        learned = corrected(sure, calibrate([night()], 1), model="m", gpu="h100", intent="chat")
        assert learned.decode_interval[1] > 1.05

    def test_nothing_measured_leaves_the_predictor_alone(self, predictor: Predictor) -> None:
        """No comparisons: the very same object."""
        assert corrected(predictor, calibrate([], 0), model="m", gpu="h100") is predictor

    def test_a_drift_widens(self, predictor: Predictor) -> None:
        """After a shift of 40 % the interval reaches at least as far again."""
        steady = [night(at=24 * i) for i in range(6)]
        shifted = [night(at=24 * (6 + i), ratio=1.4) for i in range(3)]
        calm, drifting = calibrate(steady, 24 * 5), calibrate([*steady, *shifted], 24 * 8)
        assert not calm.drifting
        assert drifting.drifting
        widths = [corrected(predictor, each, model="m", gpu="h100").decode_interval[1] for each in (calm, drifting)]
        assert widths[1] > widths[0] * 1.3

    def test_it_survives_its_record(self) -> None:
        """What was learned reads back from JSON as it was."""
        found = calibrate([night(at=24 * i, ratio=1.5) for i in range(8)], 24 * 8)
        assert Calibration.model_validate_json(found.model_dump_json()) == found


class TestDrift:
    """CUSUM."""

    def test_by_hand(self) -> None:
        """Level 0, s = 1, then two nights of 4: z = 4·sqrt(3/4) and (4 - 1)·sqrt(4/5), sums 2.96 and 5.15, beyond 5."""
        found = cusum([0.0, 0.0, 0.0, 4.0, 4.0], 1.0)
        assert found is not None
        start, shift, statistic = found
        assert (start, shift) == (3, 4.0)
        assert statistic == pytest.approx(4 * math.sqrt(3 / 4) + 3 * math.sqrt(4 / 5) - 1.0)
        assert cusum([0.0, 0.0, 0.0, 4.0], 1.0) is None

    def test_chance_rarely_raises_an_alarm(self) -> None:
        """Steady noise of 100 services over 28 nights: at most one in ten raises an alarm."""
        alarms = sum(cusum(np.random.default_rng(s).normal(0, 0.05, 28).tolist(), 0.05) is not None for s in range(100))
        assert alarms <= 10

    def test_a_shift_is_found_within_a_week(self) -> None:
        """Latencies that become 30 % longer are found within five nights, in 45 of 50 services."""
        found = []
        for seed in range(50):
            levels = np.random.default_rng(seed).normal(0, 0.05, 15)
            levels[10:] += LN(1.3)
            alarm = cusum(levels.tolist(), 0.05)
            found.append(alarm is not None and alarm[1] > 0.1)
        assert sum(found) >= 45

    def test_a_new_basis_starts_anew(self) -> None:
        """A level that jumps because predictions rest on a new probe is no drift of the service."""
        same = [night(at=24 * i) for i in range(5)] + [night(at=24 * (5 + i), ratio=1.5) for i in range(5)]
        probed = same[:5] + [row.model_copy(update={"basis": "c"}) for row in same[5:]]
        assert [d.intent for d in drifts(same, "decode", 0.05)] == ["chat"]
        assert drifts(probed, "decode", 0.05) == ()

    def test_faster_is_a_drift_too(self) -> None:
        """What became faster asks for a probe as well: the plan wastes GPUs."""
        levels = [night(at=24 * i, ratio=1.0 if i < 5 else 0.6) for i in range(9)]
        (found,) = drifts(levels, "decode", 0.05)
        assert found.shift == pytest.approx(LN(0.6))
        assert found.since_hour == 24 * 5


class TestBreaker:
    """The stated rule."""

    def test_beyond_the_slow_end_opens_it(self) -> None:
        """25 % is the slow end: 24 % slower stays closed, 30 % opens, unless the buckets leave it open."""
        assert optimistic(night(ratio=1.24)) is None
        assert "slow end" in str(optimistic(night(ratio=1.3)))
        assert optimistic(night(tpot=seen(1.3, error=0.1))) is None

    def test_a_bias_of_30_percent_trips_within_one_night(self) -> None:
        """Predictions 30 % too fast (observed = predicted / 0.7) open the breaker with the first comparison."""
        assert open_breakers([night(ratio=1 / 0.7)], 0) == {"chat": optimistic(night(ratio=1 / 0.7))}

    def test_a_missed_slo_opens_it(self) -> None:
        """At most 85 % kept a limit that 90 % must keep: open; where the buckets allow 95 %: closed."""
        assert "90.0% must" in str(optimistic(night(tpot=seen(limit=0.05, within=(0.8, 0.85)))))
        assert optimistic(night(tpot=seen(limit=0.05, within=(0.8, 0.95)))) is None

    def test_more_load_than_planned_is_no_optimism(self) -> None:
        """A service that got twice the load it was planned for is slow for a reason."""
        assert optimistic(night(ratio=2.0, rate=4.0)) is None

    def test_the_newest_comparison_decides(self) -> None:
        """A later night as predicted closes it, and an old one says nothing any more."""
        rows_ = [night(at=0, ratio=2.0), night(at=24, ratio=1.0)]
        assert open_breakers(rows_, 24) == {}
        assert open_breakers(rows_[:1], STALE_HOURS) != {}
        assert open_breakers(rows_[:1], STALE_HOURS + 1) == {}

    def test_hold_keeps_the_engine_and_at_least_its_replicas(self) -> None:
        """Of six candidates those stay that have the same engine and two replicas or more."""
        two = offer(2)
        found = hold(Search(candidates=(offer(1), two, offer(3), offer(2, gpu="l40s"), offer(2, tp=2),
                                        offer(3, max_num_seqs=64))), [group(2)])  # fmt: skip
        assert found is not None
        assert found.candidates == (two, offer(3), offer(3, max_num_seqs=64))

    def test_what_cannot_be_held_is_said(self) -> None:
        """None where no candidate keeps the engine, or none of them serves the whole load."""
        assert hold(Search(candidates=(offer(2, gpu="l40s"),)), [group(2)]) is None
        assert hold(Search(candidates=(replace(offer(2), share=0.5),)), [group(2)]) is None
        assert hold(Search(candidates=(offer(2),)), []) is None

    def test_the_wish_is_narrowed_to_what_runs(self) -> None:
        """GPU and formats are fixed; a wish that no longer allows them is not narrowed against its will."""
        wish = restricted(intent(), [group(2)])
        assert wish is not None
        assert (wish.gpus, wish.quantizations, wish.kv_dtypes) == (("h100",), ("bf16",), ("bf16",))
        assert wish.disaggregated == "forbidden"
        assert restricted(intent(quantizations=("fp8",)), [group(2)]) is None
        assert restricted(intent(disaggregated="required"), [group(2)]) is None


class TestScoreboard:
    """What people see."""

    def test_a_row_per_service_and_night(self) -> None:
        """Newest first; the verdict is in words."""
        found = rows([night("a", 0, 1.1), night("b", 24, 1.1), night("a", 24, 1.5)])
        assert [(row["service"], row["hours from"]) for row in found] == [
            ("a", "1970-01-02 00:00"), ("b", "1970-01-02 00:00"), ("a", "1970-01-01 00:00")]  # fmt: skip
        assert [row["verdict"].partition(":")[0] for row in found] == ["optimistic", "as predicted", "as predicted"]

    def test_names_cannot_break_the_table(self) -> None:
        """A strategy with a pipe, a newline or a tag is one cell."""
        text = markdown(rows([night(strategy="a|b\nc<script>")]))
        assert len(text.splitlines()) == 3
        assert "a\\|b c&lt;script>" in text
        assert markdown([]) == "Nothing was compared yet.\n"

    def test_the_summary_counts_what_was_inside(self) -> None:
        """Three of four TPOT lie inside their interval; nothing is said of TTFT."""
        found = summary([night(ratio=r) for r in (1.0, 1.1, 0.9, 2.0)])
        assert (found["comparisons"], found["tpot_inside"], found["ttft_inside"]) == (4, 0.75, None)


def test_means_are_exact_and_medians_are_bounded() -> None:
    """With a sum the mean of 0.4 s is exact; without it the median of [0.25, 0.5] has the bucket's error."""
    histogram = Histogram(edges=(0.25, 0.5), counts=(0.0, 200.0), total=200.0, sum=80.0)
    assert measured(histogram) == (0.4, 0.0)
    bare = histogram.model_copy(update={"sum": None})
    found = measured(bare)
    assert found is not None
    assert 0.25 < found[0] < 0.5
    assert found[1] == pytest.approx(LN(2) / math.sqrt(12))
    assert measured(Histogram(edges=(1.0,), counts=(9.0,), total=9.0, sum=1.0)) is None


def test_a_prediction_without_bound_is_not_compared() -> None:
    """Where the prediction is infinite (unstable) there is no ratio."""
    histogram = Histogram(edges=(1.0,), counts=(900.0,), total=900.0, sum=90.0)
    for wrong in (math.inf, math.nan, 0.0):
        assert reading(histogram, predicted=wrong, raw=0.1, interval=(0.8, 1.2), limit=None) is None
    found = reading(histogram, predicted=0.2, raw=0.1, interval=(0.8, 1.2), limit=1.0)
    assert found is not None
    assert (found.ratio, found.raw_ratio, found.within) == (0.5, 1.0, (1.0, 1.0))


def test_the_strategy_in_force_is_read_from_its_groups() -> None:
    """One group of both roles is a collocated strategy; two of them are a mix, which no one prediction describes."""
    from catalog.cluster import Cluster  # noqa: PLC0415

    cluster = Cluster(pools=(pool(),))
    found = strategy_in_force([group(2)], cluster)
    assert str(found) == "h100-tp1 x2"
    assert strategy_in_force([group(2), group(1)], cluster) is None
    pair = [group(1).model_copy(update={"role": "prefill"}), group(3).model_copy(update={"role": "decode"})]
    found = strategy_in_force(pair, cluster)
    assert str(found) == "1P3D h100-tp1 / h100-tp1"
    assert found is not None
    assert found.kind == "disaggregated"
    assert found.transfer_bandwidth == cluster.pools[0].network.bandwidth


def test_engines_are_told_apart_by_model_and_gpu() -> None:
    """The key of an engine holds both names."""
    assert engine_key("m", "h100") != engine_key("m", "l40s")


def offer(replicas: int, **more) -> Candidate:
    """A candidate of one pool."""
    configuration = Configuration(**{"model": "org/m", "gpu": "h100", **more})
    pool = Pool(configuration=configuration, replicas=replicas, node_pool="a")
    return Candidate(intent="chat", strategy=Collocated(pool=pool), estimate=estimate(), cost_per_hour=1.0,
                     quality=1.0, gpus=(("a", replicas),))  # fmt: skip


def group(replicas: int) -> ReplicaGroup:
    """Replicas that run."""
    return ReplicaGroup(
        intent="chat", role="both", model="org/m", checkpoint="org/m", gpu="h100", node_pool="a", replicas=replicas,
        gpus_per_replica=1, tp=1, pp=1, dp=1, expert_parallel=False, quantization="bf16", kv_dtype="bf16",
        max_num_seqs=256, max_num_batched_tokens=8192, max_model_len=8192, enable_prefix_caching=True,
        kv_cache_memory_bytes=1, router="least_requests", nodes=(),
    )  # fmt: skip


@pytest.fixture
def predictor() -> Predictor:
    """Step times of some engine, known to a tenth."""
    one = np.ones(2)
    return Predictor(
        tokens=one.cumsum(), token_s=one, sequences=one.cumsum(), sequence_s=one, decode_batch=one.cumsum(),
        decode_context=one.cumsum(), decode_s=np.ones((2, 2)), chunk=one.cumsum(), prior=one.cumsum(),
        prefill_s=np.ones((2, 2)), decode_overhead_s=1.0, mixed_overhead_s=1.0, request_s=1.0,
        decode_interval=(0.9, 1.1), prefill_interval=(0.8, 1.2), source="measured",
    )  # fmt: skip
