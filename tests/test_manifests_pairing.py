"""`planner.manifests.pairing`: pairs over GPU types name an attention backend that both ends have, or are refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import BadInput
from catalog.gpus import load_gpus
from catalog.models import load_models
from planner.manifests import arguments, render
from planner.manifests.pairing import attention, common_backend, pairing_problems
from planner.plan import Plan, attention_of, from_json, seal

SAMPLE = Path(__file__).parent / "plans" / "sample.json"
GPUS = load_gpus()
NVIDIA = [gpu for gpu in GPUS.values() if gpu.vendor == "nvidia"]
KINDS = ("full", "sliding", "sinks", "mla")


def pair(prefill: dict[str, Any], decode: dict[str, Any]) -> Plan:
    """The hand-made plan's disaggregated intent alone, both ends changed."""
    plan = from_json(SAMPLE.read_text(encoding="utf-8"))
    ends = (plan.placements[2].model_copy(update=prefill), plan.placements[3].model_copy(update=decode))
    return seal(plan.model_copy(update={"placements": ends, "waves": ()}))


def over(one: str, other: str, **both: Any) -> Plan:
    """A pair over two GPU types."""
    return pair({"gpu": one, **both}, {"gpu": other, **both})


@pytest.mark.parametrize(
    ("one", "other", "kind", "kv", "backend"),
    [
        ("h100_sxm", "h200_sxm", "full", "bf16", "FLASH_ATTN"),
        ("h100_sxm", "h200_sxm", "full", "fp8", "FLASH_ATTN"),
        ("h100_sxm", "h200_sxm", "sinks", "bf16", "FLASH_ATTN"),
        ("h100_sxm", "h200_sxm", "mla", "bf16", "FLASH_ATTN_MLA"),
        ("h100_sxm", "h200_sxm", "mla", "fp8", "FLASHMLA"),
        ("b200_sxm", "gb200", "mla", "fp8", "TRITON_MLA"),
        ("h200_sxm", "b200_sxm", "mla", "bf16", "TRITON_MLA"),
        ("a100_sxm", "l40s", "full", "bf16", "FLASH_ATTN"),
        ("a100_sxm", "l40s", "sinks", "bf16", "TRITON_ATTN"),
        ("l40s", "l4", "full", "fp8", "TRITON_ATTN"),
    ],
)
def test_both_ends_name_the_same_backend(one: str, other: str, kind: str, kv: str, backend: str) -> None:
    """Over two GPU types both ends name one backend that suits the model, the KV dtype and both GPUs."""
    plan = over(one, other, attention=kind, kv_dtype=kv)
    assert pairing_problems(plan) == []
    assert {arguments(plan, group)["attention-backend"] for group in plan.placements} == {backend}


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (over("a100_sxm", "l40s", kv_dtype="fp8"), "fp8 KV is read by no backend that a100_sxm and l40s share"),
        (over("a100_sxm", "h100_sxm", kv_dtype="fp8", attention="mla"), "fp8 KV is read by no backend"),
        (over("h100_sxm", "mi300x"), "h100_sxm and mi300x share no attention backend that was read"),
        (over("h100_sxm", "h300"), "nothing is known of h300"),
        (over("h100_sxm", "h200_sxm", model="mine", checkpoint="mine"), "how its model attends is not known"),
        (pair({"pp": 2, "attention": "sliding"}, {"attention": "sliding"}), "prefill cannot be pipelined"),
    ],
)
def test_a_pair_without_a_common_backend_is_refused(plan: Plan, said: str) -> None:
    """What would fail in the handshake, or at vLLM's start, is no manifest: the plan is refused with the reason."""
    with pytest.raises(BadInput, match=said):
        render(plan, formats=["vllm"])


def test_one_gpu_type_names_none() -> None:
    """On equal GPUs both ends choose the same backend by themselves, so that the best one is left to vLLM."""
    plan = pair({}, {})
    assert all("attention-backend" not in arguments(plan, group) for group in plan.placements)


def test_what_is_named_suits_every_gpu_of_the_pair() -> None:
    """No backend for Hopper alone is named where another GPU takes part; fp8 never where a GPU cannot read it."""
    for one, other in itertools.combinations(NVIDIA, 2):
        for kind, kv in itertools.product(KINDS, ("bf16", "fp8")):
            backend, why = common_backend([one, other], kind, kv)
            hopper = {gpu.compute_capability // 10 for gpu in (one, other)} == {9}
            assert (backend is None) == bool(why)
            assert hopper or backend not in {"FLASH_ATTN_MLA", "FLASHMLA"}
            assert hopper or backend != "FLASH_ATTN" or (kv == "bf16" and kind != "sinks")
            assert (kind == "mla") == ("MLA" in (backend or "")) or backend is None
            assert backend is not None or min(one.compute_capability, other.compute_capability) < 89


def test_three_gpu_types_share_one() -> None:
    """A prefill group that feeds decode groups on two other types names what all three have."""
    plan = over("h100_sxm", "h200_sxm", attention="mla")
    third = plan.placements[1].model_copy(update={"gpu": "b200_sxm", "node_pool": "b200"})
    plan = plan.model_copy(update={"placements": (*plan.placements, third)})
    assert {arguments(plan, group)["attention-backend"] for group in plan.placements} == {"TRITON_MLA"}


def test_how_a_model_attends_comes_from_its_shapes() -> None:
    """DeepSeek is latent, gpt-oss has sinks, Gemma's windows slide, Llama attends in full; every model is told."""
    kinds = {name: attention_of(model) for name, model in load_models().items()}
    assert kinds["deepseek-ai/DeepSeek-V3"] == "mla"
    assert kinds["openai/gpt-oss-120b"] == "sinks"
    assert kinds["meta-llama/Llama-3.1-70B-Instruct"] == "full"
    assert set(kinds.values()) == set(KINDS)
    group = pair({}, {}).placements[0]
    assert attention(group) == "full"
    assert attention(group.model_copy(update={"attention": "mla"})) == "mla"
    assert attention(group.model_copy(update={"model": "mine"})) is None
