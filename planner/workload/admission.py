"""`Admission`: what vLLM does with a request's lengths: an error, an answer cut at max_model_len, or all of it.

As of vLLM 0.32, where the client asks for as many tokens as the request's output has:

    max_tokens < 1              an error (sampling_params.py, `SamplingParams._verify_args`)
    prompt > max_model_len      an error (renderers/params.py, `TokenizeParams._token_len_check`)
    prompt = max_model_len      an error, no output token fits (v1/engine/input_processor.py, `_validate_prompt_len`)
    prompt + output beyond it   max_tokens becomes max_model_len - prompt (entrypoints/serve/utils/api_utils.py,
                                `get_max_tokens`): the answer ends there with finish reason `length`

A max_tokens above max_model_len itself would be an error as well, but no log of answers says that a client asked for
it: such an answer is cut like any other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]

#: Entries of `Admission.verdict`.
TAKEN, SILENT, LONG, FULL = 0, 1, 2, 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Admission:
    """What becomes of each request by its lengths alone."""

    max_model_len: int
    verdict: NDArray[np.int8]
    """(n,) TAKEN, or why vLLM answers with an error."""
    output: Tokens
    """(n,) as generated: at most what max_model_len leaves, 0 for a refused request."""
    cut: int
    """Answers that end at max_model_len."""

    @property
    def taken(self) -> NDArray[np.bool_]:
        """(n,) False for those that vLLM refuses."""
        return np.equal(self.verdict, TAKEN)

    @property
    def refused(self) -> int:
        """Requests that vLLM answers with an error."""
        return int(np.count_nonzero(self.verdict))

    def reason(self, index: int) -> str | None:
        """Why vLLM answers a request with an error; None where it serves it."""
        return self._words.get(int(self.verdict[index]))

    @property
    def reasons(self) -> dict[str, int]:
        """Why requests are refused, with how many of them."""
        counts = np.bincount(self.verdict, minlength=FULL + 1)
        return {said: int(counts[verdict]) for verdict, said in self._words.items() if counts[verdict]}

    @property
    def _words(self) -> dict[int, str]:
        return {
            SILENT: "no output tokens (a log says so where the client left or an error came): max_tokens is at least 1",
            LONG: f"the prompt is longer than max_model_len {self.max_model_len}",
            FULL: f"the prompt fills max_model_len {self.max_model_len}: no output token fits",
        }


def admit(prompt: Tokens, output: Tokens, max_model_len: int) -> Admission:
    """Apply vLLM's rules to requests of these lengths, (n,) each, at least 1 and at least 0."""
    verdict = np.zeros(len(prompt), np.int8)
    verdict[prompt == max_model_len] = FULL
    verdict[prompt > max_model_len] = LONG
    verdict[output < 1] = SILENT
    room = max_model_len - prompt
    served = verdict == TAKEN
    generated = np.where(served, np.minimum(output, room), 0).astype(np.int64)
    return Admission(
        max_model_len=max_model_len,
        verdict=verdict,
        output=generated,
        cut=int(np.count_nonzero(served & (output > room))),
    )
