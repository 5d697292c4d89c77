"""Training methods: each is a function that makes PEFT's configuration of a recipe's section, and a line in METHODS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgetune.models.methods import lora as _lora
from edgetune.models.methods import prompts as _prompts
from edgetune.models.methods.adalora import adalora, begin_adalora
from edgetune.models.methods.adapted_model import AdaptedModel
from edgetune.models.methods.ia3 import ia3
from edgetune.models.methods.other import other_peft
from edgetune.models.methods.updates import hira, loha, lokr, oft, shira, vera
from edgetune.recipe.methods import PEFT_METHODS

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

METHODS: Mapping[str, Callable[[Any, AdaptedModel], PeftConfig]] = {
    "lora": _lora.lora,
    "adalora": adalora,
    "ia3": ia3,
    "loha": loha,
    "lokr": lokr,
    "hira": hira,
    "shira": shira,
    "oft": oft,
    "vera": vera,
    "prefix": _prompts.prefix,
    "prompt": _prompts.prompt,
    "p-tuning": _prompts.p_tuning,
    **dict.fromkeys(PEFT_METHODS, other_peft),
}
"""By the recipe's `method.type`. `full` is not among them: it makes no adapter."""

BEGINNINGS: Mapping[str, Callable[[PeftModel, Any, AdaptedModel], None]] = {
    "lora": _lora.begin,
    "adalora": begin_adalora,
    "prompt": _prompts.begin_prompt,
}
"""What is done to a fresh adapter of these methods before it trains."""
