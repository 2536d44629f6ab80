"""Grids of a `Predictor`'s tables: dense where kernels have stairs, wide enough for every plan."""

from __future__ import annotations

import numpy as np

from catalog.predictors import Floats


def _axis(*sizes: int) -> Floats:
    return np.array(sorted(set(sizes)), dtype=float)


#: Both sides of a stair of the measured GEMMs (m = 16|17, 128|129, ...), then powers of two and halves between.
TOKENS = _axis(
    *range(1, 18), 24, 32, 33, 40, 48, 49, 56, 64, 65, 80, 81, 96, 97, 112, 113, 128, 129, 144, 160, 161, 176, 192, 193,
    208, 224, 225, 240, 256, 257, 320, 384, 448, 512, 513, 640, 768, 769, 896, 1024, 1025, 1280, 1281, 1536, 1537, 1792,
    2048, 2049, 2304, 2560, 2816, 3072, 3584, 4096, 4097, 5120, 6144, 7168, 8192, 10240, 12288, 14336, 16384, 24576,
    32768,
)  # fmt: skip
SEQUENCES = _axis(1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
BATCH = _axis(1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
CONTEXT = _axis(1, 16, 64, 128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768,
                49152, 65536, 98304, 131072)  # fmt: skip
CHUNK = _axis(1, 16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1280, 1536, 2048, 2560, 3072, 4096, 5120, 6144, 8192,
              10240, 12288, 16384, 24576, 32768)  # fmt: skip
PRIOR = _axis(0, 256, 512, 1024, 2048, 4096, 8192, 12288, 16384, 24576, 32768, 65536, 131072)
