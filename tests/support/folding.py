"""What the tests of folding share: random adapters, bases to put them on, and the folded model as torch tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgetune.weights.source import ModelSource
from edgetune.weights.stream import FoldedTensors, open_folded
from edgetune.weights.torch_arrays import copy_to_torch


def make_adapter(
    base: Path, out: Path, config, *, dtype=None, adapter_dtype=None, scale: float = 0.1, model=None
) -> Path:
    """An adapter as after training: every trainable parameter is random, so nothing is zero or the identity."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype or torch.float32) if model is None else model
    adapted = peft.get_peft_model(model, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * scale)
                parameter.data = parameter.data.to(adapter_dtype or parameter.dtype)
    adapted.save_pretrained(out)
    return out


def untied_copy(base: Path, out: Path, dtype=None) -> Path:
    """A random Llama shaped like `base`, with an output layer of its own, biases, and a small vocabulary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_pretrained(base)
    config.tie_word_embeddings = False
    config.vocab_size = 320
    config.attention_bias = True
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 2
    torch.manual_seed(2)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    model.to(dtype or torch.float32).save_pretrained(out)
    return out


def folded_tensor(folded: FoldedTensors, name: str, *, rows: int | None = None):
    """One tensor of the folded model in torch, made `rows` rows at a time."""
    import torch

    info = folded.tensors[name]
    if rows is None or len(info.shape) < 2:
        return copy_to_torch(folded.load(name), info.dtype)
    parts = []
    for start in range(0, info.shape[0], rows):
        stop = min(start + rows, info.shape[0])
        parts.append(copy_to_torch(folded.rows(name, start, stop), info.dtype))
        folded.release(name, start, stop)
    return torch.cat(parts)


def folded_tensors(source: ModelSource, *, rows: int | None = None) -> Iterator[tuple[str, object]]:
    """(name, tensor) of the whole folded model."""
    folded = open_folded(source)
    for name in folded.tensors:
        yield name, folded_tensor(folded, name, rows=rows)
