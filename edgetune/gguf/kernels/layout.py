"""Sizes that the kernels and their callers agree on."""

from __future__ import annotations

LANES = 32
"""Blocks that are worked on side by side. Two 512-bit registers to a vector: the search is a chain of additions in each
lane, and a second, independent chain fills the time that the first one waits. It is also the length of a block."""

SUPER_BLOCK = 256
"""Weights of a block of the K types (QK_K in ggml-common.h)."""

BLOCK = 32
"""Weights of a block of Q8_0 and Q5_0, and of a sub-block of Q4_K and Q5_K."""

SCRATCH_ROWS = 256
"""Rows of LANES float32 that a kernel may write into."""
