"""Training speed without a GPU: edgetune against Unsloth's CPU backend, same examples, model, adapter, batches, steps.

    .venv-unsloth/bin/python benchmarks/train_unsloth.py [RECIPE] [-s KEY=VALUE ...] [--steps 12] [--rounds 3]

`make .venv-unsloth/.ready` makes that environment. The sides take turns, each run in a process of its own; the time is
that of the training loop, without loading and the first step:

- unsloth: Unsloth's own way, FastLanguageModel and TRL's SFTTrainer as Unsloth changes it, without gradient
  checkpointing. UNSLOTH_CPU_COMPILE=1 in the environment lets it compile the layers.
- backend unsloth: edgetune's trainer on the model that Unsloth loads (train.backend: unsloth).
- edgetune: edgetune's trainer on the model that Transformers loads (train.backend: transformers).

All begin with the same adapter weights and see the same batches, so their losses must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from train_cpu import load, read_options, run_edgetune, train_with_trl

from edgetune.cli.app import OPENMP_SPINS

SIDES = {"unsloth": "transformers", "backend unsloth": "unsloth", "edgetune": "transformers"}
"""The sides, and the train.backend of each."""


def main() -> None:
    options = read_options(__doc__)
    if options.side == "save":
        save_base(options)
    elif options.side:
        run = run_unsloth if options.side == "unsloth" else run_edgetune
        print(json.dumps(run(options)))
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Rounds in which every side runs once, and their report."""
    results: dict[str, list[dict]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        run_side("save", f"base.model={folder}")
        for number in range(options.rounds):
            for side, backend in SIDES.items():
                printed = run_side(side, f"base.model={folder}", f"train.backend={backend}")
                results[side].append(json.loads(printed.strip().split("\n")[-1]))
                speed = results[side][-1]["tokens_per_second"]
                print(f"round {number + 1}, {side}: {speed:.0f} tokens/s", file=sys.stderr)
    report(results)


def run_side(side: str, *overrides: str) -> str:
    """What this script prints as one side, in a process of its own."""
    settings = [word for override in overrides for word in ("-s", override)]
    command = [sys.executable, __file__, *sys.argv[1:], *settings, "--side", side]
    environment = {"GOMP_SPINCOUNT": OPENMP_SPINS, **os.environ}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


def save_base(options: argparse.Namespace) -> None:
    """The recipe's own base as a folder of float32 safetensors, because Unsloth reads no GGUF."""
    import torch

    from edgetune.models.load import load_model, load_tokenizer
    from edgetune.models.locate import locate_model

    *overrides, target = options.overrides
    options.overrides = overrides
    files = locate_model(load(options).base.model)
    folder = Path(target.removeprefix("base.model="))
    load_model(files, dtype=torch.float32).save_pretrained(folder)
    load_tokenizer(files).save_pretrained(folder)


def run_unsloth(options: argparse.Namespace) -> dict:
    import unsloth  # before Transformers and TRL, as it asks for

    from edgetune.models.load import resolve_dtype
    from edgetune.training.prepare import prepare

    recipe = load(options)
    method = recipe.method
    model, _ = unsloth.FastLanguageModel.from_pretrained(
        recipe.base.model,
        dtype=resolve_dtype(recipe.base.dtype),
        load_in_4bit=recipe.base.quantize == "nf4",
        use_gradient_checkpointing=False,
    )
    adapted = unsloth.FastLanguageModel.get_peft_model(
        model,
        r=method.rank,
        lora_alpha=method.alpha,
        target_modules=method.targets or "all-linear",
        use_gradient_checkpointing=False,
        random_state=recipe.train.seed,
    )
    return train_with_trl(recipe, adapted, prepare(recipe).tokenizer)


def report(results: dict[str, list[dict]]) -> None:
    """Median speeds, how many times quicker the others are than Unsloth, and how far the loss curves are apart."""
    theirs = results["unsloth"]
    assert len({run["tokens"] for runs in results.values() for run in runs}) == 1, "different tokens were trained on"
    print(f"{theirs[0]['tokens']} tokens in {len(theirs[0]['losses'])} steps")
    for side, runs in results.items():
        speed = statistics.median(run["tokens_per_second"] for run in runs)
        ratios = [
            run["tokens_per_second"] / other["tokens_per_second"] for run, other in zip(runs, theirs, strict=True)
        ]
        losses, reference = runs[0]["losses"], theirs[0]["losses"]
        apart = max(abs(a - b) / b for a, b in zip(losses, reference, strict=True))
        print(
            f"{side:16}{speed:6.0f} tokens/s, {statistics.median(ratios):.2f} times unsloth's "
            f"(rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)}), "
            f"loss {losses[0]:.4f} → {losses[-1]:.4f}, at most {100 * apart:.3f} % from unsloth's"
        )


if __name__ == "__main__":
    main()
