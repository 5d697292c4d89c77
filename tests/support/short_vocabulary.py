"""A part of SmolLM2's vocabulary for tiny models: reading, writing and proving all 49,152 tokens takes seconds."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = 6144


def shorten_vocabulary(folder: Path) -> None:
    """Keep the first WORDS tokens of the byte-level BPE that is saved in `folder`.

    BPE numbers its tokens in the order of its merges, so that what is left spells the rest.
    """
    tokenizer = folder / "tokenizer.json"
    settings = json.loads(tokenizer.read_text(encoding="utf-8"))
    model = settings["model"]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if number < WORDS}
    model["merges"] = [pair for pair in model["merges"] if {*pair, "".join(pair)} <= model["vocab"].keys()]
    tokenizer.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
