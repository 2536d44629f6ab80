"""Laws of forms: what is left empty changes nothing, what is filled in wins, what is wrong the schema refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from catalog.errors import BadInput
from catalog.units import GPU_PRICE, MONEY_RATE, RATE, TIME, parse_quantity
from flows.fleet import read_fleet
from flows.forms import GPUS, IntentForm, Limits, PoolForm, Where, amended

ROOT = Path(__file__).parent.parent
FLEET = yaml.safe_load((ROOT / "examples" / "fleet.yaml").read_text(encoding="utf-8"))
FORMS = {IntentForm: {"name": "chat"}, PoolForm: {"name": "h100-eu"}}


def accepts(form: type[IntentForm | PoolForm], **values: object) -> bool:
    """Whether the schema takes the values, which the browser and the server ask; pydantic must say the same."""
    filled = {**FORMS[form], **values}
    by_schema = jsonschema.Draft202012Validator(form.model_json_schema()).is_valid(filled)
    try:
        form.model_validate_json(json.dumps(filled))
    except ValidationError:
        by_model = False
    else:
        by_model = True
    assert by_schema == by_model
    return by_schema


@pytest.mark.parametrize("name", [intent["name"] for intent in FLEET["intents"]])
def test_an_empty_form_changes_nothing(name: str) -> None:
    """An intent that is only named, and a pool that is only named, stay as the fleet file says."""
    pool = FLEET["cluster"]["pools"][0]["name"]
    assert amended(FLEET, [IntentForm(name=name)], [PoolForm(name=pool)]) == FLEET


def test_what_is_filled_in_wins() -> None:
    """Fields of the form replace those of the file and no others; the file's own value is not touched."""
    before = json.dumps(FLEET)
    form = IntentForm(name="chat", rate="99 /s", slo=Limits(tpot="33 ms"), goal="min_latency", gpus=["h100_sxm"])
    found = amended(FLEET, [form], [PoolForm(name="h100-eu", nodes=2, price="9 USD/GPU/h")])
    row, old = found["intents"][0], FLEET["intents"][0]
    assert row["workload"] == {**old["workload"], "rate": "99 /s"}
    assert row["slo"] == {**old["slo"], "tpot": "33 ms"}
    assert (row["goal"], row["gpus"], row["model"]) == ("min_latency", ["h100_sxm"], old["model"])
    assert found["cluster"]["pools"][0] == {**FLEET["cluster"]["pools"][0], "nodes": 2, "price": "9 USD/GPU/h"}
    assert found["intents"][1:] == FLEET["intents"][1:]
    assert json.dumps(FLEET) == before


@pytest.mark.parametrize("form", [PoolForm(name="h100-eu", nodes=0), PoolForm(name="h100-eu")])
def test_a_zero_is_as_in_the_file(form: PoolForm) -> None:
    """No number of a form means none of a thing: 0 nodes leaves the file's, as 0 of any other field does."""
    assert amended(FLEET, [], [form]) == FLEET


def test_a_new_pool_without_nodes_is_refused() -> None:
    """A pool that the file does not have needs its nodes; what is missing is named with its place."""
    form = PoolForm(name="extra", gpu="h200_sxm", gpus_per_node=8)
    with pytest.raises(BadInput, match=r"pools\[5\].*nodes"):
        read_fleet(ROOT / "examples" / "fleet.yaml", amend=lambda value: amended(value, [], [form]))


def test_a_mean_replaces_quantiles() -> None:
    """A mean length that is filled in takes the place of quantiles, beside which it would be an error."""
    fleet = {"intents": [{"name": "a", "workload": {"prompt": {"quantiles": {0.5: 700}}}}]}
    assert amended(fleet, [IntentForm(name="a", prompt_tokens=9)], [])["intents"][0]["workload"]["prompt"] == {
        "mean": 9
    }


def test_a_new_intent_is_planned_like_any_other() -> None:
    """Another name adds an intent (or a pool) that the fleet reader checks as if it stood in the file."""
    form = IntentForm(name="new", model="Qwen/Qwen3-8B", rate="2 /s", prompt_tokens=300, output_tokens=40)
    pool = PoolForm(name="extra", gpu="h200_sxm", gpus_per_node=8, nodes=1)
    loaded = read_fleet(ROOT / "examples" / "fleet.yaml", amend=lambda value: amended(value, [form], [pool]))
    assert loaded.fleet.intents[-1].name == "new"
    assert loaded.fleet.intents[-1].workload.rate == 2.0
    assert loaded.fleet.cluster.pools[-1].gpus == 8
    assert loaded.digest != read_fleet(ROOT / "examples" / "fleet.yaml").digest


def test_a_new_intent_that_lacks_its_load_is_refused() -> None:
    """What no schema can say is said by the fleet reader, with the place."""
    form = IntentForm(name="new", model="Qwen/Qwen3-8B")
    with pytest.raises(BadInput, match=r"intents\[10\].*workload is missing"):
        read_fleet(ROOT / "examples" / "fleet.yaml", amend=lambda value: amended(value, [form], []))


@pytest.mark.parametrize(
    ("form", "field", "units"),
    [(IntentForm, "rate", RATE), (IntentForm, "budget", MONEY_RATE), (PoolForm, "price", GPU_PRICE)],
)
@given(number=st.floats(min_value=0.001, max_value=1e6), spaces=st.sampled_from(["", " ", "  "]), data=st.data())
def test_every_unit_of_the_catalog_can_be_filled_in(  # noqa: PLR0917 - drawn
    form: type[IntentForm | PoolForm], field: str, units: dict[str, float], number: float, spaces: str, data: Any
) -> None:
    """A number with any unit that fleet.yaml takes is accepted, and read as the same number."""
    unit = data.draw(st.sampled_from(sorted(units)))
    text = f"{number!r}{spaces}{unit}"
    assert accepts(form, **{field: text})
    assert parse_quantity(text, units) == pytest.approx(number * units[unit])


WRONG: list[tuple[type[IntentForm | PoolForm], dict[str, object]]] = [
    (IntentForm, {"rate": "8 apples"}), (IntentForm, {"rate": "8"}), (IntentForm, {"rate": "-8 /s"}),
    (IntentForm, {"rate": "8 /s; rm"}), (IntentForm, {"rate": "8 /s\n9 /s"}), (IntentForm, {"budget": "20 EUR/h"}),
    (IntentForm, {"goal": "cheap"}), (IntentForm, {"prompt_tokens": -1}), (IntentForm, {"prompt_tokens": 1.5}),
    (IntentForm, {"quality": 1.1}), (IntentForm, {"slo": {"ttft": "500"}}), (IntentForm, {"slo": {"tttf": "500 ms"}}),
    (IntentForm, {"name": "../x"}), (IntentForm, {"name": ""}), (IntentForm, {"model": "../../etc/passwd"}),
    (IntentForm, {"modle": "x"}), (IntentForm, {"pools": ["a b"]}), (IntentForm, {"slo": {"attainment": 1.0}}),
    (PoolForm, {"nodes": -1}), (PoolForm, {"gpus_per_node": 73}), (PoolForm, {"price": "2 USD/h"}),
]  # fmt: skip


@pytest.mark.parametrize(("form", "values"), WRONG, ids=str)
def test_wrong_values_are_refused(form: type[IntentForm | PoolForm], values: dict[str, object]) -> None:
    """Schema and model refuse the same values, before any run begins."""
    assert not accepts(form, **values)


@pytest.mark.parametrize(
    "text", ["s3://key:secret@bucket/x", "https://user@host/x", "s3://bucket/x?token=1", "s3://bucket#x", "", "a\nb"]
)
def test_no_credential_can_be_a_parameter(text: str) -> None:
    """A URL with user, password, query or fragment is no place for run data."""
    with pytest.raises(ValidationError):
        TypeAdapter(Where).validate_python(text)


@pytest.mark.parametrize("text", ["var", "/data/run@home/var", "s3://bucket/prefix", "./a b/c"])
def test_places_are_paths_and_urls(text: str) -> None:
    """Folders, also with an @ in their names, and plain URLs are places."""
    assert TypeAdapter(Where).validate_python(text) == text


def test_each_field_says_what_it_means() -> None:
    """Every field of every form has a title and a description for whoever fills it in, and no type is left open."""
    for form in (IntentForm, PoolForm, Limits):
        schema = form.model_json_schema()
        for name, field in schema["properties"].items():
            assert field["title"], name
            assert field["description"], name
            assert "anyOf" not in field, name
        assert schema["additionalProperties"] is False


def test_known_gpus_are_offered() -> None:
    """The GPU types of the catalog are the choices of the form."""
    assert "h100_sxm" in GPUS
    assert PoolForm.model_json_schema()["properties"]["gpu"]["enum"] == ["", *GPUS]
    assert set(TIME) >= {"ms", "s"}
