"""Files -> configuration, tokenizer, and weights in torch. What Transformers gets wrong about a GGUF is mended here."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgetune.errors import ModelError
from edgetune.models.locate import ModelFiles

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
    """The model's configuration without quantization marks. Raises ModelError."""
    from transformers import AutoConfig

    with _explained(files):
        config = AutoConfig.from_pretrained(files.folder, **_gguf_argument(files))
    _unmark(config)
    return config


def load_tokenizer(files: ModelFiles) -> PreTrainedTokenizerBase:
    """The model's tokenizer with its chat template; its special tokens are those that the model's own files name."""
    from transformers import AutoTokenizer

    with _explained(files):
        tokenizer = AutoTokenizer.from_pretrained(files.folder, **_gguf_argument(files))
    if files.gguf is not None:
        _restore_special_tokens(tokenizer, files.gguf)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    files: ModelFiles, *, dtype: torch.dtype, quantize: Quantize = "none", double_quantization: bool = True
) -> PreTrainedModel:
    """A causal language model with its weights, a GGUF dequantized to `dtype`, on the GPU where there is one.

    `quantize` nf4 and int8 go through bitsandbytes and compute in `dtype`. Raises ModelError.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quiet_libraries()
    device = {"": 0} if torch.cuda.is_available() else None
    if quantize == "none":
        # Transformers shows a bar of its own for a GGUF, which no setting turns off.
        hidden = redirect_stderr(io.StringIO()) if files.gguf is not None else nullcontext()
        with _explained(files), hidden:
            model = AutoModelForCausalLM.from_pretrained(
                files.folder, dtype=dtype, device_map=device, **_gguf_argument(files)
            )
        return _dense(model) if files.gguf is not None else model
    config = BitsAndBytesConfig(
        load_in_8bit=quantize == "int8",
        load_in_4bit=quantize == "nf4",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double_quantization,
        bnb_4bit_compute_dtype=dtype,
    )
    if files.gguf is None:
        with _explained(files):
            return AutoModelForCausalLM.from_pretrained(
                files.folder, dtype=dtype, device_map=device, quantization_config=config
            )
    # Transformers takes one quantization at a time: dequantize the GGUF to a folder first.
    with tempfile.TemporaryDirectory(prefix="edgetune-") as folder:
        load_model(files, dtype=dtype).save_pretrained(folder)
        return load_model(
            ModelFiles(files.reference, Path(folder)),
            dtype=dtype,
            quantize=quantize,
            double_quantization=double_quantization,
        )


def quiet_libraries() -> None:
    """Keep the libraries' own bars and advice off the terminal; edgetune shows its own progress."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    for name in ("bitsandbytes", "datasets", "accelerate", "peft", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _gguf_argument(files: ModelFiles) -> dict[str, Any]:
    return {} if files.gguf is None else {"gguf_file": files.gguf.name}


def _dense(model: PreTrainedModel) -> PreTrainedModel:
    """A dequantized GGUF model is an ordinary one; without its quantization marks it can be trained and saved."""
    _unmark(model.config)
    model.hf_quantizer = None
    model.is_quantized = False
    model.quantization_method = None
    return model


def _unmark(config: PretrainedConfig) -> None:
    if hasattr(config, "quantization_config"):
        del config.quantization_config


def _restore_special_tokens(tokenizer: PreTrainedTokenizerBase, gguf: Path) -> None:
    """Set BOS, EOS, UNK and PAD to what the GGUF says: Transformers 5.17 gives SmolLM2 its BOS as EOS."""
    from gguf import GGUFReader

    reader = GGUFReader(gguf)
    for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        field = reader.get_field(f"tokenizer.ggml.{key}_token_id")
        if field is not None:
            setattr(tokenizer, f"{role}_token", tokenizer.convert_ids_to_tokens(int(field.contents())))


@contextmanager
def _explained(files: ModelFiles) -> Iterator[None]:
    """Turn what Transformers raises about a model's files into one ModelError."""
    from safetensors import SafetensorError

    if files.gguf is not None:
        with files.gguf.open("rb") as file:
            start = file.read(4)
        if start != b"GGUF":
            raise ModelError(f"is not a GGUF file (it starts with {start!r})", where=files.gguf)
    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as problem:
        reason = str(problem).strip().split("\n")[0]
        raise ModelError(f"cannot be loaded ({reason})", where=files.reference) from problem
