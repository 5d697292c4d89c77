"""GGUFs of random weights, small enough to write, load and decode in a blink: to try kernels out, and to time them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

VOCABULARY_SIZE = 64
_SCALES = {"Q4_0": 1, "Q4_K": 2, "Q8_0": 1}
"""So many float16 scales begin a block of each type."""


@dataclass(frozen=True)
class Shape:
    """A Llama without a vocabulary. Widths are multiples of the types' blocks: 256 for Q4_K, 32 for Q4_0 and Q8_0."""

    width: int
    feed_forward: int
    layers: int
    heads: int
    key_value_heads: int
    context_tokens: int
    types: Sequence[str]
    """The types of the matrices, in turn: Q4_0, Q4_K, Q8_0."""


TINY = Shape(
    width=256, feed_forward=256, layers=1, heads=4, key_value_heads=4, context_tokens=64, types=("Q4_0", "Q4_K")
)
"""In the types that the extra kernels take. About 280 kB."""


def write_tiny_model(path: Path, shape: Shape = TINY) -> None:
    """Write a model of this shape."""
    import gguf

    generator = np.random.default_rng(0)
    head = shape.width // shape.heads
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(VOCABULARY_SIZE)
    writer.add_tokenizer_model("no_vocab")
    writer.add_context_length(shape.context_tokens)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_value_heads)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(1e-5)
    matrices = {"token_embd": (VOCABULARY_SIZE, shape.width), "output": (VOCABULARY_SIZE, shape.width)}
    norms = ["output_norm"]
    for layer in range(shape.layers):
        norms += [f"blk.{layer}.attn_norm", f"blk.{layer}.ffn_norm"]
        matrices |= {
            f"blk.{layer}.attn_q": (shape.width, shape.width),
            f"blk.{layer}.attn_k": (shape.key_value_heads * head, shape.width),
            f"blk.{layer}.attn_v": (shape.key_value_heads * head, shape.width),
            f"blk.{layer}.attn_output": (shape.width, shape.width),
            f"blk.{layer}.ffn_gate": (shape.feed_forward, shape.width),
            f"blk.{layer}.ffn_up": (shape.feed_forward, shape.width),
            f"blk.{layer}.ffn_down": (shape.width, shape.feed_forward),
        }
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(shape.width, np.float32))
    for number, (name, (rows, columns)) in enumerate(matrices.items()):
        kind = shape.types[number % len(shape.types)]
        block_elements, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        blocks = _random_blocks(generator, rows * columns // block_elements, block_bytes, scales=_SCALES[kind])
        writer.add_tensor(f"{name}.weight", blocks.reshape(rows, -1), raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _random_blocks(generator: np.random.Generator, count: int, size: int, *, scales: int) -> NDArray[np.uint8]:
    """Blocks of random quants behind `scales` small float16 scales."""
    blocks = generator.integers(0, 256, (count, size), dtype=np.uint8)
    blocks[:, : 2 * scales] = np.full(scales, 1e-3, np.float16).view(np.uint8)
    return blocks
