"""`BinClass`: one node pool as the bins that its replicas are packed into.

A bin is a link domain (NVLink, xGMI, PCIe root), not the server: 6 + 2 GPUs free in two domains are not 8. A replica of
g GPUs in ranks of tp is charged its *slot*:

    g <= domain           g GPUs of one domain
    g <= node             whole domains of one node, enough to hold its pp * dp ranks of tp GPUs each
    g >  node             whole nodes of the pool, which is one fabric

With slots that divide one another, counting GPUs is exact (each larger slot is a multiple of the smaller ones, so
largest-first strands nothing) as long as for every slot size s

    sum of GPUs in slots that are multiples of s  <=  sum over bins of floor(free / s) * s

which is one row per class where all bins are whole, and a few more where others hold part of a node.

Where engines share each GPU of a pool, all counts of its class are in parts of a GPU: a bin is one GPU, a replica one
part, and every other replica is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from catalog.cluster import Cluster, NodePool
from planner.placement.spelling import gpu_names

if TYPE_CHECKING:
    from catalog.gpus import GPU
    from planner.strategies import Configuration


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BinClass:
    """The usable part of one node pool."""

    pool: NodePool
    gpu: str
    """The GPU's catalog name where the catalog was given, else as the pool spells it."""
    domain: int
    """GPUs of one link domain."""
    free: NDArray[np.int64]  # (nodes, domains per node) GPUs that a plan may use

    @property
    def parts(self) -> int:
        """Parts of a GPU that everything here counts: 1, or where engines share a GPU, as many as share it."""
        return self.pool.engines_per_gpu

    @property
    def name(self) -> str:
        """The node pool's name."""
        return self.pool.name

    @property
    def node(self) -> int:
        """GPUs of one node, in parts."""
        return self.pool.gpus_per_node * self.parts

    @property
    def nodes(self) -> int:
        """Nodes that stand."""
        return int(self.free.shape[0])

    def slot(self, configuration: Configuration) -> int | None:
        """GPUs that one replica takes from the class, whole domains or nodes included; None = it cannot run here."""
        gpus, tp = configuration.gpus, configuration.tp
        if configuration.engines_per_gpu != self.parts or (self.parts > 1 and gpus > 1):
            return None
        if tp > self.domain:
            return None
        if gpus <= self.domain:
            return gpus
        ranks, per_domain = gpus // tp, self.domain // tp
        domains = -(-ranks // per_domain)
        whole = self.node // self.domain
        if domains <= whole:
            return self.node if domains == whole else domains * self.domain
        return -(-ranks // (per_domain * whole)) * self.node

    def capacity(self, size: int) -> int:
        """GPUs that slots of `size` can take at most: sum of floor(free / size) * size over bins."""
        if size <= self.domain:
            return int((self.free // size * size).sum())
        full = (self.free == self.domain).sum(axis=1)
        if size < self.node:
            per_slot = size // self.domain
            return int((full // per_slot).sum()) * size
        return int((self.free.sum(axis=1) == self.node).sum()) * self.node

    def thresholds(self, slots: Iterable[int]) -> tuple[tuple[int, int], ...]:
        """Rows that bound the class: (size s, GPUs that slots in multiples of s may take). s = 1 is the total."""
        total = self.capacity(1)
        sizes = sorted({min(slot, self.node) for slot in slots} - {1})
        return ((1, total), *((size, self.capacity(size)) for size in sizes if self.capacity(size) < total))

    def node_name(self, index: int) -> str:
        """`<node pool>-<index>`."""
        return f"{self.pool.name}-{index}"


def domain_size(pool: NodePool, gpu: GPU | None) -> int:
    """GPUs of one link domain: the pool's, else the GPU's, at most a node.

    A GPU without a fast link (its domain is 1) is joined by PCIe inside its node, so the node is its domain; a pool
    that says `link_domain: 1` forbids tensor parallelism.
    """
    linked = pool.link_domain or (gpu.link_domain if gpu is not None and gpu.link_domain > 1 else pool.gpus_per_node)
    return min(linked, pool.gpus_per_node)


def bin_classes(cluster: Cluster, gpus: Mapping[str, GPU] | None = None) -> dict[str, BinClass]:
    """Every node pool as bins, in the cluster's order.

    Only the number of lost nodes and of reserved GPUs is known, not which: the last nodes count as lost, and the
    reserved GPUs fill the last domains that remain.
    """
    names = gpu_names(gpus)
    known = {gpu.name: gpu for gpu in (gpus or {}).values()}
    classes = {}
    for pool in cluster.pools:
        gpu = names.get(pool.gpu, pool.gpu)
        domain = domain_size(pool, known.get(gpu)) if pool.engines_per_gpu == 1 else pool.engines_per_gpu
        classes[pool.name] = BinClass(pool=pool, gpu=gpu, domain=domain, free=_free(pool, domain))
    return classes


def _free(pool: NodePool, domain: int) -> NDArray[np.int64]:
    whole, rest = divmod(pool.gpus_per_node * pool.engines_per_gpu, domain)
    one_node = [domain] * whole + [rest] * (rest > 0)
    free = np.tile(np.array(one_node, dtype=np.int64), (max(0, pool.nodes - pool.lost), 1))
    flat = free.reshape(-1)
    before = np.concatenate(([0], np.cumsum(flat[::-1])[:-1])) if flat.size else flat
    flat[::-1] -= np.clip(pool.reserved_gpus * pool.engines_per_gpu - before, 0, flat[::-1])
    return free
