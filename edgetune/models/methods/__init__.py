"""Training methods. Each is a function from a recipe's section to PEFT's configuration, and a line in METHODS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgetune.models.methods import lora as _lora
from edgetune.models.methods import prompts as _prompts
from edgetune.models.methods.adalora import adalora, begin_adalora
from edgetune.models.methods.adapted_model import AdaptedModel
from edgetune.models.methods.fields import by_fields
from edgetune.models.methods.ia3 import ia3
from edgetune.models.methods.other import other_peft
from edgetune.models.methods.updates import oft, shira
from edgetune.recipe.methods import PEFT_METHODS

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

METHODS: Mapping[str, Callable[[Any, AdaptedModel], PeftConfig]] = {
    "lora": _lora.lora,
    "adalora": adalora,
    "ia3": ia3,
    **dict.fromkeys(("loha", "lokr", "hira", "vera"), by_fields),
    "shira": shira,
    "oft": oft,
    "prefix": _prompts.prefix,
    "prompt": _prompts.prompt,
    "p-tuning": _prompts.p_tuning,
    **dict.fromkeys(PEFT_METHODS, other_peft),
}
"""By the recipe's `method.type`, without `full`, which makes no adapter."""

BEGINNINGS: Mapping[str, Callable[[PeftModel, Any, AdaptedModel], None]] = {
    "lora": _lora.begin,
    "adalora": begin_adalora,
    "prompt": _prompts.begin_prompt,
}
"""What these methods do to a new adapter before it trains."""
