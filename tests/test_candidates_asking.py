"""Asking: how long a model's context must be for an intent, as vLLM cuts answers and refuses prompts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hand_world import MODEL, intent

from planner.candidates.asking import needed_length
from planner.workload import realize

CONTEXT = MODEL.max_position_embeddings
LOAD = realize(intent().workload, n=1000)


@pytest.mark.parametrize(
    ("prompts", "output", "expected"),
    [(0, 100, 1280), (0, CONTEXT, CONTEXT), (10, 100, CONTEXT), (11, 100, CONTEXT + 256)],
)
def test_answers_are_cut_and_a_few_prompts_refused(prompts: int, output: int, expected: int) -> None:
    """Longest request in steps of 256; answers beyond the context end there, of prompts 1 % may be refused."""
    prompt, outputs = np.full(1000, 1000), np.full(1000, 100)
    prompt[:prompts], outputs[:500] = CONTEXT, output
    load = replace(LOAD, prompt=prompt, output=outputs)
    assert needed_length(intent(), MODEL, load) == expected
    assert needed_length(intent(max_model_len=2048), MODEL, load) == 2048
