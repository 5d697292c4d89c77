"""The model card of a run: README.md in the hub's format. Every figure comes from the summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from edgetune.recipe.load import dump_recipe
from edgetune.recipe.methods import ADDS_TO_THE_INPUT, Full
from edgetune.recipe.schema import Recipe
from edgetune.training.summary import Summary


def model_card(recipe: Recipe, summary: Summary, *, plotted: bool = True) -> str:
    """The page: the hub's YAML header, then Markdown. `plotted` says that plots/loss.png exists."""
    whole = isinstance(recipe.method, Full)
    about = f"{recipe.base.model}, every weight trained." if whole else f"An adapter for {recipe.base.model}."
    sections = [
        f"# {recipe.name}",
        recipe.description or about,
        _table(["", ""], _facts(recipe, summary).items()),
        *(["## Warnings", "\n".join(f"- {warning}." for warning in summary.warnings)] if summary.warnings else []),
        *_evaluation(summary.evaluation),
        "## Training",
        *(["![Loss and what else was logged](plots/loss.png)"] if plotted else []),
        f"{_use(recipe)} The recipe that made it, with every default:",
        f"```yaml\n{dump_recipe(recipe)}```",
    ]
    header = f"""---
base_model: {recipe.base.model}
library_name: {"transformers" if whole else "peft"}
tags: [edgetune, {summary.method}, {summary.task}]
---
"""
    return header + "\n" + "\n\n".join(sections) + "\n"


def _use(recipe: Recipe) -> str:
    """The tools that can read a run of this kind."""
    if recipe.method.type in ADDS_TO_THE_INPUT:
        return "PEFT loads the `adapter/` in this folder. It changes no weights, so it cannot be merged or exported."
    if isinstance(recipe.method, Full):
        return "`edgetune export` takes this folder, and Transformers loads the `model/` in it."
    if recipe.base.head == "classification":
        return "`edgetune merge` takes this folder, and PEFT loads the `adapter/` in it, which contains the new head."
    return "`edgetune merge` and `edgetune export` take this folder, and PEFT loads the `adapter/` in it."


def _facts(recipe: Recipe, summary: Summary) -> dict[str, Any]:
    loss = f"{summary.final_train_loss:.4f}"
    if summary.eval_loss is not None:
        loss += f" (evaluation {summary.eval_loss:.4f})"
    base_type = summary.dtype if recipe.base.quantize == "none" else recipe.base.quantize
    if summary.frozen_products == "bfloat16":
        base_type += " (frozen layers in bfloat16)"
    facts: dict[str, Any] = {
        "Task": summary.task,
        "Method": f"{summary.method}, base in {base_type}, trained by {summary.backend}",
        "Trainable parameters": f"{summary.trainable_parameters:,} of {summary.total_parameters:,} "
        f"({summary.trainable_percent:.4f} %)",
        "Steps, epochs": f"{summary.steps}, {summary.epochs:g}",
        "Tokens (supervised)": f"{summary.train_tokens:,} ({summary.supervised_tokens:,})",
        "Final training loss": loss,
        "Time": f"{summary.train_seconds:.0f} s, {summary.tokens_per_second:.0f} tokens/s",
        "Peak memory": f"{summary.peak_memory_bytes / 2**30:.2f} GiB on {summary.device}",
    }
    if summary.energy_kwh is not None and summary.co2_kg is not None:
        facts["Energy"] = f"{summary.energy_kwh:.3g} kWh, {1000 * summary.co2_kg:.3g} g CO₂ (codecarbon)"
    facts["Seed"] = summary.seed
    return facts


def _evaluation(evaluation: dict[str, Any] | None) -> list[str]:
    """A table of single figures, a table of labels, and the confusion matrix."""
    if not evaluation:
        return []
    parts = ["## Evaluation"]
    figures = {name: value for name, value in evaluation.items() if isinstance(value, int | float)}
    if figures:
        parts.append(_table(figures.keys(), [[_figure(value) for value in figures.values()]]))
    per_label = evaluation.get("per_label")
    if per_label:
        names = list(next(iter(per_label.values())))
        rows = [[label, *(_figure(scores[name]) for name in names)] for label, scores in per_label.items()]
        parts.append(_table(["label", *names], rows))
    confusion, labels = evaluation.get("confusion"), evaluation.get("labels")
    if confusion and labels:
        parts.append("Confusion matrix: rows are the right labels, columns the model's answers.")
        counts = [[label, *row] for label, row in zip(labels, confusion, strict=True)]
        parts.append(_table(["", *labels], counts))
    return parts


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _table(headings: Iterable[str], rows: Iterable[Sequence[Any]]) -> str:
    names = [_cell(name) for name in headings]
    lines = [names, ["---"] * len(names), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
