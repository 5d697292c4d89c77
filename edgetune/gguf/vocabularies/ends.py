"""The tokens that end an answer in llama.cpp: EOS, EOT and EOM of the file, and some that it knows by their text.

llama.cpp's generation stops at these (special_eog_ids in llama-vocab.cpp), Transformers' at those that
generation_config.json names. The token that training puts after an answer must be among them, or an answer never ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from edgetune import events
from edgetune.errors import ModelError
from edgetune.gguf.llama_vocabulary import open_vocabulary
from edgetune.gguf.vocabularies.metadata import GgufVocabulary
from edgetune.gguf.vocabularies.proof import write_vocabulary_only
from edgetune.models.ends import answer_end
from edgetune.models.tokenizer import ModelTokenizer

_SLOTS = ("eot", "eom")
"""The roles, besides EOS, whose token ends an answer and has no other meaning in llama.cpp."""

_ALWAYS_AN_EOS = ("gpt2", "llama")
"""Kinds of vocabulary for which llama.cpp has a default EOS: token 11, or token 2."""


def with_ends(vocabulary: GgufVocabulary, tokenizer: ModelTokenizer, recorded: Iterable[int]) -> GgufVocabulary:
    """`vocabulary` with the tokens that end an answer: first the chat template's, then those that the files record.

    Warns where a template puts no token after an answer, and where there are more end tokens than a GGUF can hold.
    Raises ModelError where there is no end token and llama.cpp would use an ordinary token.
    """
    end = answer_end(tokenizer)
    own = None if end is None else end.next_turn if end.token is None else end.token
    if end is not None and own is None:
        events.warn(
            "the chat template writes no token after an answer, so a model trained with it does not learn to stop"
        )
    rows = len(vocabulary.tokens)
    wanted = [number for number in dict.fromkeys([own, *recorded]) if number is not None and number < rows]
    roles = dict(vocabulary.special_ids)
    if "eos" not in roles and wanted:
        roles["eos"] = wanted[0]
    if "eos" not in roles and vocabulary.model in _ALWAYS_AN_EOS:
        raise ModelError(
            "no token ends a text: the tokenizer has no EOS, and neither generation_config.json nor the chat template "
            "has an end token",
            where=tokenizer.where,
            remedy='set "eos_token" in tokenizer_config.json; otherwise llama.cpp would stop at an ordinary token',
        )
    if own in wanted and own != roles["eos"]:
        roles["eot"] = own
    others = [number for number in wanted if number not in roles.values()]
    if others:
        others = _unknown(replace(vocabulary, special_ids=roles), others)
        free = [slot for slot in _SLOTS if slot not in roles]
        roles |= dict(zip(free, others, strict=False))
        left = [vocabulary.tokens[number] for number in others[len(free) :]]
        if left:
            events.warn(
                f"the model also stops at {', '.join(map(repr, left))}, but a GGUF has no place for more end tokens, "
                "so llama.cpp does not stop there"
            )
    return replace(vocabulary, special_ids=roles)


def _unknown(vocabulary: GgufVocabulary, tokens: Iterable[int]) -> list[int]:
    """Those of `tokens` at which llama.cpp does not stop with this vocabulary."""
    with tempfile.TemporaryDirectory(prefix="edgetune-") as folder:
        file = Path(folder) / "vocabulary.gguf"
        write_vocabulary_only(vocabulary, file)
        with open_vocabulary(file) as opened:
            return [number for number in tokens if not opened.stops_at(number)]
