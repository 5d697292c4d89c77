"""Methods that put trained vectors before the text: prefix tuning, prompt tuning and p-tuning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgetune.models.methods.adapted_model import AdaptedModel
from edgetune.recipe.methods import PrefixTuning, PromptTuning, PTuning

if TYPE_CHECKING:
    from peft import PeftModel, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig


def prefix(method: PrefixTuning, subject: AdaptedModel) -> PrefixTuningConfig:
    """https://arxiv.org/abs/2101.00190."""
    from peft import PrefixTuningConfig

    check_virtual_tokens(method.virtual_tokens, subject)
    check_cache(subject)
    return PrefixTuningConfig(
        **subject.common,
        num_virtual_tokens=method.virtual_tokens,
        prefix_projection=method.projection,
        encoder_hidden_size=method.hidden_size,
    )


def prompt(method: PromptTuning, subject: AdaptedModel) -> PromptTuningConfig:
    """https://arxiv.org/abs/2104.08691."""
    from peft import PromptTuningConfig

    check_virtual_tokens(method.virtual_tokens, subject)
    return PromptTuningConfig(**subject.common, **_shape(subject), num_virtual_tokens=method.virtual_tokens)


def begin_prompt(adapted: PeftModel, method: PromptTuning, subject: AdaptedModel) -> None:
    """Let the virtual tokens begin as the embeddings of a text, cut or repeated to their number.

    PEFT would load a tokenizer for it from a path, which a GGUF does not have. Raises RecipeError.
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
    from peft import PromptEncoderConfig

    check_virtual_tokens(method.virtual_tokens, subject)
    return PromptEncoderConfig(
        **subject.common,
        **_shape(subject),
        num_virtual_tokens=method.virtual_tokens,
        encoder_hidden_size=method.hidden_size,
        encoder_num_layers=method.layers,
        encoder_reparameterization_type=method.network.upper(),
        encoder_dropout=method.dropout,
    )


def check_virtual_tokens(count: int, subject: AdaptedModel) -> None:
    """Raises RecipeError when the model cannot take virtual tokens, or so many."""
    if subject.head and subject.kind == "encoder-decoder":
        raise subject.cannot(
            "a classification head on an encoder-decoder reads token ids alone, so virtual tokens cannot stand before",
            "take another method, lora for instance, or base.head lm",
        )
    context = getattr(subject.model.config.get_text_config(), "max_position_embeddings", None)
    if context is not None and count >= context:
        raise subject.cannot(
            f"method.virtual_tokens is {count}, and the model reads no more than {context} tokens",
            f"take fewer than {context}",
        )


def check_cache(subject: AdaptedModel) -> None:
    """Raises RecipeError when the model takes no cache of keys and values, as which PEFT hands a prefix over."""
    import inspect

    model = subject.model
    forwards = [model.forward, getattr(model, model.base_model_prefix, model).forward]
    if not any("past_key_values" in inspect.signature(forward).parameters for forward in forwards):
        raise subject.cannot(
            f"method prefix needs a model that takes keys and values from before, and {subject.family} does not",
            "take prompt or p-tuning",
        )


def _shape(subject: AdaptedModel) -> dict[str, Any]:
    """The model's dimensions, which PEFT looks for under the names of some families only."""
    config = subject.model.config.get_text_config()
    return {
        "token_dim": config.hidden_size,
        "num_attention_heads": config.num_attention_heads,
        "num_layers": config.num_hidden_layers,
    }
