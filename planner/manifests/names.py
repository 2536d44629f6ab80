"""Names, labels, annotations and YAML that Kubernetes and file systems accept, whatever the names outside are.

Names from outside never become paths or object names unchecked: `safe` keeps what is a valid RFC 1123 label already
and otherwise cuts it and appends a hash of the original, so that different names stay different.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from planner.manifests.index import Same
from planner.plan import Plan, ReplicaGroup

DOMAIN = "fleetplan.io"
#: RFC 1123 labels have 63 characters at most; 11 are left for what Kubernetes and we append (`-prefill`, `-0`).
LABEL_LENGTH = 52
VALUE_LENGTH = 63
_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
#: YAML reads no longer key on one line than 1,024 characters.
_KEY_LENGTH = 1000


def dump(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Write YAML that reads back as the same value: block style, sorted keys, strings quoted where needed.

    PyYAML writes the scalars, each once; the structure around them is written here, for plans repeat themselves by the
    megabyte.
    """
    lines: list[str] = []
    if _nested(value):
        _write(value, "", lines)
    else:
        lines.append(_leaf(value))
    return "\n".join(lines) + "\n"


def _nested(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    return isinstance(value, (dict, list, tuple)) and bool(value)


def _leaf(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, (dict, list, tuple)):
        return "{}" if isinstance(value, dict) else "[]"
    return _scalar(value)


@functools.lru_cache(maxsize=16384, typed=True)
def _scalar(value: Any) -> str:  # noqa: ANN401 - any scalar of JSON
    """A scalar on one line, as PyYAML writes it."""
    text = str(yaml.dump({"k": value}, Dumper=_DUMPER, allow_unicode=False, width=-1))[3:-1]
    if "\n" not in text:
        return text
    return str(yaml.dump([value], Dumper=_DUMPER, default_style='"', allow_unicode=False, width=-1))[2:-1]


def _write(value: Any, pad: str, lines: list[str]) -> None:  # noqa: ANN401 - any JSON value
    """Append a mapping's or a sequence's lines."""
    deeper = pad + "  "
    if not isinstance(value, dict):
        for item in value:
            first = len(lines)
            if _nested(item):
                _write(item, deeper, lines)
                lines[first] = f"{pad}- {lines[first][len(deeper) :]}"
            else:
                lines.append(f"{pad}- {_leaf(item)}")
        return
    for key, item in sorted(value.items()):
        name = _scalar(key)
        long = len(name) > _KEY_LENGTH
        head = f"{pad}? {name}\n{pad}:" if long else f"{pad}{name}:"
        if _nested(item):
            lines.append(head)
            _write(item, deeper if long or isinstance(item, dict) else pad, lines)
        else:
            lines.append(f"{head} {_leaf(item)}")


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
    return _group_names(Same(plan))


@functools.lru_cache(maxsize=2)
def _group_names(same: Same) -> tuple[str, ...]:
    plan = same.plan
    bases = [group.intent if group.role == "both" else f"{group.intent}-{group.role}" for group in plan.placements]
    made = [safe(base) for base in bases]
    shared = {name for name, count in Counter(made).items() if count > 1}
    return tuple(
        safe(name, LABEL_LENGTH - 9) + "-" + short_hash(identity(group)) if name in shared else name
        for name, group in zip(made, plan.placements, strict=True)
    )


def beside(plan: Plan, base: str) -> str:
    """Name something that is no group: as wished, with a hash where a group is called so already."""
    return base if base not in group_names(plan) else safe(f"{base}-{short_hash(base)}", VALUE_LENGTH)


def labels(group: ReplicaGroup, name: str) -> dict[str, str]:
    """Labels that select one group; with those that llm-d's pools and production-stack's router look for."""
    ends = {"model": group.role} if group.role != "both" else {}
    return ends | {
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
    line = " ".join(text.split())
    if line.isascii() and line.isprintable():
        return line
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in line)


def merged(base: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings, the last one wins; None removes a key."""
    result = dict(base)
    for other in others:
        result |= other
    return {key: value for key, value in result.items() if value is not None}
