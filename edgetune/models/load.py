"""Files -> configuration, tokenizer, and weights in torch. A GGUF is read by the gguf_* files beside this one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgetune.errors import ModelError
from edgetune.models.gguf_file import GgufFile
from edgetune.models.locate import ModelFiles
from edgetune.models.tokenizer import ModelTokenizer, wrap_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Quantize = Literal["none", "int8", "nf4"]


def resolve_dtype(name: str) -> torch.dtype:
    """A recipe's dtype as torch's; "auto" is bfloat16 on a GPU that computes in it and float32 elsewhere."""
    import torch

    if name == "auto":
        fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def load_config(files: ModelFiles) -> PretrainedConfig:
    """The model's configuration without quantization marks.

    Raises ModelError, also for a GGUF with rope scaling, which Transformers does not read from there.
    """
    from transformers import AutoConfig

    from edgetune.models.gguf_config import gguf_config

    with _explained(files):
        config = gguf_config(GgufFile(files.gguf)) if files.gguf else AutoConfig.from_pretrained(files.folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def load_tokenizer(files: ModelFiles) -> PreTrainedTokenizerBase:
    """The model's tokenizer with its chat template; its special tokens are those that the model's own files name.

    Raises ModelError.
    """
    from transformers import AutoTokenizer

    from edgetune.models.gguf_tokenizer import gguf_tokenizer

    with _explained(files):
        tokenizer = gguf_tokenizer(GgufFile(files.gguf)) if files.gguf else AutoTokenizer.from_pretrained(files.folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def open_tokenizer(files: ModelFiles) -> ModelTokenizer:
    """The tokenizer of a model folder, adapter folder or GGUF: the ids and template that Transformers would give.

    Transformers itself, whose import takes seconds, is asked only where it would change what the files say. As in
    training, padding is done with the EOS token where the model names no other. Raises ModelError.
    """
    from edgetune.models.gguf_tokenizer import open_gguf_tokenizer
    from edgetune.models.tokenizer_folder import read_tokenizer_folder

    tokenizer = (
        read_tokenizer_folder(files.folder, where=files.reference)
        if files.gguf is None
        else open_gguf_tokenizer(GgufFile(files.gguf), where=files.reference)
    )
    return tokenizer or wrap_tokenizer(load_tokenizer(files), where=files.reference)


def load_model(
    files: ModelFiles, *, dtype: torch.dtype, quantize: Quantize = "none", double_quantization: bool = True
) -> PreTrainedModel:
    """A causal language model with its weights, a GGUF dequantized to `dtype`, on the GPU where there is one.

    `quantize` nf4 and int8 go through bitsandbytes and compute in `dtype`. Raises ModelError.
    """
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, BitsAndBytesConfig

    quiet_libraries()
    quantization = None
    if quantize != "none":
        quantization = BitsAndBytesConfig(
            load_in_8bit=quantize == "int8",
            load_in_4bit=quantize == "nf4",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=double_quantization,
            bnb_4bit_compute_dtype=dtype,
        )
    device = {"": 0} if torch.cuda.is_available() else None
    with _explained(files):
        if files.gguf is None:
            return AutoModelForCausalLM.from_pretrained(
                files.folder, dtype=dtype, device_map=device, quantization_config=quantization
            )
        config = load_config(files)
        model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
            None,
            config=config,
            state_dict=_gguf_weights(files.gguf, config, dtype),
            dtype=dtype,
            device_map=device,
            quantization_config=quantization,
        )
    # PEFT looks here for the base's configuration when it saves an adapter.
    model.name_or_path = model.config.name_or_path = str(files.folder)
    return model


def quiet_libraries() -> None:
    """Keep the libraries' own bars and advice off the terminal; edgetune shows its own progress."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    for name in ("bitsandbytes", "datasets", "accelerate", "peft", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _gguf_weights(gguf: Path, config: PretrainedConfig, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    import torch

    from edgetune.models.gguf_tensors import open_gguf_tensors

    tensors = open_gguf_tensors(GgufFile(gguf), lambda: config)
    return {name: torch.from_numpy(tensors.load(name)).to(dtype) for name in tensors.shapes}


@contextmanager
def _explained(files: ModelFiles) -> Iterator[None]:
    """Turn what Transformers raises about a model's files into one ModelError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as problem:
        reason = str(problem).strip().split("\n")[0]
        raise ModelError(f"cannot be loaded ({reason})", where=files.reference) from problem
