"""Time the rendering of a plan of many placements, format by format and all together.

`python -m benchmarks manifests [--json] [--placements 1000] [--repeats 3]`

One line per format: CPU seconds, the best of the repeats, files and bytes. The placements are those of the hand-made
plan in turn, pairs and replicas over nodes included, each intent under a name of its own. The last line is the sum over
all formats, rendered in one go.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from pathlib import Path

from planner.manifests import FORMATS, render
from planner.plan import Plan, from_json

PLAN = Path(__file__).parents[1] / "tests" / "plans" / "sample.json"


def main(as_json: bool, arguments: list[str]) -> int:  # noqa: FBT001 - the benchmarks' common form
    """Print one line per format, the whole last."""
    parser = argparse.ArgumentParser(prog="benchmarks manifests", description=__doc__)
    parser.add_argument("--placements", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args(arguments)
    for name in [*FORMATS, None]:
        row = measure(name, chosen.placements, repeats=chosen.repeats)
        shown = json.dumps(row) if as_json else "  ".join(f"{key} {value}" for key, value in row.items())
        print(shown, flush=True)
    return 0


def measure(name: str | None, placements: int, *, repeats: int) -> dict[str, object]:
    """Render in one format, or in all."""
    times, files = [], dict[str, str]()
    for _ in range(repeats):
        plan = many(placements)  # a new plan each time: what was looked up for one is not there for the next
        gc.collect()
        begun = time.process_time()
        files = render(plan, formats=None if name is None else [name])
        times.append(time.process_time() - begun)
    size = sum(len(text.encode()) for text in files.values())
    row = {"format": name or "all", "placements": placements, "cpu_s": round(min(times), 3)}
    return row | {"files": len(files), "megabytes": round(size / 1e6, 2)}


def many(placements: int) -> Plan:
    """The hand-made plan, repeated under other names until it has that many placements."""
    plan = from_json(PLAN.read_text(encoding="utf-8"))
    groups, intents = list(plan.placements), {intent.name: intent for intent in plan.intents}
    made, decided = [], {}
    for number in range(placements):
        turn, group = number // len(groups), groups[number % len(groups)]
        name = f"{group.intent}-{turn}"
        made.append(group.model_copy(update={"intent": name}))
        if group.intent in intents:
            decided[name] = intents[group.intent].model_copy(update={"name": name})
    pairs = {group.intent for group in made if group.role == "prefill"} & {g.intent for g in made if g.role == "decode"}
    whole = tuple(group for group in made if group.role == "both" or group.intent in pairs)
    return plan.model_copy(update={"placements": whole, "intents": tuple(decided.values()), "waves": ()})
