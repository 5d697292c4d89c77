"""A GGUF small enough to write, load and decode in a blink: random weights in the types of the extra kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

VOCABULARY_SIZE = 64
CONTEXT_TOKENS = 64
_WIDTH = 256
"""The smallest width that Q4_K's blocks of 256 weights allow."""


def write_tiny_model(path: Path) -> None:
    """Write a Llama of one layer whose matrices are Q4_0 and Q4_K, without a vocabulary. About 280 kB."""
    import gguf

    generator = np.random.default_rng(0)
    kinds = [gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q4_K]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(VOCABULARY_SIZE)
    writer.add_tokenizer_model("no_vocab")
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_rope_dimension_count(_WIDTH // 4)
    writer.add_layer_norm_rms_eps(1e-5)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(_WIDTH, np.float32))
    matrices = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    rows = {"token_embd": VOCABULARY_SIZE, "output": VOCABULARY_SIZE} | {f"blk.0.{name}": _WIDTH for name in matrices}
    for number, (name, count) in enumerate(rows.items()):
        kind = kinds[number % 2]
        block_elements, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        blocks = _random_blocks(generator, count * _WIDTH // block_elements, block_bytes, scales=1 + number % 2)
        writer.add_tensor(f"{name}.weight", blocks.reshape(count, -1), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _random_blocks(generator: np.random.Generator, count: int, size: int, *, scales: int) -> NDArray[np.uint8]:
    """Blocks of random quants behind `scales` small float16 scales: one in Q4_0, two in Q4_K."""
    blocks = generator.integers(0, 256, (count, size), dtype=np.uint8)
    blocks[:, : 2 * scales] = np.full(scales, 1e-3, np.float16).view(np.uint8)
    return blocks
