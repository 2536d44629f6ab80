"""`flows.relax`: an intent that the rest of the fleet leaves no room for is told what would help."""

from __future__ import annotations

from pathlib import Path

from small_fleets import candidate, fleet, intent, pool
from test_flows import FLEET, night, site

from flows.fleet import read_fleet
from flows.night import plan_night
from flows.relax import beside
from planner.explain import explain
from planner.placement import place

CROWDED = (
    FLEET.replace("nodes: 2", "nodes: 1").replace("rate: 4 /s", "rate: 40 /s").replace("name: chat", "name: first")
)
SECOND = CROWDED[CROWDED.index("  - name: first") :].replace("name: first", "name: second") + "    priority: 3\n"


def test_what_others_hold_is_held_by_others():
    """The cluster beside an intent has what all the other intents leave."""
    wishes = fleet([pool(nodes=2)], [intent("one"), intent("two")])
    placed = place(wishes, {name: [candidate(of=name, replicas=count)] for name, count in (("one", 3), ("two", 5))})
    assert [one.gpus for one in beside(wishes.cluster, placed, "one").pools] == [11]
    assert [one.gpus for one in beside(wishes.cluster, placed, "two").pools] == [13]


def test_a_crowded_out_intent_is_told_nodes_and_limits(tmp_path: Path) -> None:
    """Two equal services and room for one and a bit: the second is told how many nodes it lacks, and what it could get.

    With the nodes added both are met.
    """
    replicas = night(tmp_path, CROWDED).plan.placements[0].replicas
    rate = 40 * 5 / replicas  # the first takes about five of eight GPUs, the second would too
    text = CROWDED.replace("rate: 40 /s", f"rate: {rate:.1f} /s") + SECOND.replace(
        "rate: 40 /s", f"rate: {rate:.1f} /s"
    )
    path = tmp_path / "fleet.yaml"
    path.write_text(text, encoding="utf-8")
    other = tmp_path / "crowded"
    plan = plan_night(read_fleet(path), site(other), dry_run=True).plan
    second = next(decision for decision in plan.intents if decision.name == "second")
    assert second.status == "unmet"
    told = {relaxation.dimension: relaxation for relaxation in second.relaxations}
    assert {"nodes", "rate"} <= told.keys()
    assert told["nodes"].text in explain(plan, "second")
    path.write_text(text.replace("nodes: 1", f"nodes: {told['nodes'].to_value:.0f}"), encoding="utf-8")
    larger = plan_night(read_fleet(path), site(other), dry_run=True).plan
    assert {decision.status for decision in larger.intents} == {"met"}
