"""A model that says one thing for ever, whatever it is asked, to test what is done with an answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

WIDTH, BLOCKS = 64, 1
"""One head of 64 numbers, as SmolLM2's: how fast attention is here has been measured already."""
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def write_parrot(
    file: Path,
    says: str,
    *,
    name: str = "parrot",
    template: str = TEMPLATE,
    weight: float = 0.0,
    kind: TokenType = TokenType.NORMAL,
) -> Path:
    """A Llama of one block whose matrices hold nothing but `weight`.

    With zeros all tokens are equally likely, so that greedily, it is the first one, `says`, each time; a token of this
    `kind`.
    """
    writer = GGUFWriter(file, "llama")
    writer.add_name(name)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    letters = [*_spelled(bytes(range(256)))]
    tokens = [_spelled(says.encode()), *letters, "ab", "<|end|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([kind] + [TokenType.NORMAL] * (len(tokens) - 2) + [TokenType.CONTROL])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(template)
    matrix = np.full((WIDTH, WIDTH), weight, np.float32)
    writer.add_tensor("token_embd.weight", np.full((len(tokens), WIDTH), weight, np.float32))
    for block in range(BLOCKS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            writer.add_tensor(f"blk.{block}.{part}.weight", matrix)
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{block}.{norm}.weight", np.ones(WIDTH, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _spelled(data: bytes) -> str:
    """Bytes in the letters of GPT-2's vocabulary: those that print stand for themselves, the others for 256 and up."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    letters = {byte: chr(byte) for byte in printed} | {byte: chr(256 + place) for place, byte in enumerate(others)}
    return "".join(letters[byte] for byte in data)
