"""A Mamba of random weights and no vocabulary: the smallest model whose memory is a state."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

TOKENS = 64


def write_tiny_mamba(path: Path, *, width: int = 32, states: int = 4, layers: int = 2) -> Path:
    """Write the model in float32, and return its path."""
    inner, rank, kernel = 2 * width, 2, 4
    generator = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_vocab_size(TOKENS)
    writer.add_tokenizer_model("no_vocab")
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(layers)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(states)
    writer.add_ssm_time_step_rank(rank)
    writer.add_layer_norm_rms_eps(1e-5)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (TOKENS, width), "output_norm.weight": (width,)}
    for layer in range(layers):
        shapes |= {
            f"blk.{layer}.{name}": shape
            for name, shape in {
                "attn_norm.weight": (width,),
                "ssm_in.weight": (2 * inner, width),
                "ssm_conv1d.weight": (inner, kernel),
                "ssm_conv1d.bias": (inner,),
                "ssm_x.weight": (rank + 2 * states, inner),
                "ssm_dt.weight": (inner, rank),
                "ssm_dt.bias": (inner,),
                "ssm_a": (inner, states),
                "ssm_d": (inner,),
                "ssm_out.weight": (width, inner),
            }.items()
        }
    for name, shape in shapes.items():
        values = generator.normal(0, 0.5, shape).astype(np.float32)
        # A state decays: its factors are negative.
        writer.add_tensor(name, -np.abs(values) if name.endswith("ssm_a") else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
