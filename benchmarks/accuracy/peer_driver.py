"""Ask aiconfigurator for TTFT and TPOT of benchmark conditions; run by the Python of its own environment, alone.

Reads a JSON list of conditions from standard input, writes {id: {ttft_ms, tpot_ms, out_tps_gpu} or {reason}} to
standard output. Everything is left at the tool's defaults but what a condition says: model, GPU, parallel sizes,
lengths, requests in flight. A quantized checkpoint is named where the tool knows one, else its quantization modes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import warnings

#: (model, precision) -> (checkpoint that the tool knows, modes given because no such checkpoint is known to it).
CHECKPOINTS = {
    ("meta-llama/Llama-3.1-70B", "fp8"): ("nvidia/Llama-3.1-70B-Instruct-FP8", {}),
    ("meta-llama/Llama-3.1-70B", "fp4"): ("meta-llama/Meta-Llama-3.1-70B", {"gemm_quant_mode": "nvfp4"}),
    ("MiniMaxAI/MiniMax-M2.5", "fp4"): ("nvidia/MiniMax-M2.5-NVFP4", {}),
    ("moonshotai/Kimi-K2.5", "fp4"): ("nvidia/Kimi-K2.5-NVFP4", {}),
}


def estimate(row: dict[str, object]) -> dict[str, object]:
    """One condition's estimate, or why the tool gives none."""
    from aiconfigurator.cli.api import cli_estimate  # noqa: PLC0415 - exists in the tool's environment alone

    checkpoint, modes = CHECKPOINTS.get((row["model"], row["precision"]), (row["model"], {}))
    ranks = row["tp"] * row["dp"]
    experts = max(1, row["ep"])
    try:
        found = cli_estimate(
            checkpoint,
            row["gpu"],
            backend_name="vllm",
            isl=row["isl"],
            osl=row["osl"],
            batch_size=max(1, round(row["concurrency"] / row["dp"])),
            tp_size=row["tp"],
            pp_size=row["pp"],
            attention_dp_size=row["dp"],
            moe_ep_size=experts,
            moe_tp_size=max(1, ranks // experts),
            **modes,
        )
    except Exception as error:  # noqa: BLE001 - whatever the tool raises is its abstention
        return {"reason": f"{type(error).__name__}: {error}"[:300]}
    if getattr(found, "ttft", None) is None or found.tpot is None:
        return {"reason": "no latency in the result"}
    return {"ttft_ms": found.ttft, "tpot_ms": found.tpot, "out_tps_gpu": found.tokens_per_second_per_gpu}


def main() -> None:
    """Answer every condition, in the order given."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    rows = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        answers = {row["id"]: estimate(row) for row in rows}
    json.dump(answers, sys.stdout, sort_keys=True)


if __name__ == "__main__":
    main()
