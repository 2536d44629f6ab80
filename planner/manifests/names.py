"""Names, labels, annotations and YAML that Kubernetes and file systems accept, whatever the names outside are.

Names from outside never become paths or object names unchecked: `safe` keeps what is a valid RFC 1123 label already
and otherwise cuts it and appends a hash of the original, so that different names stay different.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from planner.plan import Plan, ReplicaGroup

DOMAIN = "fleetplan.io"
#: RFC 1123 labels have 63 characters at most; 11 are left for what Kubernetes and we append (`-prefill`, `-0`).
LABEL_LENGTH = 52
VALUE_LENGTH = 63
_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Plain(_DUMPER):  # type: ignore[misc]
    """PyYAML's safe dumper, which remembers what a scalar reads back as: keys and words recur by the thousand."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:  # noqa: ANN401 - PyYAML's signature
        if kind is not yaml.ScalarNode:
            return super().resolve(kind, value, implicit)
        return _resolved(value, tuple(implicit))


_SAFE = yaml.SafeDumper(io.StringIO())


@functools.lru_cache(maxsize=65536)
def _resolved(value: str, implicit: tuple[bool, bool]) -> str:
    return str(_SAFE.resolve(yaml.ScalarNode, value, implicit))  # type: ignore[no-untyped-call]


def _node(value: Any) -> yaml.Node:  # noqa: ANN401 - any JSON value
    """The value as YAML's nodes, block style; shared parts are written out in full, for anchors confuse readers."""
    match value:
        case str():
            return yaml.ScalarNode("tag:yaml.org,2002:str", value)
        case dict():
            pairs = [(_node(key), _node(item)) for key, item in sorted(value.items())]
            return yaml.MappingNode("tag:yaml.org,2002:map", pairs, flow_style=not pairs)
        case list() | tuple():
            return yaml.SequenceNode("tag:yaml.org,2002:seq", list(map(_node, value)), flow_style=not value)
        case _:
            return _SAFE.represent_data(value)


def dump(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Write YAML that reads back as the same value: sorted keys, strings quoted where needed."""
    return str(yaml.serialize(_node(value), Dumper=_Plain, allow_unicode=False, width=4096))


def dump_all(values: Sequence[Any]) -> str:
    """Write several YAML documents."""
    return "".join("---\n" + dump(value) for value in values)


def short_hash(text: str) -> str:
    """Eight hexadecimal characters of the sha256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def safe(name: str, length: int = LABEL_LENGTH) -> str:
    """Make an RFC 1123 label: the name itself where it is one, else its letters and a hash of the original."""
    if len(name) <= length and _LABEL.fullmatch(name):
        return name
    letters = re.sub(r"[^a-z0-9]+", "-", name.lower())[: length - 9].strip("-")
    return f"{letters if letters[:1].isalpha() else 'x' + letters}"[: length - 9].strip("-") + "-" + short_hash(name)


def label_value(text: str) -> str:
    """Make a label value: the text itself where it is one, else its letters and a hash of the original."""
    if len(text) <= VALUE_LENGTH and (not text or _VALUE.fullmatch(text)):
        return text
    letters = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[: VALUE_LENGTH - 9].strip("-._")
    return f"{letters}-{short_hash(text)}".lstrip("-")


def identity(group: ReplicaGroup) -> str:
    """What tells a group from the other groups of its intent and role; counts and nodes do not."""
    same = group.model_dump(exclude={"replicas", "nodes", "max_num_queued_tokens", "overrides", "windows", "attention"})
    return json.dumps(same, sort_keys=True)


def group_names(plan: Plan) -> tuple[str, ...]:
    """Name each replica group, in the plan's order: the intent, its role where there are two, a hash where it must."""
    bases = [group.intent if group.role == "both" else f"{group.intent}-{group.role}" for group in plan.placements]
    made = [safe(base) for base in bases]
    shared = {name for name, count in Counter(made).items() if count > 1}
    return tuple(
        safe(name, LABEL_LENGTH - 9) + "-" + short_hash(identity(group)) if name in shared else name
        for name, group in zip(made, plan.placements, strict=True)
    )


def labels(group: ReplicaGroup, name: str) -> dict[str, str]:
    """Labels that select one group; with those that llm-d's pools and routers look for."""
    return {
        "app.kubernetes.io/name": "vllm",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/managed-by": "fleetplan",
        f"{DOMAIN}/intent": label_value(group.intent),
        f"{DOMAIN}/role": group.role,
        "llm-d.ai/inference-serving": "true",
        "llm-d.ai/model": label_value(group.model.rsplit("/", 1)[-1]),
        "llm-d.ai/role": group.role,
        "llm-d.ai/engine-type": "vllm",
        "llm-d.ai/accelerator-variant": label_value(group.gpu),
    }


def origin(plan: Plan) -> dict[str, str]:
    """What every object states of where it comes from; on objects alone, never on pods: those would restart."""
    return {
        f"{DOMAIN}/plan-digest": plan.digest,
        f"{DOMAIN}/fleet-digest": plan.fleet_digest,
        f"{DOMAIN}/vllm-version": plan.vllm_version,
        f"{DOMAIN}/image": plan.image,
    }


def header(plan: Plan, what: str) -> str:
    """Comment lines that open a file which no annotation can mark."""
    lines = [what, *(f"{key}: {value}" for key, value in sorted(origin(plan).items()))]
    return "".join(f"# {comment(line)}\n" for line in lines)


def comment(text: str) -> str:
    """Text that stays one line of a comment: printable ASCII, anything else as its escape."""
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in " ".join(text.split()))


def merged(base: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings, the last one wins; None removes a key."""
    result = dict(base)
    for other in others:
        result |= other
    return {key: value for key, value in result.items() if value is not None}
