"""Sizes that kernels and their callers share."""

from __future__ import annotations

LANES = 32
"""Blocks that are processed side by side, and also the length of a block. A vector fills two 512-bit registers: each
lane of the search is a chain of additions, and a second, independent chain uses the time in which the first one
waits."""

SUPER_BLOCK = 256
"""Weights of a block of the K types (QK_K in ggml-common.h)."""

BLOCK = 32
"""Weights of a block of Q8_0 and Q5_0, and of a sub-block of Q4_K and Q5_K."""

SCRATCH_ROWS = 256
"""Rows of LANES float32 in a kernel's scratch memory."""
