"""Training speed on the CPU: edgetune against plain TRL, same examples, model, adapter, batches and steps.

    python benchmarks/train_cpu.py [RECIPE] [-s KEY=VALUE ...] [--steps 20] [--rounds 3]

The two sides take turns, each run in a process of its own; the time is that of the training loop, without loading and
the first step. Both start from the same adapter weights (the recipe's seed) and see the same batches, so their
losses must agree. TRL runs with what makes it quickest here: no gradient checkpointing, float32, completion-only loss.
It must be at most 1.14: from 1.15 on its loss needs Triton, and so a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.cli.app import OPENMP_SPINS

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from edgetune.recipe.schema import Recipe


def main() -> None:
    options = read_options()
    if options.side:
        print(json.dumps({"edgetune": run_edgetune, "trl": run_trl}[options.side](options)))
        return
    results: dict[str, list[dict]] = {"trl": [], "edgetune": []}
    for round_number in range(options.rounds):
        for side, runs in results.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            environment = {"GOMP_SPINCOUNT": OPENMP_SPINS, **os.environ}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            runs.append(json.loads(done.stdout.strip().split("\n")[-1]))
            print(f"round {round_number + 1}, {side}: {runs[-1]['tokens_per_second']:.0f} tokens/s", file=sys.stderr)
    report(results)


def report(results: dict[str, list[dict]]) -> None:
    """Medians, their ratio, and the largest relative difference of the two loss curves."""
    trl, ours = results["trl"], results["edgetune"]
    assert trl[0]["tokens"] == ours[0]["tokens"], "the sides trained on different tokens"
    speeds = {side: statistics.median(run["tokens_per_second"] for run in runs) for side, runs in results.items()}
    ratios = [mine["tokens_per_second"] / theirs["tokens_per_second"] for mine, theirs in zip(ours, trl, strict=True)]
    difference = max(abs(a - b) / b for a, b in zip(ours[0]["losses"], trl[0]["losses"], strict=True))
    print(f"{trl[0]['tokens']} tokens in {len(trl[0]['losses'])} steps, {ours[0]['supervised']} of them supervised")
    print(f"TRL       {speeds['trl']:7.0f} tokens/s   loss {trl[0]['losses'][0]:.4f} → {trl[0]['losses'][-1]:.4f}")
    print(
        f"edgetune  {speeds['edgetune']:7.0f} tokens/s   loss {ours[0]['losses'][0]:.4f} → {ours[0]['losses'][-1]:.4f}"
    )
    print(f"ratio     {statistics.median(ratios):7.2f}  (rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    print(f"largest difference of the loss curves: {100 * difference:.3f} %")


def run_edgetune(options: argparse.Namespace) -> dict:
    from edgetune.train.run import train
    from edgetune.train.run_directory import RunDirectory

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train(load(options), run)
        rows = [row for row in RunDirectory(run).read_metrics() if "loss" in row]
    timed = rows[-1]["tokens"] - rows[0]["tokens"]
    return {
        "tokens": rows[-1]["tokens"],
        "supervised": rows[-1]["supervised_tokens"],
        "losses": [row["loss"] for row in rows],
        "tokens_per_second": timed / (rows[-1]["seconds"] - rows[0]["seconds"]),
    }


def run_trl(options: argparse.Namespace) -> dict:
    from edgetune.train.backends.transformers import load_adapted_model
    from edgetune.train.prepare import prepare

    recipe = load(options)
    prepared = prepare(recipe)
    return train_with_trl(recipe, load_adapted_model(recipe, prepared), prepared.tokenizer)


def train_with_trl(recipe: Recipe, model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> dict:
    """The recipe's data and settings in TRL's SFTTrainer, or in what has been put in its place."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from edgetune.data.load import load_examples

    conversations = load_examples(recipe.data.train, recipe.data, recipe.task)
    rows = [[{"role": turn.role, "content": turn.content} for turn in row.messages] for row in conversations]
    steps: list[tuple[float, int]] = []

    class Stopwatch(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            steps.append((time.monotonic(), trainer._total_train_tokens))

    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=folder,
                max_steps=recipe.train.max_steps,
                per_device_train_batch_size=recipe.train.batch_size,
                gradient_accumulation_steps=recipe.train.accumulate,
                learning_rate=recipe.train.learning_rate,
                lr_scheduler_type=recipe.train.schedule,
                warmup_steps=recipe.train.warmup_steps,
                optim="adamw_torch_fused",
                weight_decay=recipe.train.weight_decay,
                max_grad_norm=recipe.train.max_grad_norm,
                max_length=recipe.data.max_length,
                completion_only_loss=True,
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=True,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=recipe.train.seed,
                data_seed=recipe.train.seed,
            ),
            train_dataset=Dataset.from_list([{"prompt": row[:-1], "completion": row[-1:]} for row in rows]),
            processing_class=tokenizer,
            callbacks=[Stopwatch()],
        )
        trainer.train()
    seconds = steps[-1][0] - steps[0][0]
    return {
        "tokens": steps[-1][1],
        "losses": [row["loss"] for row in trainer.state.log_history if "loss" in row],
        "tokens_per_second": (steps[-1][1] - steps[0][1]) / seconds,
    }


def load(options: argparse.Namespace):
    from edgetune.recipe.load import load_recipe

    overrides = [*options.overrides, f"train.max_steps={options.steps}", "data.eval=[]", "train.log_every=1"]
    return load_recipe(options.recipe, overrides)


def read_options(description: str | None = __doc__) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="demo")
    parser.add_argument("-s", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
