"""`planner.plan`: assembly, canonical bytes, digest and schema of a plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import BadInput, CorruptRecord
from catalog.models import find_model
from planner.intents import Fleet
from planner.placement import Placed, Seats, Served
from planner.plan import (
    Facts,
    Plan,
    Provenance,
    Relaxation,
    Search,
    Solved,
    assemble,
    baseline,
    canonical_json,
    checkpoint_of,
    digest_of,
    from_json,
    json_schema,
    rounded,
    seal,
    to_json,
)
from planner.strategies import Candidate, Collocated, Configuration, Estimate, Pool, Quantiles, Rejection

SAMPLE = Path(__file__).parent / "plans" / "sample.json"
MODEL = "meta-llama/Llama-3.1-8B-Instruct"


def sample() -> Plan:
    """The hand-made plan."""
    return from_json(SAMPLE.read_text(encoding="utf-8"))


def estimate(ttft: float = 0.1, tpot: float = 0.02, goodput: float = 4.0) -> Estimate:
    """An estimate whose latencies have a given median."""

    def around(value: float) -> Quantiles:
        return Quantiles(mean=value, p50=value, p90=1.3 * value, p99=2 * value)

    return Estimate(
        ttft=around(ttft),
        tpot=around(tpot),
        e2e=around(ttft + 100 * tpot),
        ttft_high=1.5 * ttft,
        tpot_high=1.5 * tpot,
        attainment=0.97,
        goodput=goodput,
        goodput_low=0.9 * goodput,
        slo_probability=0.95,
        utilisation=0.6,
        kv_utilisation=0.3,
        watts_per_gpu=None,
        method="simulated",
        source="reference",
    )


def candidate(
    cost: float, *, tp: int = 1, replicas: int = 2, ttft: float = 0.1, pool: str = "h100", **more: object
) -> Candidate:
    """A collocated candidate on one pool."""
    gpu = {"h100": "h100_sxm", "l4": "l4"}[pool]
    configuration = Configuration(model=MODEL, gpu=gpu, tp=tp)
    return Candidate(
        intent="chat",
        strategy=Collocated(pool=Pool(configuration=configuration, replicas=replicas, node_pool=pool)),
        estimate=estimate(ttft=ttft),
        cost_per_hour=cost,
        quality=1.0,
        gpus=((pool, tp * replicas),),
        **more,
    )


def fleet() -> Fleet:
    """One intent that is served, one that is not, one that nothing is known about."""
    wish = {"model": MODEL, "workload": {"rate": "3 /s", "prompt": {"mean": 500}, "output": {"mean": 100}}}
    tree = {
        "cluster": {
            "pools": [
                {"name": "h100", "gpu": "h100_sxm", "gpus_per_node": 8, "nodes": 2, "price": "2 USD/GPU/h"},
                {"name": "l4", "gpu": "l4", "gpus_per_node": 4, "nodes": 1, "price": "0.5 USD/GPU/h"},
            ]
        },
        "intents": [
            {"name": "chat", "slo": {"ttft": "500 ms"}, **wish},
            {"name": "voice", "slo": {"ttft": "1 ms"}, **wish},
            {"name": "ghost", **wish},
        ],
    }
    return Fleet.model_validate_json(json.dumps(tree))


CHOSEN = candidate(4.0, tp=1, replicas=2)
OTHERS = (
    candidate(8.0, tp=2, replicas=2, ttft=0.05),
    candidate(9.0, tp=2, replicas=3, ttft=0.2),
    candidate(3.0, pool="l4", replicas=6, ttft=0.3, share=0.5),
)


def placed() -> Placed:
    """What placement says for that fleet."""
    seats = Seats(role="both", pool=CHOSEN.strategy.pools[0], nodes=((("h100-0", 1),), (("h100-0", 1),)))
    nothing = {"candidates": (), "share": 0.0, "seats": (), "status": "unmet", "reason": "Nothing is fast enough."}
    return Placed(
        served=(
            Served(
                intent="chat", candidates=(CHOSEN,), share=1.0, seats=(seats,), status="met", reason="Cheapest.",
                cost_per_hour=4.0, runner_up=(OTHERS[0],), runner_up_extra=4.0,
            ),
            Served(intent="voice", **nothing),
            Served(intent="ghost", **nothing),
        ),
        solved=Solved(solver="highs", status="proven", gap=0.0, bound=4.0, columns=5),
        stages=(),
        shadow_prices={"h100": 0.123456789, "l4": None},
        cost_per_hour=4.0,
    )  # fmt: skip


def searches() -> dict[str, Search]:
    """What the search found."""
    slow = Rejection(intent="voice", strategy="h100_sxm-tp8 x2", reason="ttft_above_slo", detail="9 ms", count=3)
    ghost = Rejection(intent="ghost", strategy="all", reason="no_data", detail="No config.json.")
    relaxation = Relaxation(dimension="ttft", from_value=0.001, to_value=0.009, unit="s", text="9 ms would do.")
    return {
        "chat": Search(candidates=(CHOSEN, *OTHERS)),
        "voice": Search(rejections=(slow, replace(slow, count=4)), relaxations=(relaxation,)),
        "ghost": Search(rejections=(ghost,)),
    }


def facts(**more: object) -> Facts:
    """Facts for that fleet."""
    return Facts(
        models={MODEL: find_model(MODEL)},
        gpus={},
        prices={"h100": 2.0, "l4": 0.5},
        kv_bytes=lambda _: 10**9,
        provenance=Provenance(fingerprints=("ab",), tables="tables 1", constants="cd"),
        **more,
    )


def test_assembly_states_the_decision() -> None:
    """Each intent has its status and reason, each group its replicas and nodes, each pool what is used."""
    plan = assemble(fleet(), placed(), searches(), facts(), serial=3)
    assert [(d.name, d.status) for d in plan.intents] == [("chat", "met"), ("voice", "unmet"), ("ghost", "no_data")]
    assert plan.intents[2].reason == "No config.json."
    assert plan.intents[1].relaxations[0].text == "9 ms would do."
    (group,) = plan.placements
    assert (group.replicas, group.gpus, group.kv_cache_memory_bytes) == (2, 2, 10**9)
    assert [(pool.name, pool.used, pool.gpus) for pool in plan.pools] == [("h100", 2, 16), ("l4", 0, 4)]
    assert plan.pools[0].shadow_price == 0.123457
    assert [(r.intent, r.count) for r in plan.rejections] == [("voice", 7), ("ghost", 1)]
    assert plan.cost_per_hour == 4.0
    assert plan.provenance.sources == {"reference": 1}


def test_the_front_holds_what_nothing_beats() -> None:
    """The front keeps whole-load candidates that no cheaper one beats in latency and quality, cheapest first."""
    plan = assemble(fleet(), placed(), searches(), facts())
    assert [choice.cost_per_hour for choice in plan.intents[0].front] == [4.0, 8.0]


def test_the_queue_limit_is_what_can_be_prefilled_in_time() -> None:
    """Target TTFT times prefill throughput, and never less than one whole request."""
    many = assemble(fleet(), placed(), searches(), facts(prefill_rate=lambda _: 50_000.0))
    assert many.placements[0].max_num_queued_tokens == 25_000
    few = assemble(fleet(), placed(), searches(), facts(prefill_rate=lambda _: 10.0))
    assert few.placements[0].max_num_queued_tokens == few.placements[0].max_model_len


def test_the_baseline_compares_what_is_served() -> None:
    """Naive costs of served intents add up; what cannot be served naively counts at the plan's own cost."""
    found = searches()
    plan = assemble(fleet(), placed(), found | {"chat": replace(found["chat"], naive_cost=10.0)}, facts())
    assert plan.baseline_cost_per_hour == 10.0
    assert "h100_sxm" in plan.baseline
    assert assemble(fleet(), placed(), found, facts()).baseline_cost_per_hour is None
    both = [plan.intents[0], plan.intents[0].model_copy(update={"name": "other", "cost_per_hour": 7.0})]
    cost, statement = baseline(both, {"chat": 10.0, "other": None}, fleet().cluster)
    assert cost == 17.0
    assert "1 of 2 cannot be served so" in statement


def test_equal_inputs_give_equal_bytes() -> None:
    """The same night twice is the same plan.json apart from its serial, and the same digest."""
    one, other = (assemble(fleet(), placed(), searches(), facts(), serial=serial) for serial in (1, 2))
    assert one.digest == other.digest
    assert to_json(one) == to_json(other.model_copy(update={"serial": 1}))


def test_a_format_that_nobody_published_is_refused() -> None:
    """A checkpoint is the published one, bf16 can become fp8 while loading, and anything else is an error."""
    model = find_model(MODEL)
    bare = replace(model, checkpoints=())
    assert checkpoint_of(model, "bf16") == (model.name, None)
    assert checkpoint_of(bare, "fp8") == (model.name, "fp8")
    assert checkpoint_of(replace(bare, checkpoints=(("int4", "x/awq"),)), "int4") == ("x/awq", None)
    with pytest.raises(BadInput, match="no checkpoint in int4"):
        checkpoint_of(bare, "int4")


def test_the_digest_is_of_the_content_alone() -> None:
    """Serial and digest do not enter the digest; everything else does."""
    plan = sample()
    assert digest_of(plan.model_copy(update={"serial": 99, "digest": "x"})) == plan.digest
    assert digest_of(plan.model_copy(update={"cost_per_hour": plan.cost_per_hour + 1})) != plan.digest


def test_sealing_twice_changes_nothing() -> None:
    """A sealed plan is its own seal, and reads back as itself."""
    plan = sample()
    assert seal(plan) == plan
    assert from_json(to_json(plan)) == plan


def test_a_changed_plan_is_noticed() -> None:
    """A number changed by hand does not match the digest; broken JSON and other files are bad input."""
    text = SAMPLE.read_text(encoding="utf-8")
    with pytest.raises(CorruptRecord, match="does not match its digest"):
        from_json(text.replace('"replicas": 3', '"replicas": 2', 1))
    with pytest.raises(BadInput, match="not a plan"):
        from_json("{}")
    with pytest.raises(BadInput, match="not a plan"):
        from_json("no json")


def test_the_schema_describes_plan_json() -> None:
    """The published schema is valid, accepts the sample and refuses an unknown key and a wrong type."""
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    content = json.loads(SAMPLE.read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(content)
    assert {"intents", "placements", "rejections"} <= set(content)
    assert not validator.is_valid(content | {"typo": 1})
    assert not validator.is_valid(content | {"cost_per_hour": "4"})


VALUES = st.recursive(
    st.floats() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(VALUES)
def test_rounding_is_stable(value: object) -> None:
    """Rounding twice is rounding once, and what is rounded can be written as JSON and read back."""
    once = rounded(value)
    assert rounded(once) == once
    assert json.loads(canonical_json(once)) == once
