"""GPUs: physical invariants of the rows, and lenient names."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from catalog.errors import BadInput
from catalog.gpus import GPU, find_gpu, load_gpus, why_unserved

GPUS = load_gpus()
# Blackwell Ultra gave its INT8 units up for FP4 (NVIDIA data sheet: 307 TOPS sparse of a B300).
LITTLE_INT8 = {"b300_sxm", "gb300"}
EVERY = pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)


def test_the_types_that_a_fleet_has_are_there() -> None:
    """The GPU types that the examples and measured tables name."""
    assert set(GPUS) >= {
        "a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "gb300", "l40s", "l4", "a10g",
        "rtx_pro_6000_server", "mi300x", "rtx4090", "b60", "cpu",
    }  # fmt: skip


@EVERY
def test_numbers_are_physical(gpu: GPU) -> None:
    """Narrower formats are not slower, memory is read in 10 ms to 1 s, the link is slower than the memory."""
    floating = [gpu.peak[name] for name in ("bf16", "fp8", "fp4") if name in gpu.peak]
    assert floating == sorted(floating)
    assert (gpu.peak["int8"] >= gpu.peak["bf16"]) == (gpu.name not in LITTLE_INT8)
    assert 0.01 <= gpu.memory / gpu.bandwidth <= 1.0
    assert gpu.link_bandwidth < gpu.bandwidth
    assert gpu.idle_power is None or gpu.idle_power < gpu.power


@EVERY
def test_a_fast_link_joins_several_gpus_and_pcie_one(gpu: GPU) -> None:
    """NVLink and xGMI have a domain, PCIe cards stand alone."""
    assert (gpu.link_domain > 1) == (gpu.link in ("nvlink", "xgmi"))


@EVERY
def test_capabilities_decide_formats(gpu: GPU) -> None:
    """FP8 units from 8.9 on, FP4 from 10.0 on; no CUDA capability off NVIDIA."""
    if gpu.vendor != "nvidia":
        assert gpu.compute_capability == 0
    else:
        assert ("fp8" in gpu.peak) == (gpu.compute_capability >= 89)
        assert ("fp4" in gpu.peak) == (gpu.compute_capability >= 100)
    assert why_unserved(gpu, "bf16") is None
    assert ("fp8" in gpu.peak) == (why_unserved(gpu, "fp8") is None)


@pytest.mark.parametrize("gpu", [gpu for gpu in GPUS.values() if gpu.tables], ids=lambda gpu: gpu.name)
def test_a_roofline_is_not_slower_than_the_measured_tables_sheet(gpu: GPU) -> None:
    """No peak or bandwidth is below the system sheet of the measured tables: a bound must not be beaten by a fact."""
    found = importlib.util.find_spec("aiconfigurator_core")
    assert found is not None
    assert found.origin is not None
    sheet = yaml.safe_load((Path(found.origin).parent / "systems" / f"{gpu.tables}.yaml").read_text())
    assert gpu.bandwidth >= sheet["gpu"]["mem_bw"]
    assert gpu.peak["bf16"] >= sheet["gpu"]["bfloat16_tc_flops"] * 0.999
    assert gpu.link_bandwidth >= sheet["node"]["intra_node_bw"]
    assert gpu.memory <= sheet["gpu"]["mem_capacity"]


def test_every_number_needs_a_source() -> None:
    """A row whose number has no source is refused."""
    row = GPUS["l4"].model_dump(mode="json")
    assert GPU.model_validate_json(json.dumps(row)) == GPUS["l4"]
    with pytest.raises(ValueError, match="no source for compute_capability, peak"):
        GPU.model_validate_json(json.dumps(row | {"sources": {"memory": "here"}}))


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("h100_sxm", "h100_sxm"),
        ("H100 SXM", "h100_sxm"),
        ("NVIDIA H100 80GB HBM3", "h100_sxm"),
        ("h100", "h100_sxm"),
        ("NVIDIA A100-SXM4-80GB", "a100_sxm"),
        ("RTX PRO 6000", "rtx_pro_6000_server"),
        ("RTX4090", "rtx4090"),
        ("GB200 NVL72", "gb200"),
        ("mi300x", "mi300x"),
    ],
)
def test_usual_spellings_are_found(spelling: str, expected: str) -> None:
    """Case, spaces, dashes and the vendor do not count."""
    assert find_gpu(spelling).name == expected


def test_no_spelling_means_two_gpus() -> None:
    """Aliases are unambiguous."""
    owners: dict[str, set[str]] = {}
    for gpu in GPUS.values():
        for spelling in (gpu.name, *gpu.aliases):
            squashed = "".join(letter for letter in spelling.casefold() if letter.isalnum())
            owners.setdefault(squashed, set()).add(gpu.name)
    assert {spelling for spelling, names in owners.items() if len(names) > 1} == set()


def test_an_unknown_gpu_gets_near_names() -> None:
    """The error suggests what was meant."""
    with pytest.raises(BadInput, match=r"unknown GPU 'h10o_sxm'; did you mean 'h100_sxm'"):
        find_gpu("h10o_sxm")
    with pytest.raises(BadInput, match="unknown GPU"):
        find_gpu("")


def test_formats_that_vllm_does_not_serve_say_why() -> None:
    """A100 has no FP8 units, Blackwell no INT8 kernels, AMD no AWQ."""
    assert "8.9" in str(why_unserved(GPUS["a100_sxm"], "fp8"))
    assert "no int8 kernels" in str(why_unserved(GPUS["b200_sxm"], "int8"))
    assert why_unserved(GPUS["h100_sxm"], "int8") is None
    assert "amd" in str(why_unserved(GPUS["mi300x"], "int4"))
    assert "nvfp4" in str(why_unserved(GPUS["h100_sxm"], "nvfp4"))
