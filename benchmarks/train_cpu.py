"""Training speed on the CPU: edgetune against plain TRL, same examples, model, adapter, batches and steps.

    python benchmarks/train_cpu.py [RECIPE] [-s KEY=VALUE ...] [--steps 20] [--rounds 3]

The two sides take turns, each run in a process of its own; the time is that of the training loop, without loading and
the first step. Both start from the same adapter weights (the recipe's seed) and see the same batches, so their
losses must agree. TRL runs with what makes it quickest here: no gradient checkpointing, float32, completion-only loss.
It must be at most 1.14: from 1.15 on its loss needs Triton, and so a GPU.

    python benchmarks/train_cpu.py --products [--seeds 3] [--steps 20] [--rounds 3]

compares edgetune with itself instead: frozen layers in float32 and in bfloat16 (train.frozen_products), by time,
processor time and memory. With --seeds it trains for each seed both ways and compares the losses of the recipe's
evaluation; --steps 0 is then the whole recipe.
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
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.cli.app import OPENMP_SPINS

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from edgetune.recipe.schema import Recipe


def main() -> None:
    options = read_options()
    if options.side:
        print(json.dumps({"edgetune": run_edgetune, "trl": run_trl, "evaluated": run_evaluated}[options.side](options)))
    elif options.seeds:
        compare_evaluations(options)
    elif options.products:
        report_products(in_turns(options, {kind: ("edgetune", of_products(kind)) for kind in PRODUCTS}))
    else:
        report(in_turns(options, {side: (side, ()) for side in ("trl", "edgetune")}))


PRODUCTS = ("float32", "bfloat16")


def of_products(kind: str) -> tuple[str, ...]:
    return ("-s", f"train.frozen_products={kind}")


def in_turns(
    options: argparse.Namespace, sides: Mapping[str, tuple[str, tuple[str, ...]]]
) -> dict[str, list[dict[str, Any]]]:
    """What each side's runs found, in rounds in which every side runs once. A side is a name and more options."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for round_number in range(options.rounds):
        for name, (side, more) in sides.items():
            results[name].append(run_side(side, *more))
            speed = results[name][-1]["tokens_per_second"]
            print(f"round {round_number + 1}, {name}: {speed:.0f} tokens/s", file=sys.stderr)
    return results


def run_side(side: str, *more: str) -> dict[str, Any]:
    """What one side finds, in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], *more, "--side", side]
    environment = {"GOMP_SPINCOUNT": OPENMP_SPINS, **os.environ}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    return found


def report_products(results: dict[str, list[dict[str, Any]]]) -> None:
    """Medians of both ways, and the ratios of each round."""
    wide, narrow = (results[kind] for kind in PRODUCTS)
    for kind, runs in results.items():
        speed, seconds, memory = (
            statistics.median(run[key] for run in runs)
            for key in ("tokens_per_second", "processor_seconds_per_step", "peak_memory_bytes")
        )
        losses = runs[0]["losses"]
        print(
            f"{kind:9} {speed:7.0f} tokens/s {seconds:8.2f} s of processor time per step {memory / 1e6:7.0f} MB   "
            f"loss {losses[0]:.4f} → {losses[-1]:.4f}"
        )
    for name, key, first, second in (
        ("tokens/s", "tokens_per_second", narrow, wide),
        ("processor time", "processor_seconds_per_step", wide, narrow),
    ):
        ratios = [one[key] / other[key] for one, other in zip(first, second, strict=True)]
        rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"bfloat16 is {statistics.median(ratios):.2f} times as good by {name} (rounds: {rounds})")


def compare_evaluations(options: argparse.Namespace) -> None:
    """The evaluation's loss for each seed both ways, and how far seeds lie apart."""
    losses: dict[str, list[float]] = {kind: [] for kind in PRODUCTS}
    for seed in range(options.seeds):
        for kind, found in losses.items():
            found.append(run_side("evaluated", *of_products(kind), "-s", f"train.seed={seed}")["eval_loss"])
        print(f"seed {seed}: " + ", ".join(f"{kind} {found[-1]:.4f}" for kind, found in losses.items()), flush=True)
    for kind, found in losses.items():
        print(f"{kind:9} mean {statistics.fmean(found):.4f}, from {min(found):.4f} to {max(found):.4f}")
    differences = [abs(one - other) for one, other in zip(*losses.values(), strict=True)]
    print(f"largest difference between the two ways with one seed: {max(differences):.4f}")


def report(results: dict[str, list[dict[str, Any]]]) -> None:
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
    from edgetune.training.run import train
    from edgetune.training.run_directory import RunDirectory
    from edgetune.training.telemetry import Telemetry

    processor_seconds: list[float] = []
    log = Telemetry.log

    def log_and_note(*arguments, **values) -> None:
        processor_seconds.append(time.process_time())
        log(*arguments, **values)

    Telemetry.log = log_and_note
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train(load(options), run)
        rows = [row for row in RunDirectory(run).read_metrics() if "loss" in row]
    timed = rows[-1]["tokens"] - rows[0]["tokens"]
    steps = len(rows) - 1
    return {
        "processor_seconds_per_step": (processor_seconds[steps] - processor_seconds[0]) / steps,
        "peak_memory_bytes": rows[-1]["peak_memory_bytes"],
        "tokens": rows[-1]["tokens"],
        "supervised": rows[-1]["supervised_tokens"],
        "losses": [row["loss"] for row in rows],
        "tokens_per_second": timed / (rows[-1]["seconds"] - rows[0]["seconds"]),
    }


def run_evaluated(options: argparse.Namespace) -> dict:
    from edgetune.training.run import train

    with tempfile.TemporaryDirectory() as folder:
        return train(load(options, evaluates=True), Path(folder) / "run").model_dump()


def run_trl(options: argparse.Namespace) -> dict:
    from edgetune.training.backends.transformers import load_adapted_model
    from edgetune.training.prepare import prepare

    recipe = load(options)
    prepared = prepare(recipe)
    return train_with_trl(recipe, load_adapted_model(recipe, prepared), prepared.tokenizer)


def train_with_trl(recipe: Recipe, model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> dict:
    """The recipe's data and settings in TRL's SFTTrainer, or in what has been put in its place."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from edgetune.data.load import load_data

    conversations = load_data(recipe.data, recipe.task).train
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


def load(options: argparse.Namespace, *, evaluates: bool = False) -> Recipe:
    """The recipe for so many steps, frozen layers in float32 unless the command says otherwise."""
    from edgetune.recipe.load import load_recipe

    overrides = ["train.frozen_products=float32", *options.overrides, "train.log_every=1"]
    if options.steps:
        overrides.append(f"train.max_steps={options.steps}")
    return load_recipe(options.recipe, overrides if evaluates else [*overrides, "data.eval=[]"])


def read_options(description: str | None = __doc__) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="demo")
    parser.add_argument("-s", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--products", action="store_true")
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
