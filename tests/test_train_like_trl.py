"""The same numbers as TRL: edgetune's training is SFTTrainer's completion-only training, only without its waste."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from edgetune.recipe.load import load_recipe
from edgetune.recipe.schema import Recipe
from edgetune.training.prepare import prepare
from edgetune.training.run import train
from edgetune.training.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("no_plots")

ROWS = [
    {"prompt": f"How is it{' really' * (number % 4)}, {name}?", "completion": f"It is {' so ' * (number % 3)} good."}
    for number, name in enumerate(["Ada", "Alonzo", "Kurt", "Emmy", "Haskell", "Grace", "Alan", "Edsger"])
]


@pytest.mark.parametrize(("optimizer", "accumulate"), [("sgd", 1), ("adamw", 2)])
def test_the_loss_curve_is_that_of_trl(tiny_llama: Path, tmp_path: Path, optimizer: str, accumulate: int):
    recipe = write_recipe(tiny_llama, tmp_path, optimizer=optimizer, accumulate=accumulate)
    train(recipe, tmp_path / "run")
    rows = [row for row in RunDirectory(tmp_path / "run").read_metrics() if "loss" in row]
    theirs = train_with_trl(recipe, tmp_path / "trl")
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in theirs], rel=1e-4)
    assert [row["grad_norm"] for row in rows] == pytest.approx([row["grad_norm"] for row in theirs], rel=1e-3)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["tokens"] == theirs[-1]["num_tokens"]


def write_recipe(base: Path, folder: Path, *, optimizer: str, accumulate: int) -> Recipe:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    values = {
        "name": "tiny",
        "task": "chat",
        "base": {"model": str(base), "dtype": "float32"},
        "data": {"train": [{"source": "rows.jsonl", "format": "prompt-completion"}]},
        "method": {"type": "lora", "rank": 4, "alpha": 8},
        "train": {
            "batch_size": 2,
            "accumulate": accumulate,
            "max_steps": 4,
            "learning_rate": 0.5 if optimizer == "sgd" else 1e-2,
            "optimizer": optimizer,
            "backend": "transformers",
        },
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_recipe(str(folder / "tiny.yaml"))


def train_with_trl(recipe: Recipe, folder: Path) -> list[dict[str, float]]:
    """What TRL logs at each step of the same training."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from edgetune.training.backends.transformers import load_adapted_model

    prepared = prepare(recipe)
    conversations = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
        for row in ROWS
    ]
    trainer = SFTTrainer(
        model=load_adapted_model(recipe, prepared),
        args=SFTConfig(
            output_dir=str(folder),
            max_steps=recipe.train.max_steps,
            per_device_train_batch_size=recipe.train.batch_size,
            gradient_accumulation_steps=recipe.train.accumulate,
            learning_rate=recipe.train.learning_rate,
            optim={"sgd": "sgd", "adamw": "adamw_torch"}[recipe.train.optimizer],
            lr_scheduler_type=recipe.train.schedule,
            max_length=None,
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
        train_dataset=Dataset.from_list(conversations),
        processing_class=prepared.tokenizer,
    )
    trainer.train()
    return [row for row in trainer.state.log_history if "loss" in row]
