"""A workload's lengths reduced to what the closed form needs: moments, and bins along the prompt and the output."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog.errors import BadInput
from planner.workload import Requests, admit

Floats = NDArray[np.float64]

#: Bins by share of requests, finer where a P90 and a P99 are decided.
EDGES = np.array([0, .1, .2, .3, .4, .5, .6, .7, .8, .85, .9, .93, .95, .97, .98, .99, .995, 1.0])  # fmt: skip


class Summary(NamedTuple):
    """Lengths in tokens. `d` = output - 1 decode iterations; `v` = d·p + d(d+1)/2 tokens read while decoding."""

    share: Floats  # (bins,) of requests
    new: Floats  # (bins,) prompt tokens to compute, mean
    cached: Floats  # (bins,) prompt tokens that are there
    prompt: Floats  # (bins,)
    prompt2: Floats  # (bins,) mean of prompt²
    read_prompt: Floats  # (bins,) mean of v·prompt
    decodes: Floats  # (bins,) mean d of requests with d > 0, by d
    decode_share: Floats  # (bins,)
    prompt_of: Floats  # (bins,) mean prompt tokens to compute of the requests in each bin of d
    d1: float
    d2: float
    v1: float
    v2: float
    single: float  # share of requests without a decode iteration
    taken: float = 1.0  # share of requests that vLLM does not refuse


@lru_cache(maxsize=64)
def summarize(requests: Requests, block_size: int = 16, max_model_len: int = 0) -> Summary:
    """Reduce a workload as an engine with these limits takes it (see `planner.workload.admission`).

    Raises BadInput when no request fits.
    """
    longest = max_model_len or int(requests.prompt.max() + requests.output.max()) + 1
    admission = admit(requests.prompt, requests.output, longest)
    taken = admission.taken
    p = requests.prompt[taken].astype(np.float64)
    if len(p) == 0:
        what = f"vLLM would refuse every request: {next(iter(admission.reasons), 'there is none')}"
        raise BadInput(what, mend="raise max_model_len, or give requests that ask for output")
    d = np.asarray(admission.output[taken] - 1, dtype=np.float64)
    cached = np.minimum(requests.cached[taken], p - 1) // block_size * block_size
    return _summary(p, d, cached)._replace(taken=len(p) / len(taken))


def remote(summary: Summary) -> Summary:
    """The same requests as a decode engine takes them: all KV but the last token's comes over the network."""
    return summary._replace(
        new=np.ones_like(summary.new), cached=summary.prompt - 1.0, prompt_of=np.ones_like(summary.prompt_of)
    )


def first_token_only(summary: Summary) -> Summary:
    """The same requests as a prefill engine takes them: one output token."""
    return summary._replace(d1=0.0, d2=0.0, v1=0.0, v2=0.0, single=1.0, read_prompt=np.zeros_like(summary.read_prompt))


def _summary(p: Floats, d: Floats, cached: Floats) -> Summary:
    new, v = p - cached, d * p + d * (d + 1) / 2
    order = np.argsort(new, kind="stable")
    spans, share = _spans(len(p))
    by_new = [order[low:high] for low, high in spans]

    def means(values: Floats) -> Floats:
        return np.array([values[rows].mean() for rows in by_new])

    decoding = np.flatnonzero(d > 0)
    if len(decoding) == 0:
        decoding = np.arange(len(d))
    by_d = decoding[np.argsort(d[decoding], kind="stable")]
    d_spans, d_share = _spans(len(by_d))
    return Summary(
        share=share, new=means(new), cached=means(cached), prompt=means(p), prompt2=means(p * p), read_prompt=means(v
        * p), decodes=np.array([max(d[by_d[low:high]].mean(), 1.0) for low, high in d_spans]), decode_share=d_share,
        prompt_of=np.array([new[by_d[low:high]].mean() for low, high in d_spans]), d1=float(d.mean()), d2=float((d *
        d).mean()), v1=float(v.mean()), v2=float((v * v).mean()), single=float(np.mean(d == 0)),
    )  # fmt: skip


def _spans(n: int) -> tuple[list[tuple[int, int]], Floats]:
    """Rows of each bin (at least one, also of a small sample), and the shares of requests that the bins stand for."""
    marks = (EDGES * n).astype(np.int64)
    spans = [(min(int(low), n - 1), max(int(high), int(low) + 1)) for low, high in pairwise(marks)]
    return spans, np.diff(EDGES)
