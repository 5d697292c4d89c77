"""The tokens that end an answer: those that a model's files record, and the one that its chat template writes."""

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
    """The ids at which the model stops, by its files.

    A folder: eos_token_id of generation_config.json (one or several), or else of config.json. A GGUF: EOS, EOT and EOM.
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
    """What the tokenizer's chat template writes after an answer; None where that is unknown."""
    source = tokenizer.default_template
    if source is None:
        return None
    template = ChatTemplate(source, tokenizer.bos_token, tokenizer.eos_token)
    return find_answer_end(template, tokenizer.encode, marks_in(tokenizer.added).__contains__)


def record_answer_end(folder: Path, tokenizer: ModelTokenizer) -> None:
    """Add the token that ends an answer to eos_token_id in a written model's generation_config.json.

    The base may not know the template that the model was trained with; Transformers would then not stop.
    """
    file, end = folder / GENERATION_CONFIG, answer_end(tokenizer)
    recorded = recorded_ends(ModelFiles(str(folder), folder))
    if end is not None and end.token is not None and end.token not in recorded and file.is_file():
        settings = {**_settings(file), "eos_token_id": [*recorded, end.token]}
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _settings(file: Path) -> dict[str, Any]:
    """The file's settings; none where it is missing or unreadable, in which case Transformers continues, too."""
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        events.warn(f"{file} is not readable JSON ({problem}); end tokens that it may name are not used")
        return {}
    return settings if isinstance(settings, dict) else {}
