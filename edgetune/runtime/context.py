"""A llama.cpp context whose results do not depend on how what it reads is cut."""

from __future__ import annotations

from typing import Any

from edgetune.errors import ModelError
from edgetune.runtime import native


def create_context(
    model: Any, *, context_tokens: int, batch_tokens: int, outputs: int, sequences: int, threads: int
) -> Any:
    """A llama_context pointer whose cache is shared by up to `sequences` sequences; free it with llama_free.

    At most `outputs` tokens of one batch can have logits, which bounds the memory set aside for them, and there are at
    least as many of them as sequences. Raises ModelError, for instance when the cache does not fit into memory.
    """
    llama_cpp = native.open_library()
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = context_tokens
    parameters.n_batch = batch_tokens
    parameters.n_ubatch = batch_tokens
    parameters.n_outputs_max = outputs
    parameters.n_seq_max = sequences
    parameters.kv_unified = True
    parameters.n_threads = threads
    parameters.n_threads_batch = threads
    parameters.no_perf = True
    # On the CPU, flash attention sums in half precision, and batches of 64 tokens and more in another order than
    # smaller ones: the same text read in other batches gave log-probabilities that differed by up to 0.5 nats.
    parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, parameters)
    if not context:
        raise ModelError(
            f"no context of {context_tokens} tokens can be made ({native.last_error()})",
            remedy="ask for a smaller context",
        )
    return context


def attention_lanes() -> int:
    """Over so many cells of the cache, one by one, llama.cpp deals out the terms of a sum, and adds up last.

    Texts at places of the cache that differ by a multiple of this get the same bits.
    """
    llama_cpp = native.open_library()
    return 16 if b"AVX512 = 1" in llama_cpp.llama_print_system_info() else 8
