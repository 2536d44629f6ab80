r"""systemd: one folder per node with one unit per replica, for machines without Kubernetes and without containers.

A unit runs the machine's own `vllm serve`. What the plan must not know stands in one file that a person writes on each
node, `/etc/fleetplan/vllm.env`: `PATH`, where vLLM lies, the token, and for prefill and decode apart its address as
`VLLM_NIXL_SIDE_CHANNEL_HOST`. Nodes, GPUs and ports are those of the compose files. Units of a node share one dynamic
user, for they share the folder that weights and compiled kernels are kept in; a stop is told to the main process alone,
which lets its workers finish what they serve. Words are quoted as systemd.syntax(7) asks: `%` and `$` doubled,
everything else that is special as `\xNN`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from planner.manifests.compose import Part, Router, processes
from planner.manifests.names import comment, header, safe
from planner.manifests.pods import GIB, drain, vendor_of
from planner.plan import Plan

ENVIRONMENT_FILE = "/etc/fleetplan/vllm.env"
TARGET = "fleetplan.target"
#: What `CacheDirectory` makes: a dynamic user has no home, and vLLM, Triton and torch keep what they compile there.
CACHE = "/var/cache/fleetplan"
#: What tells a process which accelerators are its own.
VISIBLE = {"nvidia": "CUDA_VISIBLE_DEVICES", "amd": "HIP_VISIBLE_DEVICES", "intel": "ZE_AFFINITY_MASK"}
_PLAIN = re.compile(r"[A-Za-z0-9_./:=,@+-]+")


def render(plan: Plan) -> dict[str, str]:
    """`systemd/<node>/fleetplan-<replica>.service` and `systemd/<node>/fleetplan.target`."""
    files: dict[str, str] = {}
    units: dict[str, list[str]] = {}
    for part in processes(plan):
        text = router(part) if isinstance(part, Router) else server(plan, part)
        name = f"fleetplan-{part.name}.service"
        files[f"systemd/{safe(part.node)}/{name}"] = header(plan, f"{part.name} on {part.node}") + text
        units.setdefault(part.node, []).append(name)
    return files | {f"systemd/{safe(node)}/{TARGET}": target(plan, node, names) for node, names in units.items()}


def target(plan: Plan, node: str, names: Sequence[str]) -> str:
    """What starts with the node: all of its units, and none that an earlier plan left behind."""
    wants = [("Description", f"fleetplan on {comment(node)}".replace("%", "%%"))]
    wants += [("Wants", name) for name in sorted(names)]
    text = section(Unit=wants, Install=[("WantedBy", "multi-user.target")])
    return header(plan, f"systemctl enable --now {TARGET}") + text


def server(plan: Plan, part: Part) -> str:
    """The unit of one vLLM process."""
    group, vendor = part.group, vendor_of(plan, part.group)
    variables = {"HF_HOME": CACHE, "HOME": CACHE, "VLLM_NO_USAGE_STATS": "1"}
    checks: list[tuple[str, str]] = []
    if vendor in VISIBLE:
        variables[VISIBLE[vendor]] = ",".join(part.devices)
    if vendor == "cpu":
        variables["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, group.kv_cache_memory_bytes // GIB))
    if group.role != "both":
        variables["VLLM_NIXL_SIDE_CHANNEL_PORT"] = str(part.side_channel)
        asked = 'test -n "$VLLM_NIXL_SIDE_CHANNEL_HOST"'
        checks = [("ExecStartPre", command(["/bin/sh", "-c", asked]))]
    more = [("SupplementaryGroups", "render video")] if vendor == "amd" else []
    what = f"{group.intent} {group.role} on {group.gpus_per_replica} x {group.gpu}"
    line = ["/usr/bin/env", "vllm", "serve", *part.line]
    stop = [("TimeoutStopSec", str(drain(plan, group) + 30))]
    return unit(what, line, variables, [*checks, *more, *stop])


def router(part: Router) -> str:
    """The unit of a pair's router: production-stack's `vllm-router`, a package beside vLLM."""
    return unit(part.name, ["/usr/bin/env", "vllm-router", *part.line], {}, [])


def unit(what: str, line: Sequence[str], variables: Mapping[str, str], more: Sequence[tuple[str, str]]) -> str:
    """One service that starts with the node and starts again when it fails."""
    return section(
        Unit=[
            ("Description", comment(what).replace("%", "%%")),
            ("PartOf", TARGET),
            ("Wants", "network-online.target"),
            ("After", "network-online.target"),
        ],
        Service=[
            ("Type", "exec"),
            ("DynamicUser", "yes"),
            ("User", "fleetplan"),
            ("CacheDirectory", "fleetplan"),
            ("NoNewPrivileges", "yes"),
            ("LimitMEMLOCK", "infinity"),
            ("TasksMax", "infinity"),
            *(("Environment", word(f"{name}={value}")) for name, value in sorted(variables.items())),
            ("EnvironmentFile", ENVIRONMENT_FILE),
            *more,
            ("ExecStart", command(line)),
            ("KillMode", "mixed"),
            ("Restart", "on-failure"),
            ("RestartSec", "10"),
        ],
    )


def section(**sections: Sequence[tuple[str, str]]) -> str:
    """The text of a unit file."""
    blocks = (f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in rows) for name, rows in sections.items())
    return "\n".join(blocks)


def command(line: Sequence[str]) -> str:
    """A command line as systemd reads it: `$` doubled, for it would expand variables."""
    return " ".join(word(part).replace("$", "$$") for part in line)


def word(text: str) -> str:
    r"""One word as systemd reads it: plain, or quoted with everything special as the bytes `\xNN`; `%` doubled."""
    if _PLAIN.fullmatch(text):
        return text
    kept = (c if " " <= c <= "~" and c not in "\\\"'" else escaped(c) for c in text)
    return '"' + "".join(kept).replace("%", "%%") + '"'


def escaped(character: str) -> str:
    """The UTF-8 bytes of a character as escapes."""
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
