"""How closely the adapter, the merged model and its GGUF files agree, on texts of the demo's held-out half.

    python benchmarks/agreement.py RUN [--texts 20]

RUN is a finished run on the demo's task (runs/demo). Every figure compares log-probabilities over the whole vocabulary,
at every position of each conversation, with those of the unmerged adapter in Transformers.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetune.data.load import load_data
from edgetune.gguf.verification.divergence import LogProbabilities, measure_divergence
from edgetune.gguf.verification.reference import open_reference
from edgetune.gguf.write import export
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
    examples = load_data(recipe.data, recipe.task).evaluation[: options.texts]
    source = resolve_source(str(options.run))
    adapted = lru_cache(maxsize=None)(open_reference(source))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        merge(source, folder / "merged")
        sides: dict[str, LogProbabilities] = {"merged": open_reference(resolve_source(str(folder / "merged")))}
        for preset in PRESETS:
            export(source, folder / f"{preset}.gguf", preset=preset)
            session = Session.open(folder / f"{preset}.gguf", flash_attention=False)
            sides[preset] = session.context.log_probabilities
        windows = [
            tuple(session.vocabulary.tokenize(session.vocabulary.template.render(example.messages)))
            for example in examples
        ]
        for side, read in sides.items():
            compare(side, windows, adapted, read)


def compare(side: str, windows: Sequence[tuple[int, ...]], adapted: LogProbabilities, read: LogProbabilities) -> None:
    """Print how far one side is from the adapter."""
    largest = 0.0

    def watched(ids: Sequence[int]) -> NDArray[np.float32]:
        nonlocal largest
        rows = read(ids)
        largest = max(largest, float(np.abs(rows - adapted(ids)).max()))
        return rows

    figures = measure_divergence(windows, adapted, watched)
    print(
        f"{side:8} largest difference {largest:8.5f}   mean KL {figures.kl_mean:.6f}, 99 % {figures.kl_p99:.5f} nats"
        f"   top-1 agreement {100 * figures.top1_agreement:6.2f} %   perplexity ratio {figures.perplexity_ratio:.4f}"
    )


if __name__ == "__main__":
    main()
