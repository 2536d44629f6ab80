"""Sharing: several engines of small models on one GPU, memory divided, step times dilated as if all were always busy.

The driver gives processes that share a GPU turns of equal length. With k engines that are all busy each gets 1/k of
the time, less what the turns cost: step times are multiplied by k * SWITCHING at the slow end and in the middle, which
is a bound for neighbours that sleep now and then; the fast end is that of an engine whose neighbours sleep. Memory is
divided by the engines' own limits (`kv_cache_memory_bytes`), so that none can take another's.
"""

from __future__ import annotations

from dataclasses import replace

from catalog.predictors import Predictor

#: What turns cost: an assumption on the safe side, no measurement. Only fleets that ask for shared GPUs depend on it.
SWITCHING = 1.1


def dilation(engines: int) -> float:
    """How many times longer a step takes when `engines` share the GPU and all are busy; 1 for one."""
    return engines * SWITCHING if engines > 1 else 1.0


def dilated(predictor: Predictor, engines: int) -> Predictor:
    """The predictor of an engine that shares its GPU: slower in the middle and at the slow end, not at the fast one."""
    times = dilation(engines)
    if times == 1.0:
        return predictor
    slower = predictor.scaled(decode=times, prefill=times)
    note = f"{engines} engines share the GPU: step times x {times:.3g}, as if all were busy all the time"
    return replace(
        slower,
        decode_interval=(predictor.decode_interval[0] / times, predictor.decode_interval[1]),
        prefill_interval=(predictor.prefill_interval[0] / times, predictor.prefill_interval[1]),
        ttft_interval=(predictor.ttft_ends[0] / times, predictor.ttft_ends[1]),
        notes=(*predictor.notes, note),
    )
