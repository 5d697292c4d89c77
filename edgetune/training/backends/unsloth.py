"""Unsloth: its loader, and on a GPU its kernels and gradient checkpointing, with edgetune's own trainer.

On a GPU Unsloth (https://github.com/unslothai/unsloth) replaces the layers of the families that have `unsloth` in
models/families.py. On a CPU it loads plain Transformers layers. Its import changes the trainer classes of Transformers
and TRL for the whole process; this module restores them, so that accumulation, loss and checkpoints are the same with
every backend.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from edgetune import events
from edgetune.cache import cache_folder
from edgetune.errors import ModelError, RecipeError, first_line_of
from edgetune.models.families import families_with, find_family
from edgetune.models.locate import locate_model
from edgetune.recipe.methods import Lora
from edgetune.recipe.schema import Recipe
from edgetune.training import processes

if TYPE_CHECKING:
    from peft import PeftModel

    from edgetune.training.prepare import Prepared

VERSION = "2026.10.9"
"""The first version with a CPU backend, and the one that `make test-unsloth` tests."""

INSTALL = f"pip install --no-deps unsloth=={VERSION} unsloth_zoo=={VERSION}"
"""The extra `train` is all that it needs; its own metadata asks for torchvision, xformers, diffusers and more."""

_TRAINED_WHOLE = frozenset({"embed_tokens", "lm_head"})
"""Modules that it trains in full instead of with an adapter."""


def not_importable() -> str | None:
    """Why it cannot be imported here, or None. Where it is installed, this imports it."""
    if find_spec("unsloth") is None or find_spec("unsloth_zoo") is None:
        return "it is not installed"
    return _import_problem()


def not_worth_it() -> str | None:
    """Why the other backend is as fast on this machine, or None."""
    if _has_gpu():
        return None
    return "without a GPU its layers are those of transformers, so it makes nothing faster"


def unsupported(recipe: Recipe, model_type: str) -> str | None:
    """The first setting that Unsloth ignores, treats otherwise than PEFT, or was never compared with PEFT; or None."""
    base, method, train = recipe.base, recipe.method, recipe.train
    if not isinstance(method, Lora):
        return f"method.type is {method.type}; it trains lora"
    named = method.targets if isinstance(method.targets, list) else []
    whole = sorted(_TRAINED_WHOLE.intersection(name.rsplit(".", 1)[-1] for name in named))
    reasons = {
        f"base.model is of the family {model_type}; it has layers for {', '.join(families_with('unsloth'))}": (
            not find_family(model_type).unsloth
        ),
        "base.head is classification": base.head == "classification",
        "base.quantize is int8; it trains on none and nf4": base.quantize == "int8",
        "base.double_quantization is false; its nf4 always quantizes the constants too": (
            base.quantize == "nf4" and not base.double_quantization
        ),
        "base.dtype is float16, which it changes on a CPU": base.dtype == "float16" and not _has_gpu(),
        "method.dora is true, for which it has no kernels": method.dora,
        f"method.bias is {method.bias}; its kernels train no biases": method.bias != "none",
        f"method.init is {method.init}; edgetune uses it with the default only": method.init != "default",
        f"method.targets names {' and '.join(whole)}, which it trains in full instead of with an adapter": bool(whole),
        "train.compile is true; it compiles its own kernels": train.compile,
        "train.adapter_dtype is bfloat16; its adapters are float32": train.adapter_dtype == "bfloat16",
        "train.packing is true; its layers do not read edgetune's packed rows": train.packing,
        "--processes is above 1; edgetune trains with it in one process": processes.world_size() > 1,
    }
    found = next((reason for reason, holds in reasons.items() if holds), None)
    if found is None and locate_model(base.model, revision=base.revision).gguf is not None:
        return "base.model is a GGUF; it reads safetensors"
    return found


def load_adapted_model(recipe: Recipe, prepared: Prepared, *, total_steps: int | None = None) -> PeftModel:
    """The base with a fresh LoRA adapter on it.

    Raises ModelError, and RecipeError when the method's targets are not modules of the base.
    """
    events.note(f"loading {recipe.base.model} with unsloth")
    # On a GPU "unsloth" keeps what is recomputed in main memory meanwhile.
    checkpointing = "unsloth" if recipe.train.gradient_checkpointing else False
    with _own_trainers(), _quiet():
        loader = importlib.import_module("unsloth").FastLanguageModel
        model = _load_base(loader, recipe, prepared, checkpointing)
        return _add_adapter(loader, model, recipe, checkpointing)


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


@cache
def _import_problem() -> str | None:
    """Why its import fails, in one line, or None. The import takes seconds and is not undone."""
    with _own_trainers(), _quiet():
        try:
            importlib.import_module("unsloth")
        except Exception as problem:  # its import runs code of many libraries, and any of them may fail
            return f"it cannot be imported ({first_line_of(problem)})"
    return None


def _load_base(loader: Any, recipe: Recipe, prepared: Prepared, checkpointing: str | bool) -> Any:
    import torch
    from safetensors import SafetensorError

    from edgetune.models.load import resolve_dtype

    base, files = recipe.base, prepared.files
    try:
        model, _ = loader.from_pretrained(
            str(files.folder),
            # The model's own context: with more, Unsloth scales the positions; with less, it truncates.
            max_seq_length=int(prepared.config.require("max_position_embeddings")),
            dtype=resolve_dtype(base.dtype),
            load_in_4bit=base.quantize == "nf4",
            device_map={"": torch.cuda.current_device()} if _has_gpu() else None,
            use_gradient_checkpointing=checkpointing,
            use_exact_model_name=True,
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as problem:
        raise ModelError(f"cannot be loaded by unsloth ({first_line_of(problem)})", where=files.reference) from problem
    # Where bitsandbytes fails, Unsloth loads 16-bit weights instead, without an error.
    if base.quantize == "nf4" and not getattr(model, "is_loaded_in_4bit", False):
        raise RecipeError(
            "base.quantize is nf4, which unsloth cannot do for this base on this machine",
            where=recipe.name,
            remedy="set train.backend to transformers, or base.quantize to none",
        )
    return model


def _add_adapter(loader: Any, model: Any, recipe: Recipe, checkpointing: str | bool) -> PeftModel:
    from edgetune.models.targets import check_patterns, check_targets, default_targets

    method = recipe.method
    assert isinstance(method, Lora)
    check_targets(model, method.targets, head=())
    try:
        adapted: PeftModel = loader.get_peft_model(
            model,
            r=method.rank,
            lora_alpha=method.alpha,
            lora_dropout=method.dropout,
            target_modules=method.targets or default_targets(model.config.model_type),
            use_rslora=method.rslora,
            rank_pattern=dict(method.rank_pattern),
            alpha_pattern=dict(method.alpha_pattern),
            bias="none",
            use_gradient_checkpointing=checkpointing,
            random_state=recipe.train.seed,
        )
    except ValueError as problem:
        what = f"method cannot adapt this model ({first_line_of(problem)})"
        raise RecipeError(what, where=type(model).__name__) from problem
    check_patterns(adapted, method.rank_pattern, "rank_pattern")
    check_patterns(adapted, method.alpha_pattern, "alpha_pattern")
    adapted.peft_config["default"].base_model_name_or_path = recipe.base.model
    return adapted


@contextmanager
def _own_trainers() -> Iterator[None]:
    """Restore the trainer classes of Transformers and TRL that are changed inside.

    Unsloth replaces methods of Transformers' Trainer in place: the count of batches in an accumulated update, the scale
    of the loss, the choice of the optimizer. It replaces TRL's classes in their module, so edgetune's trainer is
    imported first.
    """
    from transformers import Trainer, TrainingArguments
    from trl import SFTConfig, SFTTrainer

    import edgetune.training.trainer  # noqa: F401

    before = {cls: MappingProxyType(dict(vars(cls))) for cls in (Trainer, TrainingArguments, SFTTrainer, SFTConfig)}
    try:
        yield
    finally:
        for cls, attributes in before.items():
            for name, value in dict(vars(cls)).items():
                if name not in attributes:
                    delattr(cls, name)
                elif value is not attributes[name]:
                    setattr(cls, name, attributes[name])


@contextmanager
def _quiet() -> Iterator[None]:
    """Send Unsloth's output to stderr, so that --json prints one document, and turn its statistics off.

    Its warning that it should be imported before Transformers and TRL does not apply: see above.
    """
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(cache_folder() / "unsloth"))
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="WARNING: Unsloth should be imported before")
        yield
