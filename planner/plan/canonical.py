"""Canonical bytes of a plan: its JSON, its digest and its published JSON Schema.

Keys are sorted, floats are rounded to six significant digits when a plan is sealed (the predictions are not that
exact by far, and the last bits of a float differ between processors), so equal decisions have equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from pydantic import ValidationError

from catalog.errors import BadInput, CorruptRecord
from planner.plan.nouns import Plan

DIGITS = 6
#: The fields that name a plan and are therefore no part of what is hashed.
NAMES = ("serial", "digest")


def rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Round every float inside a JSON value to `DIGITS` significant digits; infinite ones become None."""
    match value:
        case float():
            return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
        case dict():
            return {key: rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [rounded(item) for item in value]
        case _:
            return value


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Compact JSON with sorted keys, UTF-8, newline at the end."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def digest_of(plan: Plan) -> str:
    """Compute the sha256 of the plan's canonical JSON without `serial` and `digest`."""
    return _digest(plan.model_dump(mode="json"))


def _digest(written: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json({key: item for key, item in written.items() if key not in NAMES})).hexdigest()


def seal(plan: Plan) -> Plan:
    """Round the plan's numbers and write its digest into it; sealing twice changes nothing."""
    content = rounded(plan.model_dump(mode="json"))
    plain = Plan.model_validate_json(json.dumps(content | {"digest": ""}))
    return plain.model_copy(update={"digest": digest_of(plain)})


def to_json(plan: Plan) -> str:
    """Write plan.json: sorted keys, two spaces, newline at the end.

    A plan that was read from an older plan.json is written with the fields that it had: its digest is of those.
    """
    written = plan.model_dump(mode="json")
    if plan.digest and plan.digest != _digest(written):
        older = plan.model_dump(mode="json", exclude_unset=True)
        written = older if plan.digest == _digest(older) else written
    return json.dumps(written, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str, *, place: str = "plan.json") -> Plan:
    """Read plan.json and verify its digest.

    Raises:
        BadInput: the text is no plan of this schema version.
        CorruptRecord: the content does not match the digest that it carries.
    """
    try:
        plan = Plan.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(
            f"not a plan: {where or 'the file'}: {first['msg']}",
            place=place,
            mend="give the plan.json of a plans/<serial> folder",
        ) from None
    # over what is written, not over what it is read as: later versions add fields, and an old plan stays valid
    if plan.digest and plan.digest != _digest(json.loads(text)):
        msg = f"{place}: its content does not match its digest {plan.digest[:12]}: it was changed by hand or damaged"
        raise CorruptRecord(msg)
    return plan


def json_schema() -> dict[str, Any]:
    """Publish the JSON Schema (2020-12) of plan.json."""
    schema = Plan.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "fleetplan/plan/v1", **schema}
