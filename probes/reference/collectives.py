"""Collectives from the tables: time over message size for the measured numbers of GPUs.

The tables count a message in elements of bf16. All-reduce takes the faster of vLLM's custom kernel (replayed in a
CUDA graph) and NCCL, as vLLM dispatches by size; vLLM has no custom kernel for more than two PCIe cards.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from catalog.fingerprints import Op
from catalog.gpus import GPU
from probes.reference import tables
from probes.reference.curves import along
from probes.runners import Bound, Floats, Timing

_SPELLED = {"all_to_all": "alltoall"}
_GRID = np.array([float(2**i) for i in range(17)])


def collective(op: Op, gpu: GPU, bound: Bound) -> Timing | str:
    """Times of a collective at tokens of one engine, `elements` bf16 numbers each."""
    measured = _measured(str(gpu.tables), op.kind if op.dtype != "gather" else "all_gather", gpu.link == "pcie")
    if not measured:
        return f"no table of {op.kind}"
    wanted = op.size("ranks")
    ranks = min(measured, key=lambda have: (abs(np.log(have / wanted)), have))
    sizes, time_s = measured[ranks]
    message = _GRID * op.size("elements")
    log_time = along(sizes, np.log(time_s), np.clip(message, sizes[0], sizes[-1]))
    # Beyond the largest message the time grows with the bytes.
    own = np.exp(log_time) * np.maximum(message / sizes[-1], 1.0)
    own = np.maximum(own, bound(op, gpu, _GRID, np.zeros_like(_GRID)))
    if ranks == wanted:
        return Timing(x=_GRID, y=np.zeros_like(_GRID), time_s=own, source="reference")
    # More ranks: as many more hops at the small end, the same bytes at the large end.
    own = own * max(1.0, np.log2(wanted) / np.log2(ranks))
    note = f"{wanted} ranks from {ranks}"
    return Timing(x=_GRID, y=np.zeros_like(_GRID), time_s=own, source="transferred", note=note)


@lru_cache(maxsize=64)
def _measured(system: str, kind: str, pcie: bool) -> dict[int, tuple[Floats, Floats]]:  # noqa: FBT001 - part of the cache key
    """Ranks -> (message sizes, seconds), ascending and not falling."""
    found = _nccl(system, _SPELLED.get(kind, kind))
    if kind != "all_reduce":
        return found
    for ranks, (sizes, time_s) in _custom(system).items():
        if ranks not in found:
            found[ranks] = (sizes, time_s)
        elif not (pcie and ranks > 2):
            other = np.exp(along(found[ranks][0], np.log(found[ranks][1]), sizes))
            inside = (sizes >= found[ranks][0][0]) & (sizes <= found[ranks][0][-1])
            found[ranks] = (sizes, np.maximum.accumulate(np.where(inside, np.minimum(time_s, other), time_s)))
    return found


def _custom(system: str) -> dict[int, tuple[Floats, Floats]]:
    versions = tables.versions(system, "comm", "vllm", "custom_allreduce")
    if not versions:
        return {}
    columns = ("num_gpus", "message_size", "backend")
    rows = tables.read(system, "comm", "custom_allreduce", version=versions[0], columns=columns)
    graph = rows.filter(rows["backend"] == "vllm_graph")
    return _by_ranks((graph if graph.height else rows).select("num_gpus", "message_size", "time_s").to_numpy())


def _nccl(system: str, name: str) -> dict[int, tuple[Floats, Floats]]:
    found: dict[int, tuple[Floats, Floats]] = {}
    for version in tables.versions(system, "comm", "nccl", "nccl"):
        rows = tables.read(system, "comm", "nccl", version=version, engine="nccl",
                           columns=("num_gpus", "message_size"),
                           where=(("op_name", name), ("nccl_dtype", "half")))  # fmt: skip
        for ranks, curve in _by_ranks(rows.select("num_gpus", "message_size", "time_s").to_numpy()).items():
            found.setdefault(ranks, curve)
    return found


def _by_ranks(rows: Floats) -> dict[int, tuple[Floats, Floats]]:
    found = {}
    for ranks in np.unique(rows[:, 0]):
        part = rows[rows[:, 0] == ranks]
        part = part[np.argsort(part[:, 1], kind="stable")]
        sizes, first = np.unique(part[:, 1], return_index=True)
        fastest = np.minimum.reduceat(part[:, 2], first)
        found[int(ranks)] = (sizes.astype(float), np.maximum.accumulate(fastest))
    return found
