"""The vLLM driver on an engine of ours: what is timed, what fails, and that nothing is left running."""

import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from catalog.fingerprints import FingerprintKey
from probes import vllm_driver
from probes.grid import Grid
from probes.vllm import VllmRunner

PYTHON = os.environ.get("FLEETPLAN_VLLM_PYTHON", str(Path(__file__).parents[1] / ".venv-vllm" / "bin" / "python"))
WORK = {"engine": 0, "kind": "block_decode", "x": 4, "y": 64, "round": 0}
DICE = random.Random(0)  # noqa: S311 - token ids
REQUEST = {"clock": "wall", "steps": 5, "prefills": 3}


class _Engine:
    """Prefills two requests a step, then decodes all; a clock of its own counts 10 s a prefill and 1 s a token."""

    def __init__(self):
        self.waiting, self.running, self.now, self.batches = [], [], 0.0, []
        self.model_config = SimpleNamespace(get_vocab_size=lambda: 100)
        scheduler = SimpleNamespace(waiting=self.waiting, running=self.running)
        self.engine_core = SimpleNamespace(engine_core=SimpleNamespace(scheduler=scheduler))

    def add(self, engine, tokens, output):
        assert engine is self
        self.waiting.append(SimpleNamespace(num_prompt_tokens=len(tokens), num_computed_tokens=0, left=output))

    def step(self):
        taken, self.waiting[:] = self.waiting[:2], self.waiting[2:]
        self.now += 10.0 * len(taken) + len(self.running)
        self.batches.append((len(taken), len(self.running)))
        self.running.extend(taken)
        for request in self.running:
            request.num_computed_tokens = request.num_prompt_tokens
            request.left -= 1
        self.running[:] = [request for request in self.running if request.left > 0]

    def has_unfinished_requests(self):
        return bool(self.waiting or self.running)


@pytest.fixture
def engine(monkeypatch):
    """An engine whose clock the driver reads."""
    made = _Engine()
    monkeypatch.setattr(vllm_driver, "_add", made.add)
    monkeypatch.setitem(vllm_driver.CLOCKS, "wall", lambda: made.now)
    return made


def test_decode_steps_hold_the_whole_batch_and_no_prefill(engine):
    """Timed steps are those in which all four sequences decode and none prefills: 4 s each."""
    found = vllm_driver._measured(engine, WORK, REQUEST, DICE)
    assert found == {"time_s": 4.0, "least_s": 4.0, "n": 5}
    assert not engine.has_unfinished_requests()


def test_a_prefill_is_one_step(engine):
    """A prompt's step is timed alone: 10 s, three times."""
    found = vllm_driver._measured(engine, WORK | {"kind": "block_prefill"}, REQUEST, DICE)
    assert found == {"time_s": 10.0, "least_s": 10.0, "n": 3}
    assert not engine.has_unfinished_requests()


def test_what_the_engine_refuses_is_a_failure(engine, monkeypatch):
    """An error of the engine becomes the point's failure, in its own words."""

    def refuses(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(vllm_driver, "_add", refuses)
    found = vllm_driver._measured(engine, WORK, REQUEST, DICE)
    assert found == {"failure": "RuntimeError: out of memory"}


def test_prompts_are_plain_tokens(engine):
    """Token ids lie within the vocabulary and above the special ones."""
    tokens = vllm_driver._prompt(engine, DICE, 500)
    assert len(tokens) == 500
    assert {3, 99} >= {min(tokens), max(tokens)}


@pytest.mark.vllm
@pytest.mark.skipif(not Path(PYTHON).exists(), reason="no vLLM: make test-vllm, or FLEETPLAN_VLLM_PYTHON")
def test_a_real_engine_is_timed():
    """A tiny model's steps are timed on a real vLLM: every size has a base and a block."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "intermediate_size": 256,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 512,
        "max_position_embeddings": 512, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
        "hidden_act": "silu", "rope_theta": 10000.0,
    }  # fmt: skip
    runner = VllmRunner(
        python=PYTHON, config=config, together=True, clock="cpu", rounds=1,
        sizes=Grid(tokens=(1,), sequences=(1,), decode=((1, 32), (4, 32)), prefill=((32, 0),)),
        engine={"dtype": "bfloat16", "max_model_len": 256, "max_num_seqs": 8, "max_num_batched_tokens": 256,
                "enforce_eager": True},
        environment={"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    key = FingerprintKey(
        model="tiny", model_digest="", gpu="cpu", tp=1, quantization="bf16", kv_dtype="bf16", engine_version="0.32.0",
        runner="vllm",
    )  # fmt: skip
    found = runner.run(key)
    assert found.failures == {}
    assert found.points.height == 6
