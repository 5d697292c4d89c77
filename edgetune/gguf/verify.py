"""Reopens a written GGUF in llama.cpp and compares what it says with what it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.errors import ModelError, VerificationFailed
from edgetune.gguf.llama_vocabulary import open_vocabulary
from edgetune.gguf.vocabulary import disagreement
from edgetune.models.gguf_file import GgufFile

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def verify_export(file: Path, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, name: Path) -> None:
    """Raise VerificationFailed (calling the file `name`) unless llama.cpp opens `file` with all its tensors, gives the
    tokenizer's ids on `texts`, and the chat template is the tokenizer's.
    """
    try:
        with open_vocabulary(file, whole_model=True) as vocabulary:
            failed = disagreement(vocabulary, tokenizer, texts)
    except ModelError as problem:
        raise VerificationFailed(problem.what, where=name, remedy="the file was not kept") from problem
    if failed is not None:
        raise VerificationFailed(
            f"llama.cpp and the tokenizer give different ids for {failed[:60]!r}",
            where=name,
            remedy="the file was not kept",
        )
    template = tokenizer.chat_template
    expected = template.get("default") if isinstance(template, dict) else template
    if GgufFile(file).metadata.get("tokenizer.chat_template") != expected:
        raise VerificationFailed(
            "the chat template in the file is not the tokenizer's", where=name, remedy="the file was not kept"
        )
