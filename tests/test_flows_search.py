"""The stage search: what it hands to the search of strategies."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hand_world import ALONE, GPUS, MODEL, intent

import flows.search
from flows.search import Facts, refusals, search
from flows.steps import TELL
from planner.queueing import rules_for
from planner.workload import realize

NOBODY = SimpleNamespace(of=lambda _: None)
"""Predictors that nobody asks."""


def facts_of(version: str) -> Facts:
    """Facts of a fleet with one intent that runs a vLLM version."""
    wish = intent()
    pools = tuple(pool.model_copy(update={"price": 2.0}) for pool in ALONE.pools)
    fleet = SimpleNamespace(vllm_version=version, intents=(wish,), cluster=ALONE.model_copy(update={"pools": pools}))
    loaded = SimpleNamespace(fleet=fleet, models={wish.model: MODEL})
    return Facts(
        loaded=loaded, gpus=GPUS, requests={wish.name: realize(wish.workload, n=64)}, constants=None, fingerprints=None,
        measured_by="reference",
    )  # fmt: skip


@pytest.mark.parametrize("version", ["0.12.0", "0.18.0", "0.32.0"])
def test_strategies_are_judged_by_the_version_that_is_emitted(version, monkeypatch):
    """Search, relaxations and the naive baseline all take the scheduler's rules of the fleet's vLLM version."""
    seen = {}
    for name, answer in (("search_strategies", ((), ())), ("nearest_relaxations", ()), ("naive_cost_of", None)):

        def told(_, *, name=name, answer=answer, judge, **__):
            seen[name] = judge.rules
            return answer

        monkeypatch.setattr(flows.search, name, told)
    search(intent(), facts_of(version), NOBODY)
    assert seen == dict.fromkeys(("search_strategies", "nearest_relaxations", "naive_cost_of"), rules_for(version))


def test_progress_reaches_whoever_shows_the_step(monkeypatch):
    """What listens to the step at work is handed to the search."""
    heard = []
    monkeypatch.setattr(flows.search, "nearest_relaxations", lambda *_, **__: ())
    monkeypatch.setattr(flows.search, "naive_cost_of", lambda *_, **__: None)

    def searched(_, *, progress, **__):
        progress("screened", 1, 2)
        return (), ()

    monkeypatch.setattr(flows.search, "search_strategies", searched)
    before = TELL.set(lambda *said: heard.append(said))
    search(intent(), facts_of("0.32.0"), NOBODY)
    TELL.reset(before)
    assert heard == [("screened", 1, 2)]


def test_what_vllm_refuses_or_cuts_is_said_with_its_count():
    """Answers that never came, prompts beyond max_model_len and answers that end there: one line each; else none."""
    facts, wish = facts_of("0.32.0"), intent(max_model_len=1000)
    assert refusals(facts) == ()
    facts.loaded.fleet.intents = (wish,)
    load = facts.requests[wish.name]
    prompt, output = np.full(64, 100), np.full(64, 10)
    prompt[:3], output[3:5] = (1000, 1001, 2000), 950
    facts.requests = {wish.name: replace(load, prompt=prompt, output=output, silent=7)}
    silent, longer, full, cut = refusals(facts)
    assert "7 requests of its trace without an output token" in silent
    assert "2 of 64 requests: the prompt is longer than max_model_len 1000" in longer
    assert "1 of 64 requests: the prompt fills max_model_len 1000" in full
    assert cut.endswith("2 of 64 answers end at max_model_len 1,000")
