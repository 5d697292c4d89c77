"""What a model writes by itself: always the likeliest next token, for many prompts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgetune.console import ProgressHandle
from edgetune.train.objectives.padding import attention_mask, pad_rows
from edgetune.train.objectives.questions import batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS_PER_BATCH = 8192
"""Prompts and answers of one batch: about a gigabyte of keys and values in a model of three billion parameters."""

GREEDY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
}
"""What a model's own generation_config.json might say otherwise."""


@dataclass(frozen=True)
class Ending:
    """How an answer ends: by one of these tokens, or with this text (empty where the tokens are all there is)."""

    tokens: tuple[int, ...]
    text: str = ""


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    ending: Ending,
    max_new_tokens: int,
    progress: ProgressHandle,
    *,
    encodes: bool = False,
) -> list[str]:
    """The answer to each prompt (ids) as text without special tokens; `progress` counts them.

    With `encodes`, an encoder reads the prompts. Otherwise answers go on where they end, so they are padded in front.
    """
    written = [""] * len(prompts)
    device = next(model.parameters()).device
    for places in batches([len(prompt) + max_new_tokens for prompt in prompts], TOKENS_PER_BATCH):
        asked = [prompts[place] for place in places]
        input_ids = pad_rows(asked, tokenizer.pad_token_id, left=not encodes)
        with torch.no_grad():
            output = model.generate(
                input_ids=input_ids.to(device),
                attention_mask=attention_mask(asked, left=not encodes).to(device),
                max_new_tokens=max_new_tokens,
                eos_token_id=list(ending.tokens),
                pad_token_id=tokenizer.pad_token_id,
                **GREEDY,
            )
        for place, answer in zip(places, output.tolist(), strict=True):
            text = tokenizer.decode(answer if encodes else answer[input_ids.shape[1] :], skip_special_tokens=True)
            written[place] = (text.split(ending.text)[0] if ending.text else text).strip()
            progress.advance()
    return written
