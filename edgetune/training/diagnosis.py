"""Signs of a training that went wrong, found in its rows of metrics.jsonl, each with what to change.

Losses of single updates are noisy, so a sign must pass a statistical test and be large enough to matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Any

from pydantic import BaseModel, ConfigDict

from edgetune.recipe.methods import Full
from edgetune.recipe.schema import Recipe
from edgetune.training.curves import Curves, chance_of_rise, deviations_above, trend

ENOUGH_ROWS = 16
"""With fewer losses there is no diagnosis: four in each quarter."""

STEEP = 0.4
"""The loss still falls steeply when it falls at this share of its average speed over the run, or faster. A loss that
levels out exponentially passes it after 2.7 of its time constants."""

WORTH_NATS = 0.02
"""Smaller changes of the loss are ignored."""

FEW_EPOCHS = 3
"""After more epochs without an evaluation, a falling training loss may come from memorizing."""


class Diagnosis(BaseModel):
    """One sign: its name, what was seen, and what to change."""

    model_config = ConfigDict(frozen=True)

    name: str
    finding: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.finding}; {self.remedy}"


Sign = Callable[[Curves, Recipe, int], tuple[str, str] | None]
"""Curves, recipe, choices -> the finding and the remedy of a sign that shows."""


def diagnose_recipe(recipe: Recipe, *, processes: int = 1) -> list[Diagnosis]:
    """The signs that a recipe shows before any step is taken."""
    train = recipe.train
    if recipe.base.quantize != "nf4" or train.packing or train.batch_size * train.accumulate * processes > 1:
        return []
    return [
        Diagnosis(
            name="nf4_batch_of_one",
            finding="each update sees a single example on an NF4 base, which is unstable: losses near 3 have been seen "
            "where 4 examples per update stay below 1",
            remedy="set train.accumulate to 4 or more (no more memory), or raise train.batch_size",
        )
    ]


def diagnose(rows: Sequence[dict[str, Any]], recipe: Recipe, *, choices: int) -> list[Diagnosis]:
    """The signs that the rows of metrics.jsonl show, worst first.

    `choices` is the number of possible predictions: the vocabulary's size, or the labels of a classification head. A
    model that knows nothing has a loss of ln(choices).
    """
    curves = Curves.of(rows)
    shown = {name: found for name, sign in SIGNS.items() if (found := sign(curves, recipe, choices)) is not None}
    return [
        Diagnosis(name=name, finding=finding, remedy=remedy)
        for name, (finding, remedy) in shown.items()
        if not EXPLAINED_BY.get(name, set()) & shown.keys()
    ]


def _evaluation_not_finite(curves: Curves, recipe: Recipe, choices: int) -> tuple[str, str] | None:
    if curves.eval_broken_at is None:
        return None
    return (
        f"the evaluation loss after step {curves.eval_broken_at} is not a finite number",
        "set base.dtype to bfloat16 or float32 if it is float16, or lower train.learning_rate "
        f"(now {recipe.train.learning_rate:g})",
    )


def _rising(curves: Curves, recipe: Recipe, choices: int) -> tuple[str, str] | None:
    """The last quarter lies above an earlier one, or above the loss before the first update, and beyond chance."""
    if len(curves.losses) < ENOUGH_ROWS:
        return None
    last, best = curves.quarter(3), min((curves.quarter(number) for number in range(3)), key=fmean)
    low, high = fmean(best), fmean(last)
    if high - low < max(0.1 * low, WORTH_NATS) or chance_of_rise(best, last) > 1e-4:
        low = curves.losses[0]
        if curves.steps[0] > 1 or high < 1.5 * low or deviations_above(low, last) < 3:
            return None
    return f"the training loss rose from {low:.3g} to {high:.3g}", _gentler(recipe)


def _worse_than_guessing(curves: Curves, recipe: Recipe, choices: int) -> tuple[str, str] | None:
    """For several updates the loss was twice that of a uniform guess, wherever it ended."""
    guess = math.log(choices)
    if len(curves.losses) < ENOUGH_ROWS or curves.peak < 2 * guess:
        return None
    return f"the training loss went up to {curves.peak:.3g}, and a uniform guess has {guess:.3g}", _gentler(recipe)


def _exploding(curves: Curves, recipe: Recipe, choices: int) -> tuple[str, str] | None:
    """Gradients grew tenfold and are clipped. Medians, because single updates spike in healthy runs too."""
    norms = curves.grad_norms
    if len(norms) < ENOUGH_ROWS:
        return None
    early, late = median(norms[: len(norms) // 4]), median(norms[-(len(norms) // 4) :])
    if late < 10 * early or late < recipe.train.max_grad_norm:
        return None
    finding = f"the gradient norm grew from {early:.3g} to {late:.3g}, and updates are clipped to train.max_grad_norm "
    return finding + f"{recipe.train.max_grad_norm:g}", _gentler(recipe)


def _nothing_learned(curves: Curves, recipe: Recipe, choices: int) -> tuple[str, str] | None:
    """The last quarter is no better than a uniform guess, by a margin that depends on the number of choices."""
    if len(curves.losses) < ENOUGH_ROWS:
        return None
    guess, reached = math.log(choices), fmean(curves.quarter(3))
    # A vocabulary is learned by nats; between a few labels the first hundredth of a nat is progress.
    of_what, margin = ("labels", 0.98) if recipe.base.head == "classification" else ("tokens", 0.9)
    if reached < margin * guess:
        return None
    return (
        f"the training loss ends at {reached:.3g}, and guessing among {choices:,} {of_what} gives {guess:.3g}: nothing "
        "was learned",
        f"{_gentler(recipe)} if the loss jumps, or raise train.learning_rate if the loss does not change; and check "
        "the training examples",
    )


def _over_fitted(curves: Curves, recipe: Recipe, choices: int) -> tuple[str, str] | None:
    """Evaluation got worse after its best step, in two evaluations or by a tenth, while training got better."""
    steps, losses = curves.eval_steps, curves.eval_losses
    if len(losses) < 3:
        return None
    best = min(range(len(losses)), key=losses.__getitem__)
    rise = losses[-1] / losses[best] - 1 if losses[best] > 0 else 0.0
    later = losses[best + 1 :]
    lasting = len(later) >= 2 and rise > 0.03 and min(later[-2:]) > 1.02 * losses[best]
    if not (lasting or (later and rise > 0.1)) or not curves.fell_after(steps[best]):
        return None
    share = steps[best] / max(steps[-1], *curves.steps, 1)
    return (
        f"the evaluation loss was best at step {steps[best]} ({losses[best]:.3g}, epoch {share * curves.epochs:.2g} of "
        f"{curves.epochs:.2g}) and rose to {losses[-1]:.3g} while the training loss kept falling: over-fitted",
        f"set train.max_steps to {steps[best]}, or use more data{_less_capacity(recipe)}",
    )


def _memorized(curves: Curves, recipe: Recipe, choices: int) -> tuple[str, str] | None:
    """Practically no training loss is left after more than one epoch, and there is no evaluation to tell why."""
    if len(curves.losses) < ENOUGH_ROWS or curves.eval_losses or curves.epochs <= 1:
        return None
    reached = fmean(curves.quarter(3))
    if reached > 0.01 or reached > 0.02 * fmean(curves.losses[:4]):
        return None
    return (
        f"the training loss ends at {reached:.2g} after {curves.epochs:.2g} epochs, which may be memorizing: there is "
        "no evaluation",
        "give data.eval rows that are not in data.train, and set train.eval_every",
    )


def _under_trained(curves: Curves, recipe: Recipe, choices: int) -> tuple[str, str] | None:
    """The second half falls beyond chance, and steeply by the run's average speed."""
    steps, losses = curves.steps, curves.losses
    if len(losses) < ENOUGH_ROWS or (not curves.eval_losses and curves.epochs > FEW_EPOCHS):
        return None
    if len(curves.eval_losses) >= 3 and curves.eval_losses[-1] > min(curves.eval_losses):
        return None
    half, few = len(losses) // 2, max(len(losses) // 12, 1)
    change, chance = trend(steps[half:], losses[half:])
    fall = -change * fmean(losses[half:])
    length = steps[-1] - steps[half]
    average_speed = (fmean(losses[:few]) - fmean(losses[-few:])) / (steps[-1] - steps[0])
    if chance > 0.01 or fall < max(STEEP * average_speed * length, 0.02 * fmean(losses[half:]), WORTH_NATS):
        return None
    return (
        f"the training loss was still falling steeply at the end (by {fall:.2g} to {fmean(losses[-few:]):.3g} over the "
        f"last {length} steps), after {curves.epochs:.2g} epochs: under-trained",
        _longer(recipe),
    )


SIGNS: dict[str, Sign] = {
    "evaluation_not_finite": _evaluation_not_finite,
    "loss_rising": _rising,
    "worse_than_guessing": _worse_than_guessing,
    "gradients_exploding": _exploding,
    "nothing_learned": _nothing_learned,
    "over_fitted": _over_fitted,
    "memorized": _memorized,
    "under_trained": _under_trained,
}

EXPLAINED_BY = {
    "worse_than_guessing": {"loss_rising"},
    "gradients_exploding": {"loss_rising", "worse_than_guessing"},
    "nothing_learned": {"loss_rising", "worse_than_guessing"},
    "under_trained": {"loss_rising", "worse_than_guessing", "nothing_learned", "over_fitted"},
}
"""Signs that another one already accounts for, and which would only repeat its remedy or contradict it."""


def _gentler(recipe: Recipe) -> str:
    warmup = recipe.train.warmup_steps
    return (
        f"lower train.learning_rate (now {recipe.train.learning_rate:g}) or "
        f"{'raise' if warmup else 'set'} train.warmup_steps (now {warmup})"
    )


def _longer(recipe: Recipe) -> str:
    if recipe.train.max_steps is not None:
        return f"raise train.max_steps (now {recipe.train.max_steps}), for example to {4 * recipe.train.max_steps}"
    return f"raise train.epochs (now {recipe.train.epochs:g}) or train.learning_rate ({recipe.train.learning_rate:g})"


def _less_capacity(recipe: Recipe) -> str:
    """What of the method can be made smaller."""
    method = recipe.method
    if isinstance(method, Full):
        return ", or train an adapter (method lora) instead of every weight"
    smaller = [
        f"{what} method.{field} (now {value:g})"
        for field, what in (("dropout", "raise"), ("rank", "lower"))
        if isinstance(value := getattr(method, field, None), int | float)
    ]
    return f", or {' or '.join(smaller)}" if smaller else ""
