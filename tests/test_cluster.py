"""Clusters: pools of equal nodes and what a plan may use of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from catalog.cluster import Cluster, Network, NodePool

POOL = NodePool(name="a", gpu="h100_sxm", gpus_per_node=8, nodes=4)


def test_usable_gpus_worked_by_hand() -> None:
    """(6 nodes - 1 lost) x 8 - 3 reserved = 37."""
    assert NodePool(name="a", gpu="h100_sxm", gpus_per_node=8, nodes=6, lost=1, reserved_gpus=3).gpus == 37


@given(nodes=st.integers(0, 50), per_node=st.integers(1, 72), data=st.data())
def test_usable_gpus_are_never_negative_nor_more_than_there_are(nodes: int, per_node: int, data: st.DataObject) -> None:
    """0 <= gpus <= nodes x gpus_per_node for every loss and reservation."""
    lost = data.draw(st.integers(0, nodes))
    reserved = data.draw(st.integers(0, nodes * per_node))
    pool = NodePool(name="a", gpu="x", gpus_per_node=per_node, nodes=nodes, lost=lost, reserved_gpus=reserved)
    assert 0 <= pool.gpus <= nodes * per_node


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("nodes", -1),
        ("nodes", 10**9),
        ("gpus_per_node", 0),
        ("name", "../x"),
        ("name", "a b"),
        ("price", "-1 USD/GPU/h"),
        ("price", 2.29),
        ("tier", "stolen"),
        ("lost", 5),
        ("reserved_gpus", 33),
        ("link_domain", 0),
        ("colour", "red"),
    ],
)
def test_impossible_pools_are_refused(key: str, value: object) -> None:
    """Each field has its bounds; an unknown key is an error."""
    fields = POOL.model_dump(exclude={"price", "network"}) | {key: value}
    with pytest.raises(ValidationError) as caught:
        NodePool(**fields)
    assert caught.value.error_count() == 1


def test_a_pool_cannot_be_declared_twice() -> None:
    """Names of pools are unique, and the error says which is not."""
    with pytest.raises(ValidationError, match="pool 'a' is declared twice"):
        Cluster(pools=(POOL, POOL))


def test_a_cluster_finds_its_pools_and_round_trips() -> None:
    """`pool(name)` finds by name; JSON out and in is the same cluster."""
    cluster = Cluster(pools=(POOL, POOL.model_copy(update={"name": "b", "network": Network(bandwidth="400 Gbit/s")})))
    assert cluster.pool("b").network.bandwidth == 50e9
    assert Cluster.model_validate_json(cluster.model_dump_json()) == cluster
    with pytest.raises(KeyError):
        cluster.pool("c")
