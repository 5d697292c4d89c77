"""GGUF files written by hand, a Llama, a BERT and a T5, so that the checks are tested on files of another maker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter
from safetensors.numpy import load_file

from edgetune.models.gguf_file import GgufFile

_LLAMA = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_llama(
    folder: Path,
    vocabulary: Path,
    file: Path,
    *,
    says: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray | None] | None = None,
) -> Path:
    """The Llama of `folder` in F16 with the vocabulary of the GGUF `vocabulary`, as much of it as the model has rows.

    `says` replaces values of the vocabulary by key, `tensors` replaces tensors; None leaves one out.
    """
    config = json.loads((folder / "config.json").read_text())
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    # One value for each layer, as models have whose layers differ.
    writer.add_head_count_kv([config["num_key_value_heads"]] * config["num_hidden_layers"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    _add_vocabulary(writer, GgufFile(vocabulary), config["vocab_size"], says or {})
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    stored = {}
    for name, data in load_file(folder / "model.safetensors").items():
        renamed = _rename(name)
        part, rows = renamed.split(".")[-2], data
        if part in heads:
            rows = data.reshape(heads[part], 2, -1, data.shape[1]).swapaxes(1, 2).reshape(data.shape)
        stored[renamed] = rows.astype(np.float32 if data.ndim == 1 else np.float16)
    for name, data in {**stored, **(tensors or {})}.items():
        if data is not None:
            writer.add_tensor(name, np.ascontiguousarray(data))
    return _close(writer, file)


def write_bert(file: Path) -> Path:
    """A BERT of two random layers without a vocabulary."""
    width, inner, rows = 32, 64, 48
    writer = _start(file, "bert", width, inner, rows)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_token_type_count(2)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (rows, width),
        "position_embd.weight": (64, width),
        "token_types.weight": (2, width),
    }
    norms, matrices = ["token_embd_norm"], {}
    for block in ("blk.0", "blk.1"):
        norms += [f"{block}.attn_output_norm", f"{block}.layer_output_norm"]
        matrices |= {f"{block}.attn_{part}": (width, width) for part in ("q", "k", "v", "output")}
        matrices |= {f"{block}.ffn_up": (inner, width), f"{block}.ffn_down": (width, inner)}
    for name in norms:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for name, shape in matrices.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return _fill(writer, file, shapes)


def write_t5(file: Path) -> Path:
    """A T5 of two random layers on each side without a vocabulary."""
    width, inner, rows = 32, 64, 48
    writer = _start(file, "t5", width, inner, rows)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_key_length(8)
    writer.add_value_length(8)
    writer.add_relative_attn_buckets_count(32)
    writer.add_decoder_start_token_id(0)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (rows, width)}
    shapes |= {f"{side}.output_norm.weight": (width,) for side in ("enc", "dec")}
    for side, attentions in (("enc", ["attn"]), ("dec", ["attn", "cross_attn"])):
        shapes[f"{side}.blk.0.attn_rel_b.weight"] = (32, 4)
        for block in (f"{side}.blk.0", f"{side}.blk.1"):
            for attention in attentions:
                shapes[f"{block}.{attention}_norm.weight"] = (width,)
                shapes |= {f"{block}.{attention}_{part}.weight": (width, width) for part in "qkvo"}
            shapes |= {
                f"{block}.ffn_norm.weight": (width,),
                f"{block}.ffn_up.weight": (inner, width),
                f"{block}.ffn_down.weight": (width, inner),
            }
    return _fill(writer, file, shapes)


def _start(file: Path, architecture: str, width: int, inner: int, rows: int) -> GGUFWriter:
    writer = GGUFWriter(file, architecture)
    writer.add_vocab_size(rows)
    writer.add_tokenizer_model("no_vocab")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(4)
    return writer


def _fill(writer: GGUFWriter, file: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    generator = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(name, generator.standard_normal(shape).astype(np.float32))
    return _close(writer, file)


def _add_vocabulary(writer: GGUFWriter, known: GgufFile, rows: int, says: Mapping[str, Any]) -> None:
    values = {key: value for key, value in known.metadata.items() if key.startswith("tokenizer.")}
    values |= {"tokenizer.ggml.add_bos_token": False, **says}
    for key, value in values.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif value is not None:
            writer.add_string(key, value)
    tokens, types, merges = (known.array(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type", "merges"))
    kept = {*tokens[:rows]}
    writer.add_array("tokenizer.ggml.tokens", tokens[:rows])
    writer.add_array("tokenizer.ggml.token_type", types[:rows])
    writer.add_array(
        "tokenizer.ggml.merges", [pair for pair in merges if {*pair.split(" "), pair.replace(" ", "")} <= kept]
    )


def _rename(name: str) -> str:
    """Transformers' name of a Llama's tensor -> GGUF's."""
    outside = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem, suffix = name.rsplit(".", 1)
    if stem in outside:
        return f"{outside[stem]}.{suffix}"
    _model, _layers, number, part = stem.split(".", 3)
    return f"blk.{number}.{_LLAMA[part]}.{suffix}"


def _close(writer: GGUFWriter, file: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
