"""The tokens that end an answer: what a model's files record, and what its chat template puts behind one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgetune import events
from edgetune.data.answer_end import AnswerEnd, find_answer_end, marks_in
from edgetune.data.template import ChatTemplate
from edgetune.models.gguf_file import GgufFile
from edgetune.models.locate import ModelFiles
from edgetune.models.tokenizer import ModelTokenizer

GENERATION_CONFIG = "generation_config.json"


def recorded_ends(files: ModelFiles) -> tuple[int, ...]:
    """The ids at which the model of `files` stops, as far as they say.

    In a folder, generation_config.json's eos_token_id (one or several), and where it says none config.json's; a GGUF's
    EOS, EOT and EOM.
    """
    if files.gguf is not None:
        metadata = GgufFile(files.gguf).metadata
        said: Any = [metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("eos", "eot", "eom")]
    else:
        said = _settings(files.folder / GENERATION_CONFIG).get("eos_token_id")
        if said is None:
            config = _settings(files.folder / "config.json")
            text = config.get("text_config")
            said = config.get("eos_token_id", text.get("eos_token_id") if isinstance(text, dict) else None)
    listed = said if isinstance(said, list) else [said]
    return tuple(dict.fromkeys(number for number in listed if type(number) is int and number >= 0))


def answer_end(tokenizer: ModelTokenizer) -> AnswerEnd | None:
    """What the tokenizer's chat template puts behind an answer; None where that cannot be told."""
    source = tokenizer.default_template
    if source is None:
        return None
    template = ChatTemplate(source, tokenizer.bos_token, tokenizer.eos_token)
    return find_answer_end(template, tokenizer.encode, marks_in(tokenizer.added).__contains__)


def record_answer_end(folder: Path, tokenizer: ModelTokenizer) -> None:
    """Let a written model's generation_config.json name what ends an answer, beside the ends that it names already.

    Its base may never have seen the template that it was trained with, and Transformers would write on.
    """
    file, end = folder / GENERATION_CONFIG, answer_end(tokenizer)
    recorded = recorded_ends(ModelFiles(str(folder), folder))
    if end is not None and end.token is not None and end.token not in recorded and file.is_file():
        settings = {**_settings(file), "eos_token_id": [*recorded, end.token]}
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _settings(file: Path) -> dict[str, Any]:
    """What the file says; nothing where there is none. Transformers goes on without one that it cannot read, too."""
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        events.warn(f"{file} is not readable JSON ({problem}); the ends of an answer that it may name are not known")
        return {}
    return settings if isinstance(settings, dict) else {}
