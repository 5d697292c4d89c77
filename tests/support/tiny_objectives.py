"""What the tests of objectives share: an adapter of each sort on a tiny model, and progress that counts."""

from __future__ import annotations

from typing import Any

VIRTUAL_TOKENS = 5
PROMPT_LEARNING = ("prefix", "prompt", "p-tuning")
_TARGETS = {"t5": ["q", "v"], "bert": ["query", "value"], "distilbert": ["q_lin", "v_lin"]}


class Counter:
    """Progress that remembers how much was done."""

    def __init__(self) -> None:
        self.done = 0.0

    def advance(self, amount: float = 1, text: str = "") -> None:
        self.done += amount


def adapt(model: Any, method: str, task_type: str) -> Any:
    """`model` in evaluation mode with an adapter (lora with a B that is not zero, prefix, prompt or p-tuning)."""
    from peft import LoraConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model

    family = model.config.model_type
    # PEFT reads the sizes off a configuration, but not by the names that DistilBERT gives them.
    sizes = {"token_dim": 32, "num_layers": 2, "num_attention_heads": 4} if family == "distilbert" else {}
    shape: dict[str, Any] = {"task_type": task_type, "num_virtual_tokens": VIRTUAL_TOKENS, **sizes}
    if method == "lora":
        targets = _TARGETS.get(family, "all-linear")
        config = LoraConfig(task_type=task_type, r=4, target_modules=targets, init_lora_weights=False)
    elif method == "prefix":
        config = PrefixTuningConfig(**shape)
    elif method == "prompt":
        config = PromptTuningConfig(**shape)
    else:
        config = PromptEncoderConfig(**shape, encoder_hidden_size=16)
    return get_peft_model(model, config).eval()
