"""`GPU`: what a data sheet says of an accelerator, each number with its source (rows in gpus.yaml)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from catalog.cluster import Fact, Name
from catalog.units import Bytes, BytesPerSecond, FlopPerSecond, SecondsOrZero, Watts

PeakFormat = Literal["bf16", "fp8", "int8", "fp4"]


class GPU(Fact):
    """One type of accelerator. Rates are dense peaks of one GPU; bandwidths are per GPU and direction."""

    name: Name
    """Such as `h100_sxm`; the spelling of fleet.yaml and of the measured tables."""
    aliases: tuple[str, ...] = ()
    vendor: Literal["nvidia", "amd", "intel", "cpu"]
    compute_capability: int
    """CUDA compute capability x 10 (90 = Hopper); 0 where there is none."""
    peak: dict[PeakFormat, FlopPerSecond]
    """A format that the GPU does not multiply natively is absent."""
    memory: Bytes
    """HBM that vLLM sees."""
    bandwidth: BytesPerSecond
    """HBM."""
    link: Literal["nvlink", "xgmi", "pcie", "none"]
    link_bandwidth: BytesPerSecond
    link_latency: SecondsOrZero
    link_domain: int = Field(ge=1, le=576)
    """GPUs that the fast link joins (8 in an HGX node, 72 in an NVL72 rack, 1 for PCIe cards)."""
    power: Watts
    """TDP or maximal total graphics power."""
    idle_power: Watts | None = None
    tables: str | None = None
    """Name of the system in the measured kernel tables; None = not measured there."""
    sources: dict[str, str]
    """Field -> where the number was read (each numeric field has one)."""
