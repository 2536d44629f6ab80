"""Laws of the last good load: of the same service, readable, of an earlier night; what a form states goes over it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from fake_prometheus import Vllm, serving
from test_observe import DAY_S, HOUR_S, NOW, fleet, hasty

from catalog.errors import BadInput
from catalog.store import Store
from catalog.store.records import key_digest
from flows.fleet import read_fleet
from flows.forms import IntentForm, amended
from flows.observe import last_good, last_load
from flows.observe.good import key_of
from flows.observe.stage import sight
from planner.workload import Scraped, Workload
from planner.workload.observed import peak


def test_other_labels_are_another_service(tmp_path: Path) -> None:
    """A last good load is that of the same selection: a service that was renamed starts anew."""
    store = Store(tmp_path / "var")
    with serving(Vllm()) as fake:
        loaded = fleet(tmp_path, fake.url)
        sight(loaded, store, at_s=NOW, client=hasty)
    chat = loaded.fleet.intents[0]
    other = chat.model_copy(update={"workload": Workload(prometheus=Scraped(select={"model_name": "other"}))})
    assert last_good(chat, store) is not None
    assert last_good(other, store) is None


def test_a_damaged_record_gives_way_to_the_one_before(tmp_path: Path) -> None:
    """A record that was changed on disk is passed over for the night before it."""
    store = Store(tmp_path / "var")
    with serving(Vllm()) as fake:
        loaded = fleet(tmp_path, fake.url)
        for day in (0, 1):
            fake.answer = Vllm(rate=4.0 + day)
            sight(loaded, store, at_s=NOW + day * DAY_S, client=hasty)
    chat = loaded.fleet.intents[0]
    newest = max(name for name in store.names("observed") if name.key == key_digest(key_of(chat)))
    (tmp_path / "var" / str(newest)).write_text("{}")
    good = last_good(chat, Store(tmp_path / "var"))
    assert good is not None
    assert good.at_hour == NOW // HOUR_S


def test_a_load_that_a_form_states_is_not_observed_over(tmp_path: Path) -> None:
    """A rate that a person fills in for a watched service is planned, with the lengths that were last observed."""
    store = Store(tmp_path / "var")
    with serving(Vllm()) as fake:
        loaded = fleet(tmp_path, fake.url)
        before = sight(loaded, store, at_s=NOW, client=hasty).services["chat"].workload
        amend = partial(amended, intents=[IntentForm(name="chat", rate="9 /s")], pools=[],
                        last=partial(last_load, store=store))  # fmt: skip
        found = sight(read_fleet(tmp_path / "fleet.yaml", amend=amend), store, at_s=NOW, client=hasty)
    assert before is not None
    chat = found.loaded.fleet.intents[0].workload
    assert "chat" not in found.services
    assert found.services["known"].source == "observed"
    assert (chat.rate, chat.prompt, chat.output) == (9.0, before.prompt, before.output)
    with pytest.raises(BadInput, match="workload needs rate, prompt and output"):
        read_fleet(tmp_path / "fleet.yaml", amend=partial(amend, last=lambda _: {}))


def test_readings_of_one_night_do_not_add_up(tmp_path: Path) -> None:
    """A thousandfold load, read twice a night, moves the planned peak by the bound once a night."""
    store = Store(tmp_path / "var")
    with serving(Vllm()) as fake:
        loaded = fleet(tmp_path, fake.url)
        before = sight(loaded, store, at_s=NOW, client=hasty).services["chat"].workload
        fake.answer = Vllm(rate=4000.0)
        peaks = []
        for hours in (23, 24, 47, 48):
            seen = sight(loaded, store, at_s=NOW + hours * HOUR_S, client=hasty).services["chat"].workload
            assert seen is not None
            peaks.append(peak(seen))
    assert before is not None
    assert [found / peak(before) for found in peaks] == pytest.approx([4.0, 4.0, 16.0, 16.0], rel=0.02)
