"""Greedy generation, for many prompts at once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from torch import nn

from edgetune.data.reasoning import CHANNEL_MARKS, REASONING_MARKS
from edgetune.events import ProgressHandle
from edgetune.training.objectives.adapted import base_model, has_virtual_tokens, on_device_of
from edgetune.training.objectives.padding import attention_mask, pad_rows
from edgetune.training.objectives.questions import in_batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS_PER_BATCH = 8192
"""Tokens of prompts and answers in one batch: about 1 GB of keys and values in a model of 3 billion parameters."""

GREEDY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "use_cache": True,
}
"""Overrides settings that a model's own generation_config.json may have."""


@dataclass(frozen=True)
class Ending:
    """How an answer ends: with one of these tokens, or with this text (empty where only tokens end it)."""

    tokens: tuple[int, ...]
    text: str = ""


@dataclass(frozen=True)
class GeneratedText:
    """A model's answer, without special tokens and outer white space.

    `marked` keeps the special tokens around reasoning (see `data.reasoning`). `ended` is False where the model was cut
    off.
    """

    text: str
    marked: str
    ended: bool


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    ending: Ending,
    max_new_tokens: int,
    progress: ProgressHandle,
    *,
    encodes: bool = False,
) -> list[GeneratedText]:
    """The answer to each prompt (ids); `progress` counts them.

    With `encodes`, an encoder reads the prompts. Otherwise an answer continues its prompt, so padding comes first.
    """
    ends = {*ending.tokens, *_recorded_ends(model)}
    dropped = {*tokenizer.all_special_ids} - _marks_of_reasoning(tokenizer)

    def write(asked: list[Sequence[int]]) -> list[GeneratedText]:
        inputs = {
            "input_ids": pad_rows(asked, tokenizer.pad_token_id, left=not encodes),
            "attention_mask": attention_mask(asked, left=not encodes),
        }
        with warnings.catch_warnings():
            # PEFT counts positions itself, virtual tokens included, and warns that it ignores those of Transformers.
            warnings.filterwarnings("ignore", message="Position ids are not supported")
            output = model.generate(
                **on_device_of(model, inputs),
                max_new_tokens=max_new_tokens,
                eos_token_id=[*ends] or None,
                pad_token_id=tokenizer.pad_token_id,
                **GREEDY,
            )
        begins = 1 if encodes else inputs["input_ids"].shape[1]  # with an encoder, output begins with a start token
        return [read(answer[begins:]) for answer in output.tolist()]

    def read(ids: Sequence[int]) -> GeneratedText:
        written = [*takewhile(lambda token: token not in ends, ids)]
        text: str = tokenizer.decode(written, skip_special_tokens=True)
        marked: str = tokenizer.decode([token for token in written if token not in dropped])
        if not ending.text:
            return GeneratedText(text.strip(), marked.strip(), len(written) < len(ids))
        ended = len(written) < len(ids) or ending.text in text
        return GeneratedText(text.partition(ending.text)[0].strip(), marked.partition(ending.text)[0].strip(), ended)

    # PEFT puts virtual tokens before the padding, which would move them away from the text.
    alike = not encodes and has_virtual_tokens(model)
    return in_batches(
        prompts, lambda prompt: len(prompt) + max_new_tokens, write, progress, limit=TOKENS_PER_BATCH, alike=alike
    )


def _marks_of_reasoning(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The special tokens that separate reasoning from the answer."""
    known = {tokenizer.decode([token]): token for token in tokenizer.all_special_ids}
    marks = REASONING_MARKS if CHANNEL_MARKS[0] not in known else (*REASONING_MARKS, *CHANNEL_MARKS)
    return {known[mark] for mark in marks if mark in known}


def _recorded_ends(model: nn.Module) -> tuple[int, ...]:
    """The end tokens in the model's own generation_config.json, which a GGUF of the model has too."""
    said = getattr(getattr(base_model(model), "generation_config", None), "eos_token_id", None)
    return tuple(said) if isinstance(said, list | tuple) else () if said is None else (said,)
