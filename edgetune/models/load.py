"""Loads configuration, tokenizer and weights of a model. The gguf_* modules read GGUF files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgetune.errors import MissingComponent, ModelError, first_line_of
from edgetune.models.families import auto_class, kind_of
from edgetune.models.gguf_file import GgufFile
from edgetune.models.locate import ModelFiles
from edgetune.models.tokenizer import ModelTokenizer, wrap_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Quantize = Literal["none", "int8", "nf4"]

_SENTENCEPIECE = "tokenizer.model"
_PROTOBUF_START = b"\n"
"""The first byte of a SentencePiece model; a tiktoken file begins with text."""


def resolve_dtype(name: str) -> torch.dtype:
    """torch's type for a recipe's dtype; "auto" is bfloat16 on a GPU that supports it, and float32 elsewhere."""
    import torch

    if name == "auto":
        fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def device_name() -> str:
    """Where `load_model` puts a model: cuda where there is a GPU, cpu elsewhere."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_config(files: ModelFiles) -> PretrainedConfig:
    """The model's configuration without its quantization_config.

    Raises ModelError, also for a GGUF with rope scaling, which Transformers does not read.
    """
    from transformers import AutoConfig

    from edgetune.models.config import read_config

    with _explained(files):
        config = read_config(files).in_transformers() if files.gguf else AutoConfig.from_pretrained(files.folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def load_tokenizer(files: ModelFiles) -> PreTrainedTokenizerBase:
    """The model's tokenizer with its chat template and the special tokens that its files name.

    Raises ModelError, and MissingComponent when the package that reads a SentencePiece model is not installed.
    """
    from transformers import AutoTokenizer

    from edgetune.models.gguf_tokenizer import gguf_tokenizer

    if files.gguf is None:
        _require_sentencepiece(files)
    with _explained(files):
        tokenizer = gguf_tokenizer(GgufFile(files.gguf)) if files.gguf else AutoTokenizer.from_pretrained(files.folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _require_sentencepiece(files: ModelFiles) -> None:
    """Without the package, Transformers treats the file as tiktoken's, and asks for tiktoken."""
    file = files.folder / _SENTENCEPIECE
    if (files.folder / "tokenizer.json").is_file() or not file.is_file() or find_spec("sentencepiece") is not None:
        return
    with file.open("rb") as content:
        if content.read(1) != _PROTOBUF_START:
            return
    raise MissingComponent(
        f"its only tokenizer file is {_SENTENCEPIECE}, and the package that reads it is not installed",
        where=files.reference,
        remedy="run: pip install sentencepiece protobuf",
    )


def open_tokenizer(files: ModelFiles) -> ModelTokenizer:
    """The tokenizer of a model folder, adapter folder or GGUF, with the ids and the template that Transformers gives.

    Transformers, whose import takes seconds, is only used where it would change what the files say. As in training, the
    EOS token is the padding token where the model names no other. Raises ModelError.
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
    files: ModelFiles,
    *,
    dtype: torch.dtype,
    quantize: Quantize = "none",
    double_quantization: bool = True,
    labels: Sequence[str] | None = None,
    on_gpu: bool = True,
) -> PreTrainedModel:
    """A model with its weights, a GGUF dequantized to `dtype`, on the GPU where there is one and `on_gpu`.

    It is a decoder or an encoder-decoder that writes text. With `labels` it has a classification head instead, whose
    scores are in their order. The weights of a new head come from torch's generator, so seed that first. `quantize` nf4
    and int8 use bitsandbytes and compute in `dtype`; a classification head is not quantized. Raises ModelError, also
    when the files lack weights other than the head's.
    """
    import torch

    quiet_libraries()
    config = load_config(files)
    head = None
    if labels is not None:
        head = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    settings: dict[str, Any] = {
        "dtype": dtype,
        "device_map": {"": torch.cuda.current_device()} if on_gpu and torch.cuda.is_available() else None,
        "quantization_config": None,
        "output_loading_info": True,
    }
    with _explained(files):
        model_class = auto_class(config.model_type, classifies=head is not None)
        if head is not None:
            settings["ignore_mismatched_sizes"] = True  # a head for other labels is replaced by a new one
        if quantize != "none":
            untouched = None if head is None else head_modules(without_weights(model_class.from_config, config))
            settings["quantization_config"] = quantization_config(quantize, dtype, double_quantization, untouched)
        if files.gguf is None:
            model, found = model_class.from_pretrained(files.folder, **settings, **(head or {}))
        else:
            if kind_of(config.model_type) != "decoder":
                raise ModelError(
                    f"a GGUF of the family {config.model_type} cannot be trained; only GGUF files of decoders can",
                    where=files.reference,
                    remedy="use the Hugging Face model that it was made from",
                )
            config.update(head or {})
            model, found = type(without_weights(model_class.from_config, config)).from_pretrained(
                None, config=config, state_dict=_gguf_weights(files.gguf, config, dtype), **settings
            )
    if quantize == "nf4":
        _keep_packed_as_it_is(model)
    _check_complete(found, files, new=[] if head is None else head_modules(model))
    if head is not None and model.config.pad_token_id is None:
        model.config.pad_token_id = load_tokenizer(files).pad_token_id
    # PEFT reads the base's configuration from here when it saves an adapter.
    model.name_or_path = model.config.name_or_path = str(files.folder)
    return model


def head_modules(model: PreTrainedModel) -> list[str]:
    """The modules outside the pretrained network of a model with a classification head, such as score."""
    pretrained = model.base_model_prefix
    return [name for name, module in model.named_children() if name != pretrained and [*module.parameters()]]


def quiet_libraries() -> None:
    """Hide the progress bars and the advice of libraries; edgetune shows its own progress."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    for name in ("bitsandbytes", "datasets", "accelerate", "peft", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
    # torch warns once when a sparse tensor is made, as SHiRA does.
    warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")


def quantization_config(
    quantize: Quantize, dtype: torch.dtype, double_quantization: bool, untouched: list[str] | None
) -> BitsAndBytesConfig:
    """bitsandbytes' settings for a base that computes in `dtype`, without the modules `untouched`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_8bit=quantize == "int8",
        load_in_4bit=quantize == "nf4",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double_quantization,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=untouched,
    )


def _keep_packed_as_it_is(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking weights at the first evaluation on a CPU with bfloat16.

    It does so for kernels that round more, and the training after the evaluation would then use them.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def without_weights(make: Callable[[PretrainedConfig], PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """The model that `make`, a class or an AutoModel's from_config, builds, without memory for its weights."""
    import torch

    with torch.device("meta"):
        return make(config)


def _check_complete(found: dict[str, Any], files: ModelFiles, *, new: Sequence[str]) -> None:
    """Transformers initializes missing weights at random. Only `new` modules, those of a head, may be missing."""
    heads = tuple(f"{name}." for name in new)
    random = [*found["missing_keys"], *(mismatch[0] for mismatch in found["mismatched_keys"])]
    lost = sorted(name for name in random if not name.startswith(heads))
    if lost:
        raise ModelError(
            f"lacks the weights {lost[0]}" + (f" and {len(lost) - 1} more" if lost[1:] else ""),
            where=files.reference,
            remedy="download or save the model again",
        )


def _gguf_weights(gguf: Path, config: PretrainedConfig, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    import torch

    from edgetune.models.gguf_tensors import open_gguf_tensors

    tensors = open_gguf_tensors(GgufFile(gguf), lambda: config)
    return {name: torch.from_numpy(tensors.load(name)).to(dtype) for name in tensors.shapes}


@contextmanager
def _explained(files: ModelFiles) -> Iterator[None]:
    """Turn Transformers' errors about a model's files into one ModelError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as problem:
        raise ModelError(f"cannot be loaded ({first_line_of(problem)})", where=files.reference) from problem
