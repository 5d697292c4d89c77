"""What a model writes by itself: always the likeliest next token, for many prompts at once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from torch import nn

from edgetune.console import ProgressHandle
from edgetune.train.objectives.adapted import base_model, has_virtual_tokens, on_device_of
from edgetune.train.objectives.padding import attention_mask, pad_rows
from edgetune.train.objectives.questions import in_batches

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
    "use_cache": True,
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

    ends = {*ending.tokens, *_recorded_ends(model)}

    def write(places: Sequence[int]) -> list[str]:
        asked = [prompts[place] for place in places]
        inputs = {
            "input_ids": pad_rows(asked, tokenizer.pad_token_id, left=not encodes),
            "attention_mask": attention_mask(asked, left=not encodes),
        }
        with warnings.catch_warnings():
            # Transformers counts positions; PEFT, which counts virtual tokens too, says that it does not listen.
            warnings.filterwarnings("ignore", message="Position ids are not supported")
            output = model.generate(
                **on_device_of(model, inputs),
                max_new_tokens=max_new_tokens,
                eos_token_id=[*ends] or None,
                pad_token_id=tokenizer.pad_token_id,
                **GREEDY,
            )
        begins = 1 if encodes else inputs["input_ids"].shape[1]  # a decoder behind an encoder begins with a start token
        return [read(answer[begins:]) for answer in output.tolist()]

    def read(ids: Sequence[int]) -> str:
        written = takewhile(lambda token: token not in ends, ids)
        text: str = tokenizer.decode([*written], skip_special_tokens=True)
        return (text.partition(ending.text)[0] if ending.text else text).strip()

    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    # PEFT puts virtual tokens before the padding, from where they would be further away in a padded prompt.
    alike = not encodes and has_virtual_tokens(model)
    return in_batches(lengths, write, progress, limit=TOKENS_PER_BATCH, alike=alike)


def _recorded_ends(model: nn.Module) -> tuple[int, ...]:
    """What the model's own generation_config.json stops at, and with it a GGUF of the model."""
    said = getattr(getattr(base_model(model), "generation_config", None), "eos_token_id", None)
    return tuple(said) if isinstance(said, list | tuple) else () if said is None else (said,)
