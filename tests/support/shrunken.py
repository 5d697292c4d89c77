"""Shipped recipes of the studies, shrunken: tiny models of the same families, local rows, two updates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgetune.recipe.load import load_recipe
from edgetune.recipe.schema import Recipe
from support.hub_rows import local_sources
from support.tiny_tasks import save_tiny

UPDATES = 2
_STEPS_PER_UPDATE = 2  # at most
SUMMARIES = 2
"""For so many of the evaluation's texts a summary is written."""

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {"max_position_embeddings": 2048}),
    "flan-t5": ("T5ForConditionalGeneration", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "distilbert": ("DistilBertForMaskedLM", {}),
}
"""What a recipe's name begins with -> the class of its base as the hub has it, and how that family is configured."""

_VIRTUAL_TOKENS = 20
_LLAMA_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def save_families(folder: Path) -> dict[str, Path]:
    """A tiny model of each family, saved once."""
    return {family: save_tiny(cls, folder / family, **shape) for family, (cls, shape) in FAMILIES.items()}


def family_of(name: str) -> str:
    """The family of a recipe's base."""
    return next(family for family in FAMILIES if name.startswith(family))


def shrink(name: str, bases: dict[str, Path], rows: Path) -> Recipe:
    """The recipe on the tiny base of its family, reading what write_hub_rows put into `rows`.

    What stays is its task, formats, labels, template, method with ranks and targets, quantization, types, batch size
    and optimizer.
    """
    recipe = load_recipe(name)
    overrides = [
        f"base.model={bases[family_of(name)]}",
        f"train.max_steps={UPDATES}",
        f"train.accumulate={min(recipe.train.accumulate, _STEPS_PER_UPDATE)}",
        "data.max_length=512",  # the tiny tokenizers spell most words
        *local_sources(recipe, rows),
    ]
    if recipe.task == "summarize":
        overrides += ["data.max_target_length=8", f"train.eval_limit={SUMMARIES}"]
    if hasattr(recipe.method, "virtual_tokens"):
        overrides.append(f"method.virtual_tokens={_VIRTUAL_TOKENS}")
    if recipe.method.type == "adalora":
        overrides += ["method.tinit=0", "method.tfinal=0", "method.delta_t=1"]
    return load_recipe(name, overrides)


def trained_parameters(recipe: Recipe, base: Path) -> int:
    """How many parameters the method trains on a base, by the formulas of the methods' papers; the head included."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    method: Any = recipe.method
    if method.type in _VIRTUAL:
        trained = _VIRTUAL[method.type](method, config)
    else:
        targets = _LLAMA_LINEARS if method.targets == "all-linear" else method.targets
        trained = sum(_PER_MODULE[method.type](method, *shape, name) for name, shape in _targeted(base, targets))
    if recipe.base.head == "classification":
        trained += _head(config, len(recipe.data.labels))
    return trained


def _targeted(base: Path, targets: list[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """The name and the shape (out, in) of every linear layer of these names."""
    from safetensors import safe_open

    with safe_open(base / "model.safetensors", framework="numpy") as file:
        for key in file.keys():  # noqa: SIM118 -- it is no mapping
            *_, name, kind = key.split(".")
            if name in targets and kind == "weight":
                yield name, tuple(file.get_slice(key).get_shape())


def _low_rank(method: Any, out: int, width: int, _: str) -> int:
    return int(method.rank * (out + width))


def _lokr(method: Any, out: int, width: int, _: str) -> int:
    (small_out, large_out), (small_in, large_in) = _factors(out), _factors(width)
    whole, halves = large_out * large_in, method.rank * (large_out + large_in)
    return small_out * small_in + (halves if method.rank < max(large_out, large_in) / 2 else whole)


def _factors(size: int) -> tuple[int, int]:
    """The smaller one first, as close to each other as they can be."""
    smaller = max(each for each in range(1, size + 1) if size % each == 0 and each * each <= size)
    return smaller, size // smaller


_PER_MODULE: dict[str, Callable[[Any, int, int, str], int]] = {
    "lora": _low_rank,
    "hira": _low_rank,
    "shira": _low_rank,
    "loha": lambda method, out, width, name: 2 * _low_rank(method, out, width, name),
    "lokr": _lokr,
    "adalora": lambda method, out, width, _: method.init_rank * (out + 1 + width),
    "ia3": lambda method, out, width, name: width if name in method.feedforward else out,
}


def _prefix(method: Any, config: dict[str, Any]) -> int:
    """A key and a value per layer and virtual token; T5's are those of its decoder."""
    if config["model_type"] == "t5":
        layers, width = config["num_decoder_layers"], config["num_heads"] * config["d_kv"]
    else:
        layers, width = config["num_hidden_layers"], config["num_key_value_heads"] * config["head_dim"]
    return int(method.virtual_tokens * layers * 2 * width)


def _p_tuning(method: Any, config: dict[str, Any]) -> int:
    """Embeddings for each stack that reads them, and a network of three layers with biases."""
    stacks, width = (2, config["d_model"]) if config["model_type"] == "t5" else (1, config["hidden_size"])
    layers = [(width, method.hidden_size), (method.hidden_size, method.hidden_size), (method.hidden_size, width)]
    return int(stacks * method.virtual_tokens * width + sum(out * (of + 1) for of, out in layers))


_VIRTUAL: dict[str, Callable[[Any, dict[str, Any]], int]] = {"prefix": _prefix, "p-tuning": _p_tuning}


def _head(config: dict[str, Any], labels: int) -> int:
    if config["model_type"] == "distilbert":
        width = config["dim"]
        return int(width * (width + 1) + labels * (width + 1))
    return int(labels * config["hidden_size"])
