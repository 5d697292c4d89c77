"""Methods with trained vectors before the text: prefix tuning, prompt tuning and p-tuning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgetune.models.methods.adapted_model import AdaptedModel
from edgetune.models.methods.fields import by_fields
from edgetune.recipe.methods import PrefixTuning, PromptTuning, PTuning

if TYPE_CHECKING:
    from peft import PeftModel, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig


def prefix(method: PrefixTuning, subject: AdaptedModel) -> PrefixTuningConfig:
    """https://arxiv.org/abs/2101.00190."""
    check_virtual_tokens(method.virtual_tokens, subject)
    check_cache(subject)
    config: PrefixTuningConfig = by_fields(method, subject)
    return config


def prompt(method: PromptTuning, subject: AdaptedModel) -> PromptTuningConfig:
    """https://arxiv.org/abs/2104.08691."""
    check_virtual_tokens(method.virtual_tokens, subject)
    config: PromptTuningConfig = by_fields(method, subject, without=["init_text"], **_shape(subject))
    return config


def begin_prompt(adapted: PeftModel, method: PromptTuning, subject: AdaptedModel) -> None:
    """Set the virtual tokens to the embeddings of a text, cut or repeated to their number.

    PEFT would load a tokenizer from a path, which a GGUF does not have. Raises RecipeError.
    """
    if method.init_text is None or not subject.is_real:
        return
    import torch

    ids = subject.text_ids(method.init_text) if subject.text_ids else []
    if not ids:
        raise subject.cannot("method.init_text has no tokens")
    weight = adapted.prompt_encoder["default"].embedding.weight
    count = len(weight)
    ids = (ids * math.ceil(count / len(ids)))[:count]
    with torch.no_grad():
        weight.copy_(adapted.word_embeddings(torch.tensor(ids, device=adapted.word_embeddings.weight.device)))


def p_tuning(method: PTuning, subject: AdaptedModel) -> PromptEncoderConfig:
    """https://arxiv.org/abs/2103.10385."""
    check_virtual_tokens(method.virtual_tokens, subject)
    network = {"encoder_reparameterization_type": method.network.upper()}
    config: PromptEncoderConfig = by_fields(method, subject, without=["network"], **network, **_shape(subject))
    return config


def check_virtual_tokens(count: int, subject: AdaptedModel) -> None:
    """Raises RecipeError when the model cannot take virtual tokens, or so many."""
    if subject.head and subject.kind == "encoder-decoder":
        raise subject.cannot(
            "a classification head on an encoder-decoder only reads token ids, so it cannot have virtual tokens",
            "use another method, such as lora, or base.head lm",
        )
    context = getattr(subject.model.config.get_text_config(), "max_position_embeddings", None)
    if context is not None and count >= context:
        raise subject.cannot(
            f"method.virtual_tokens is {count}, and the model reads at most {context} tokens",
            f"use fewer than {context}",
        )


def check_cache(subject: AdaptedModel) -> None:
    """Raises RecipeError when the model has no cache of keys and values, in which PEFT passes a prefix."""
    import inspect

    model = subject.model
    forwards = [model.forward, getattr(model, model.base_model_prefix, model).forward]
    if not any("past_key_values" in inspect.signature(forward).parameters for forward in forwards):
        raise subject.cannot(
            f"method prefix needs a model with a cache of keys and values, and {subject.family} has none",
            "use prompt or p-tuning",
        )


def _shape(subject: AdaptedModel) -> dict[str, Any]:
    """The model's dimensions, which PEFT only finds under the names of some families."""
    config = subject.model.config.get_text_config()
    return {
        "token_dim": config.hidden_size,
        "num_attention_heads": config.num_attention_heads,
        "num_layers": config.num_hidden_layers,
    }
