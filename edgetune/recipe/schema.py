"""The schema of recipes. Defaults live only here; help and docs are generated from them.

Names are PEFT's for methods, TRL's and Transformers' for training. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field, field_validator, model_validator

from edgetune.recipe.data import FORMATS_OF_TASK, Data
from edgetune.recipe.methods import LEAVES_WEIGHTS_ALONE, WHOLE_WEIGHTS_ONLY, Full, Lora, Method
from edgetune.recipe.section import Section
from edgetune.recipe.train import Train
from edgetune.recipe.yaml_input import nearest


class Base(Section):
    """The model that is fine-tuned."""

    model: str = Field(
        description="Hub id (owner/name), a folder with config.json, a .gguf file, or package:NAME for a GGUF inside "
        "an installed Python package."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    quantize: Literal["none", "int8", "nf4"] = Field(
        "none", description="Quantize the frozen base while training, with bitsandbytes. nf4 with method lora is QLoRA."
    )
    double_quantization: bool = Field(True, description="nf4 only: quantize the quantization constants too.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Type of weights and compute; auto is bfloat16 on a GPU that supports it, float32 on a CPU (see "
        "also train.frozen_products).",
    )
    head: Literal["lm", "classification"] = Field(
        "lm",
        description="classify: lm answers in words; classification adds a layer with one score per label "
        "(AutoModelForSequenceClassification), which encoders such as BERT need.",
    )


class Recipe(Section):
    """A complete fine-tuning recipe."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="Lower case; names the run directory.")
    description: str = Field("", description="One line for `edgetune recipes`.")
    task: Literal["chat", "classify", "summarize"]
    base: Base
    data: Data
    method: Method
    train: Train = Train()

    @field_validator("base", mode="before")
    @classmethod
    def _base_may_be_a_name(cls, value: object) -> object:
        return {"model": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _can_work(self) -> Recipe:
        for rule in RULES:
            problem = rule(self)
            if problem is not None:
                raise ValueError(problem)
        return self


Rule = Callable[[Recipe], str | None]
"""Returns what is wrong with a recipe, with the fields' names, or None."""


def _labels_belong_to_classify(recipe: Recipe) -> str | None:
    labels = recipe.data.labels
    if recipe.task != "classify":
        return f"data.labels belongs to task classify, not {recipe.task}" if labels else None
    if len(labels) < 2:
        return "data.labels needs at least 2 labels when task is classify"
    return "data.labels names a label twice" if len(set(labels)) != len(labels) else None


def _prompts_hold_the_text(recipe: Recipe) -> str | None:
    prompt = recipe.data.prompt
    if recipe.task == "chat":
        return None if prompt is None else "data.prompt belongs to the tasks classify and summarize, not chat"
    if prompt is None and recipe.base.head == "classification":
        return None
    if prompt is None or "{text}" not in prompt:
        return f"data.prompt must contain {{text}} when task is {recipe.task}"
    return None


def _formats_fit_the_task(recipe: Recipe) -> str | None:
    for field, sources in (("train", recipe.data.train), ("eval", recipe.data.eval)):
        for number, source in enumerate(sources):
            own = any(source.format in formats for formats in FORMATS_OF_TASK.values())
            if own and source.format not in FORMATS_OF_TASK[recipe.task]:
                return f"data.{field}.{number}.format is {source.format}, which task {recipe.task} cannot read"
    return None


def _fields_fit_the_task(recipe: Recipe) -> str | None:
    data, train = recipe.data, recipe.train
    used = {
        "base.head": (recipe.base.head != "lm", ("classify",)),
        "data.balance": (data.balance != "none", ("classify",)),
        "data.max_source_length": (data.max_source_length is not None, ("classify", "summarize")),
        "data.max_target_length": (data.max_target_length is not None, ("summarize",)),
        "train.class_weights": (train.class_weights != "none", ("classify",)),
        "train.packing": (train.packing, ("chat",)),
        "train.eval_limit": (train.eval_limit is not None, ("summarize",)),
    }
    for field, (given, tasks) in used.items():
        if given and recipe.task not in tasks:
            return f"{field} belongs to task {' and '.join(tasks)}, not {recipe.task}"
    return None


_NEEDS_OF_TASK = {"classify": ("gold",), "summarize": ("text", "references")}
"""What an evaluation has of a metric's `needs`."""


def _metrics_fit_the_task(recipe: Recipe) -> str | None:
    if not recipe.train.metrics:
        return None
    from edgetune.metrics.registry import METRICS

    needs = _NEEDS_OF_TASK.get(recipe.task)
    if needs is None:
        return f"train.metrics belongs to task {' and '.join(_NEEDS_OF_TASK)}, not {recipe.task}"
    for name in recipe.train.metrics:
        metric = METRICS.get(name)
        if metric is None or recipe.task not in metric.tasks or not set(metric.needs) <= set(needs):
            fit = [one for one in METRICS.values() if recipe.task in one.tasks and set(one.needs) <= set(needs)]
            known = [one.name for one in fit]
            return (
                f"train.metrics names {name}{nearest(name, known)}; an evaluation of task {recipe.task} can compute "
                f"{', '.join(known)}"
            )
    return None


def _packing_makes_its_own_batches(recipe: Recipe) -> str | None:
    if recipe.train.packing and recipe.train.group_by_length:
        return "train.packing already fills rows; leave train.group_by_length out"
    return None


def _methods_suit_the_base(recipe: Recipe) -> str | None:
    method, quantize = recipe.method, recipe.base.quantize
    if isinstance(method, Full) and quantize != "none":
        return (
            f"method full cannot train the weights of an {quantize} base; set base.quantize to none, or use method lora"
        )
    if isinstance(method, Lora) and method.dora and quantize == "int8":
        return "method.dora does not work on an int8 base; use base.quantize nf4 or none"
    if method.type in WHOLE_WEIGHTS_ONLY.get(quantize, ()):
        return (
            f"method {method.type} does not work on an {quantize} base; set base.quantize to none, or use method lora"
        )
    if method.type in ("prefix", "cartridge") and recipe.train.gradient_checkpointing:
        return (
            f"method {method.type} does not work with train.gradient_checkpointing, which recomputes layers without "
            "the trained keys and values; set it to false"
        )
    return None


def _lora_can_begin(recipe: Recipe) -> str | None:
    method, quantize = recipe.method, recipe.base.quantize
    if not isinstance(method, Lora):
        return None
    if method.init in ("pissa", "olora") and quantize != "none":
        return (
            f"method.init {method.init} subtracts the first update from the base's weights, which an {quantize} base "
            "would round again; set base.quantize to none, or method.init to loftq for nf4"
        )
    if method.init == "loftq" and quantize != "nf4":
        return "method.init loftq corrects the rounding of NF4; set base.quantize to nf4, or method.init to default"
    return None


def _full_training_suits_the_rest(recipe: Recipe) -> str | None:
    if not isinstance(recipe.method, Full):
        return None
    if recipe.train.parallel == "fsdp":
        return "train.parallel fsdp spreads frozen weights, and method full has none; set it to ddp"
    if recipe.base.dtype == "float16":
        return "method full cannot train float16 weights, which overflow; set base.dtype to bfloat16 or float32"
    return None


def _narrow_adapters_have_their_optimizer(recipe: Recipe) -> str | None:
    if recipe.train.adapter_dtype == "bfloat16" and recipe.train.optimizer != "adamw":
        return (
            f"train.adapter_dtype bfloat16 needs an optimizer with 32-bit weights, and {recipe.train.optimizer} has "
            "none; set train.optimizer to adamw, or leave train.adapter_dtype out"
        )
    return None


def why_not_in_bfloat16(recipe: Recipe) -> str | None:
    """Why frozen layers cannot multiply in bfloat16 with float32 adapters, or None."""
    base, method = recipe.base, recipe.method
    if isinstance(method, Full):
        return "method full leaves no layer frozen"
    if base.quantize != "none":
        return f"the layers of an {base.quantize} base have their own products"
    if base.dtype in ("bfloat16", "float16"):
        return f"with base.dtype {base.dtype} every layer multiplies in that type"
    if isinstance(method, Lora) and method.dora:
        return "method.dora needs the norms of the base's weights in float32"
    if method.type not in LEAVES_WEIGHTS_ALONE:
        return f"method {method.type} reads the base's weights, which it needs in float32"
    return None


def _bfloat16_products_suit_the_rest(recipe: Recipe) -> str | None:
    reason = why_not_in_bfloat16(recipe) if recipe.train.frozen_products == "bfloat16" else None
    return None if reason is None else f"train.frozen_products cannot be bfloat16: {reason}; leave it out"


RULES: tuple[Rule, ...] = (
    _labels_belong_to_classify,
    _prompts_hold_the_text,
    _formats_fit_the_task,
    _fields_fit_the_task,
    _metrics_fit_the_task,
    _packing_makes_its_own_batches,
    _methods_suit_the_base,
    _lora_can_begin,
    _full_training_suits_the_rest,
    _narrow_adapters_have_their_optimizer,
    _bfloat16_products_suit_the_rest,
)
"""Invalid combinations that can be found from the recipe alone. Others are checked when the base is known."""
