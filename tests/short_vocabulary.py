"""A tiny Llama that knows a part of its vocabulary: reading, writing and proving 49,152 tokens takes seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

WORDS = 6144


def save_short_llama(base: Path, folder: Path) -> Path:
    """The Llama of the folder `base` with new random weights and the first WORDS tokens of its byte-level BPE.

    BPE numbers its tokens in the order of its merges, so that what is left spells the rest.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig.from_pretrained(base)
    config.vocab_size = WORDS
    LlamaForCausalLM(config).save_pretrained(folder)
    for file in base.iterdir():
        if not (folder / file.name).exists():
            shutil.copy(file, folder)
    tokenizer = folder / "tokenizer.json"
    settings = json.loads(tokenizer.read_text(encoding="utf-8"))
    model = settings["model"]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if number < WORDS}
    model["merges"] = [pair for pair in model["merges"] if {*pair, "".join(pair)} <= model["vocab"].keys()]
    tokenizer.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    return folder
