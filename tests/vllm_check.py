"""Ask a real vLLM whether it accepts argument sets; runs with the Python of the vLLM environment.

Reads a JSON file of `[{"config": config.json, "arguments": {flag: value}, "line": [...]}, ...]` and writes a JSON list
to the second path: None for each set that was accepted, else vLLM's own words. Both roads in are taken: the `--config`
YAML and the command line must parse to the same arguments, and `create_engine_config` must agree to them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml


def accepted(case: dict[str, Any], parser: Any, folder: Path) -> str | None:
    """None, or why vLLM refuses one set."""
    from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415 - vLLM's environment alone
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args  # noqa: PLC0415 - as above
    from vllm.usage.usage_lib import UsageContext  # noqa: PLC0415 - as above

    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps(case["config"]))
    settings = folder / "settings.yaml"
    settings.write_text(yaml.safe_dump(case["arguments"] | {"model": str(model)}, sort_keys=True))
    try:
        arguments = parser.parse_args(["--config", str(settings)])
        line = parser.parse_args(["--model", str(model), *case["line"][1:]])
        # kv_transfer_config draws a random engine id when it is parsed
        told_apart = ("model_tag", "config", "kv_transfer_config")
        differ = [k for k, v in vars(line).items() if k not in told_apart and v != vars(arguments)[k]]
        if differ:
            return f"the file and the command line differ in {differ}"
        validate_parsed_serve_args(arguments)
        engine = AsyncEngineArgs.from_cli_args(arguments)
        engine.load_format = "dummy"
        engine.skip_tokenizer_init = True
        engine.create_engine_config(UsageContext.OPENAI_API_SERVER)
    except SystemExit:
        return "the parser refuses it"
    except Exception as error:  # noqa: BLE001 - whatever vLLM raises is its answer
        return f"{type(error).__name__}: {error}"
    return None


def main(cases: str, answers: str) -> None:
    """Check every case of a file."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser  # noqa: PLC0415 - as above
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415 - as above

    parser = make_arg_parser(FlexibleArgumentParser())
    with tempfile.TemporaryDirectory() as folder:
        told = [accepted(case, parser, Path(folder)) for case in json.loads(Path(cases).read_text())]
    Path(answers).write_text(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
