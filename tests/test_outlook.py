"""`planner.outlook`: a decided intent through the day and under stress, on engines made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from made_engines import engine, linear, served
from small_fleets import candidate, estimate, fleet, pair, pool

from catalog.models import load_models
from planner.candidates.sizing import with_reserve
from planner.explain import explain, fleet_day
from planner.explain.outlook import saved, stress_line
from planner.goodput import estimate as judged
from planner.intents import SLO, Availability, Intent
from planner.outlook import Gauge, look_ahead
from planner.outlook.gauge import law_of
from planner.outlook.robust import robustness
from planner.outlook.windows import without_reserve
from planner.placement import place
from planner.plan import Facts, Provenance, Search, Stress, assemble, from_json, seal, to_json
from planner.report import html
from planner.workload import Lengths, Workload, realize

SPEED = linear(a=0.01, b=1e-4, c=1e-7, decode_interval=(0.8, 1.25), prefill_interval=(0.8, 1.25))
ENGINE = engine(SPEED)
LIMITS = SLO(ttft="500 ms", tpot="50 ms")
HOURLY = (0.1,) * 6 + (0.5,) * 4 + (1.0,) * 10 + (0.3,) * 4


def wish(name="chat", **more):
    """An intent whose load has a day, 60 requests/s at its busiest."""
    load = Workload(rate="60 /s", prompt=Lengths(mean=300.0), output=Lengths(mean=80.0), diurnal=HOURLY)
    return Intent(name=name, model="org/m", workload=load, slo=LIMITS, **more)


def decided(wanted, replicas, *, spares=0, cluster=None, **more):
    """A candidate of so many replicas, judged by the same closed form, placed."""
    one = candidate(replicas=replicas, **more)
    needed = replicas - spares
    load = law_of(realize(wanted.workload))
    judged_at = replace(one.strategy, pool=replace(one.strategy.pool, replicas=needed))
    one = replace(one, estimate=judged(judged_at, (ENGINE,), load, wanted.slo))
    return one, place(fleet([cluster or pool()], [wanted]), {wanted.name: [one]})


def planned(wanted, placed, *, cluster=None, offers=None):
    """The assembled plan with its outlook, sealed."""
    wishes = fleet([cluster or pool()], [wanted])
    facts = Facts(
        models={"org/m": next(model for model in load_models().values() if model.native == "bf16")},
        gpus={}, prices={"a": 2.0}, kv_bytes=lambda _: 1,
        provenance=Provenance(fingerprints=(), tables="", constants=""),
    )  # fmt: skip
    plan = assemble(wishes, placed, {wanted.name: Search(rate=60.0)}, facts)
    requests = {wanted.name: realize(wanted.workload)}
    engines_of = lambda _: lambda _: ENGINE  # noqa: E731 - one engine for all
    return seal(look_ahead(plan, wishes, placed, requests=requests, engines_of=engines_of, candidates=offers))


def gauge_of(one, wanted, needed=None, engines=(ENGINE,)):
    """A gauge of one candidate."""
    requests = realize(wanted.workload)
    counts = tuple(part.replicas for part in one.strategy.pools)
    law = law_of(requests)
    return Gauge(
        candidate=one, slo=wanted.slo, requests=law, mean_rate=requests.rate, engines=engines, needed=needed or counts
    )


def test_the_gauge_agrees_with_the_decision_at_its_counts():
    """At the replicas that the estimate counts on, goodput at either end is the estimate's."""
    one, _ = decided(wish(), 4)
    gauge = gauge_of(one, wish())
    assert gauge.goodput((4,), "slow") == pytest.approx(one.estimate.goodput_low)
    assert gauge.goodput((4,), "middle") == pytest.approx(one.estimate.goodput)
    told = replace(one, estimate=replace(one.estimate, goodput_low=0.9 * one.estimate.goodput_low))
    assert gauge_of(told, wish()).goodput((4,), "slow") == pytest.approx(told.estimate.goodput_low)


def test_goodput_never_falls_with_replicas_and_rises_towards_the_fast_end():
    """More replicas serve no less; slow <= middle <= fast; no replica serves nothing."""
    one, _ = decided(wish(), 4)
    gauge = gauge_of(one, wish())
    assert gauge.goodput((0,)) == 0.0
    for end in ("slow", "middle", "fast"):
        found = [gauge.goodput((n,), end) for n in range(1, 6)]
        assert found == sorted(found)
    assert gauge.goodput((3,), "slow") <= gauge.goodput((3,), "middle") <= gauge.goodput((3,), "fast")


def fewest_by_hand(gauge, rate, most):
    """The first count that covers a rate, tried one by one."""
    return next((n for n in range(1, most + 1) if gauge.goodput((n,)) >= rate), most)


def test_every_window_runs_the_fewest_replicas_that_cover_it():
    """Six windows of four hours against counting up one by one; bounds follow, and the peak keeps what was placed."""
    wanted = wish()
    probe = gauge_of(candidate(replicas=1), wanted)
    replicas = next(n for n in range(1, 17) if probe.goodput((n,)) >= 60.0)
    assert replicas >= 4, "the example must have something to scale"
    one, placed = decided(wanted, replicas)
    plan = planned(wanted, placed)
    day = plan.intents[0].day
    gauge = gauge_of(one, wanted)
    asked = [60.0 * factor for factor in (0.1, 0.5, 1.0, 1.0, 1.0, 0.3)]
    needs = [replicas if rate == 60.0 else fewest_by_hand(gauge, rate, replicas) for rate in asked]
    assert [part.rate for part in day.parts] == pytest.approx(asked)
    assert [part.replicas for part in day.parts] == needs
    (group,) = plan.placements
    assert min(window.min_replicas for window in group.windows) == min(needs)
    assert {window.max_replicas for window in group.windows} == {replicas}
    hours = 4.0 * sum(needs) + 0.25 * day.starts
    assert day.cost == pytest.approx(2.0 * hours, rel=1e-5)
    assert day.peak_cost == pytest.approx(48.0 * replicas)
    assert day.refunded == pytest.approx(day.peak_cost - day.cost, rel=1e-4)
    assert plan.day.cost == day.cost
    assert [part.gpus for part in plan.day.parts] == [{"a": replicas - n} if n < replicas else {} for n in needs]


def test_what_is_paid_anyway_is_freed_and_not_refunded():
    """On reserved hardware the same windows free the same GPUs and give no money back; the words say so."""
    wanted, reserved = wish(), pool(tier="reserved")
    _, placed = decided(wanted, 6, cluster=reserved)
    plan = planned(wanted, placed, cluster=reserved)
    assert plan.day.refunded == 0.0
    assert plan.day.peak_cost > plan.day.cost
    assert "paid for anyway" in saved(plan.day.cost, plan.day.peak_cost, plan.day.refunded)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"goal": "min_latency"}, "latency is the goal"),
        ({"availability": Availability(survive="failure_domain", share=0.1)}, "failure domain"),
    ],
)
def test_who_must_not_scale_keeps_its_replicas_and_says_why(more, said):
    """Where fewer replicas would break the wish, every window keeps all of them."""
    wanted = wish(**more)
    one = candidate(replicas=6)
    placed = place(fleet([pool()], [wish()]), {"chat": [one]})
    plan = planned(wanted, placed)
    assert said in plan.intents[0].day.kept
    assert {part.replicas for part in plan.intents[0].day.parts} == {6}
    assert plan.day is None


def test_one_part_of_a_mix_may_carry_the_night_alone():
    """Where both parts in proportion need a replica each, the cheaper one alone serves the quiet windows."""
    wanted = wish()
    parts = []
    for tp, share, cost in ((1, 0.5, 6.0), (2, 0.5, 5.0)):
        one = candidate(replicas=3, share=share, tp=tp, cost=cost)
        load = law_of(realize(wanted.workload))
        parts.append(replace(one, estimate=judged(one.strategy, (ENGINE,), replace(load, rate=30.0), wanted.slo)))
    placed = place(fleet([pool()], [wanted]), {"chat": parts})
    assert len(placed["chat"].candidates) == 2
    plan = planned(wanted, placed)
    floors = {group.tp: {w.start_hour: w.min_replicas for w in group.windows} for group in plan.placements}
    assert (floors[1][0.0], floors[2][0.0]) == (0, 1)
    gauge = gauge_of(parts[1], wanted)
    for part in plan.intents[0].day.parts:
        if part.replicas < 3:
            assert gauge.goodput((part.replicas,)) >= part.rate
    assert plan.intents[0].day.parts[2].replicas == 6


def test_another_strategy_for_the_quiet_windows_is_priced_and_told():
    """Where one replica of a cheaper strategy carries the night, the plan says which, when, and what it would save."""
    wanted = wish()
    one, placed = decided(wanted, 6)
    small = candidate(share=0.1, cost=0.2, tp=2)
    plan = planned(wanted, placed, offers={"chat": [one, small]})
    day = plan.intents[0].day
    assert day.switch == "h100-tp2 x1 at 00:00-04:00 UTC"
    assert day.parts == planned(wanted, placed).intents[0].day.parts
    assert f"{day.switch} would save {day.switch_saves:,.2f} USD a day more" in explain(plan, "chat")
    lead, parts = 0.25, day.parts
    stays = [4.0 * part.cost_per_hour for part in parts]
    rises = parts[1].cost_per_hour - max(0.0, parts[1].cost_per_hour - parts[0].cost_per_hour)
    assert day.switch_saves == pytest.approx(stays[0] - 4.0 * 0.2 - lead * (0.2 + rises), abs=1e-4)
    dear = candidate(share=0.1, cost=30.0, tp=2)
    assert planned(wanted, placed, offers={"chat": [one, dear]}).intents[0].day.switch == ""
    fast = wish(goal="min_latency")
    assert planned(fast, decided(fast, 6)[1], offers={"chat": [small]}).intents[0].day.switch == ""


def test_spares_and_survivors_stay_in_every_window():
    """With one spare every window runs one more than carries it; with a node to lose, what is left still carries."""
    wanted = wish(availability=Availability(spares=1))
    _, placed = decided(wanted, 7, spares=1)
    bare = planned(wish(), decided(wish(), 6)[1])
    spared = planned(wanted, placed)
    less = [part.replicas for part in bare.intents[0].day.parts]
    assert [part.replicas for part in spared.intents[0].day.parts] == [n + 1 for n in less]


def test_reserve_is_taken_off_as_it_was_put_on():
    """For every count that a search can make, what carries the load is found again."""
    for rules in (Availability(), Availability(spares=2), Availability(survive="node", share=0.8)):
        wanted, nodes = wish(availability=rules), pool(nodes=5)
        for n in range(1, 12):
            total = with_reserve(n, math.ceil(n * rules.share), nodes, rules)
            found = without_reserve(total, nodes, wanted)
            assert found >= n
            assert with_reserve(found, math.ceil(found * rules.share), nodes, rules) <= total


def test_without_a_profile_nothing_is_said_of_the_day():
    """A load that is the same at all hours has no windows, but it has margins."""
    wanted = wish().model_copy(update={"workload": wish().workload.model_copy(update={"diurnal": None})})
    plan = planned(wanted, decided(wanted, 6)[1])
    assert plan.day is None
    assert plan.intents[0].day is None
    assert plan.placements[0].windows == ()
    assert [stress.case for stress in plan.intents[0].robustness] == ["as_predicted", "slow_end", "fast_end"]


def test_the_load_that_breaks_is_where_the_slo_stops_holding():
    """Just below the stated load the SLO holds by the closed form and just above it does not; the loads tried agree."""
    one, _ = decided(wish(), 4)
    gauge = gauge_of(one, wish())
    for stress in robustness([gauge]):
        end = {"as_predicted": "middle", "slow_end": "slow", "fast_end": "fast"}[stress.case]
        assert gauge.goodput((4,), end) == pytest.approx(stress.breaks_at * gauge.rate)
        assert stress.holds_at == tuple(load for load in (0.8, 1.0, 1.2) if load <= stress.breaks_at)
        assert stress.first_to_break in {"ttft", "tpot", "capacity"}


def test_what_breaks_first_is_the_tight_limit():
    """With a TPOT limit near the step time and a loose TTFT, TPOT breaks first; the other way round TTFT does."""
    one, _ = decided(wish(), 4)
    for limits, first in ((SLO(ttft="9 s", tpot="25 ms"), "tpot"), (SLO(ttft="120 ms", tpot="500 ms"), "ttft")):
        wanted = wish().model_copy(update={"slo": limits})
        found = robustness([gauge_of(replace(one, estimate=estimate()), wanted)])
        assert {stress.first_to_break for stress in found} == {first}


def test_half_the_network_concerns_pairs_alone():
    """A pair has a fourth case that carries no more than its slow end; at a starved link it carries less."""
    two = pair("a", "a")
    slow_link = replace(two.strategy, transfer_bandwidth=4e6)
    sides = (engine(SPEED, kv_bytes_per_token=1000.0), ENGINE)
    wanted = wish()
    found = {}
    for name, strategy in (("fast", replace(slow_link, transfer_bandwidth=1e12)), ("slow", slow_link)):
        one = replace(two, strategy=strategy)
        stresses = {s.case: s for s in robustness([gauge_of(one, wanted, engines=sides)])}
        assert set(stresses) == {"as_predicted", "slow_end", "fast_end", "half_bandwidth"}
        found[name] = stresses["half_bandwidth"].breaks_at / stresses["slow_end"].breaks_at
    assert found["slow"] < 0.9 < found["fast"] <= 1.0 + 1e-9


def test_a_plan_with_its_outlook_reads_back_and_is_told():
    """plan.json keeps every field; the explanation and the report say the windows, the savings and the margins."""
    wanted = wish()
    plan = planned(wanted, decided(wanted, 6)[1])
    assert from_json(to_json(plan)) == plan
    text = explain(plan, "chat")
    assert "Through the day:" in text
    assert "Robustness, all replicas running:" in text
    assert stress_line(plan.intents[0].robustness[0]) in text
    page = html(plan.model_copy(update={"placements": ()}))
    assert "Through the day" in page
    assert "Robustness" in page
    assert fleet_day(plan)[0].startswith("The fleet costs ")


def test_a_margin_below_one_is_said_as_a_shortfall():
    """An SLO that breaks below the planned load is told with `only`."""
    line = stress_line(Stress(case="slow_end", breaks_at=0.93, first_to_break="tpot", holds_at=(0.8,)))
    assert line.endswith("keeps the SLO only up to 93% of the load, then TPOT breaks")


def test_measured_days_give_a_profile():
    """A trace over two days that says when it starts has an hourly profile; declared factors win over it."""
    from planner.workload import Trace  # noqa: PLC0415 - this test alone

    clock = np.sort(np.concatenate([np.linspace(9 * 3600, 17 * 3600, 4000) + day * 86_400 for day in (0, 1, 2)]))
    n = len(clock)
    trace = Trace(
        source="hand", arrival_s=clock - clock[0], prompt=np.full(n, 100), output=np.full(n, 10), cached=None,
        day_offset_s=9 * 3600.0,
    )  # fmt: skip
    profile = realize(Workload(trace="x.csv"), trace=trace).profile
    assert len(profile) == 24
    assert profile[12] > 2.0
    assert profile[3] == 0.0
    assert realize(Workload(trace="x.csv", diurnal=(1.0, 2.0)), trace=trace).profile == (1.0, 2.0)
    assert realize(Workload(trace="x.csv"), trace=replace(trace, day_offset_s=None)).profile is None
    assert served(prompt=100, output=10).profile is None


def test_a_mix_breaks_where_its_weaker_part_does():
    """Two parts share the load in fixed parts: the mix holds up to the lesser of what each part holds."""
    wanted = wish()
    weak, strong = (candidate(replicas=n, share=0.5, tp=tp) for n, tp in ((2, 1), (6, 2)))
    gauges = [gauge_of(one, wanted) for one in (weak, strong)]
    alone = [{s.case: s.breaks_at for s in robustness([gauge])} for gauge in gauges]
    mixed = {s.case: s.breaks_at for s in robustness(gauges)}
    assert alone[0] != alone[1]
    assert mixed == {case: min(alone[0][case], alone[1][case]) for case in mixed}
