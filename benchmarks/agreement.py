"""How closely the adapter, the merged model and its GGUF files agree, on texts of the demo's held-out half.

    python benchmarks/agreement.py RUN [--texts 20]

RUN is a finished run on the demo's task (runs/demo). Every figure compares log-probabilities over the whole vocabulary,
at every position of each conversation, with those of the unmerged adapter in Transformers.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from edgetune.data.load import load_examples
from edgetune.gguf.write import export
from edgetune.models.load import load_model
from edgetune.recipe.load import load_recipe
from edgetune.runtime.session import Session
from edgetune.weights.merge import merge
from edgetune.weights.source import resolve_source

PRESETS = ("f32", "f16", "q4_k_m")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--texts", type=int, default=20)
    options = parser.parse_args()
    recipe = load_recipe(str(options.run / "recipe.yaml"))
    examples = load_examples(recipe.data.eval, recipe.data, recipe.task)[: options.texts]
    source = resolve_source(str(options.run))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        merge(source, folder / "merged")
        for preset in PRESETS:
            export(source, folder / f"{preset}.gguf", preset=preset)
        base = load_model(source.base, dtype=torch.float32)
        adapted = PeftModel.from_pretrained(base, options.run / "adapter").eval()
        merged = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=torch.float32).eval()
        sessions = {preset: Session.open(folder / f"{preset}.gguf") for preset in PRESETS}
        differences: dict[str, list[float]] = {"merged": [], **{preset: [] for preset in PRESETS}}
        agreements: dict[str, list[float]] = {side: [] for side in differences}
        for example in examples:
            ids = sessions["f16"].tokenize(sessions["f16"].template.render(example.messages))
            reference = log_probabilities(adapted, ids)
            found = {"merged": log_probabilities(merged, ids)}
            found |= {preset: session.log_probabilities(ids) for preset, session in sessions.items()}
            for side, rows in found.items():
                differences[side].append(float(np.abs(rows - reference).max()))
                agreements[side].append(float((rows.argmax(-1) == reference.argmax(-1)).mean()))
    for side, values in differences.items():
        print(
            f"{side:8} largest difference {max(values):8.5f}   top-1 agreement {100 * np.mean(agreements[side]):6.2f} %"
        )


@torch.no_grad()
def log_probabilities(model: torch.nn.Module, ids: list[int]) -> np.ndarray:
    """Of every next token after each of `ids`: (len(ids), vocabulary), in nats."""
    return model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1).numpy()


if __name__ == "__main__":
    main()
