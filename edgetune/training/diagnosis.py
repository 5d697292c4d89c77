"""Signs that a training went wrong, read off its rows of metrics.jsonl, each with what to change.

Losses of single updates are noisy, so every sign must stand out of the noise by a statistical test and be large
enough to matter. Where the rows cannot tell, nothing is said.
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
"""Fewer losses than this are not judged: four in each quarter."""

STEEP = 0.4
"""The loss still falls steeply when it falls at this share of its average speed over the run, or quicker. A loss that
levels out exponentially passes it after 2.7 of its time constants."""

WORTH_NATS = 0.02
"""Smaller changes of the loss are not worth a word."""

FEW_EPOCHS = 3
"""After more passes a falling training loss without an evaluation may as well be memory as progress."""


class Diagnosis(BaseModel):
    """One sign: its name, what was seen, and what to change."""

    model_config = ConfigDict(frozen=True)

    name: str
    finding: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.finding}; {self.remedy}"


def diagnose_recipe(recipe: Recipe, *, processes: int = 1) -> list[Diagnosis]:
    """What can be told before any step is taken."""
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
    """What the rows of metrics.jsonl show, worst first.

    `choices` is what one prediction chooses from: the vocabulary's size, or the number of labels of a classification
    head. A model that knows nothing has a loss of ln(choices).
    """
    curves = Curves.of(rows)
    found = [sign(curves, recipe, choices) for sign in SIGNS]
    signs = [diagnosis for diagnosis in found if diagnosis is not None]
    names = {diagnosis.name for diagnosis in signs}
    return [diagnosis for diagnosis in signs if not EXPLAINED_BY.get(diagnosis.name, set()) & names]


def _evaluation_not_finite(curves: Curves, recipe: Recipe, choices: int) -> Diagnosis | None:
    if curves.eval_broken_at is None:
        return None
    return Diagnosis(
        name="evaluation_not_finite",
        finding=f"the evaluation loss after step {curves.eval_broken_at} is not a finite number",
        remedy="set base.dtype to bfloat16 or float32 if it is float16, or lower train.learning_rate "
        f"(now {recipe.train.learning_rate:g})",
    )


def _rising(curves: Curves, recipe: Recipe, choices: int) -> Diagnosis | None:
    """The last quarter lies above an earlier one, or above the loss before the first update, and beyond chance."""
    if len(curves.losses) < ENOUGH_ROWS:
        return None
    last, best = curves.quarter(3), min((curves.quarter(number) for number in range(3)), key=fmean)
    low, high = fmean(best), fmean(last)
    if high - low < max(0.1 * low, WORTH_NATS) or chance_of_rise(best, last) > 1e-4:
        low = curves.losses[0]
        if curves.steps[0] > 1 or high < 1.5 * low or deviations_above(low, last) < 3:
            return None
    return Diagnosis(
        name="loss_rising",
        finding=f"the training loss rose from {low:.3g} to {high:.3g}",
        remedy=_gentler(recipe),
    )


def _worse_than_guessing(curves: Curves, recipe: Recipe, choices: int) -> Diagnosis | None:
    """For several updates the loss was twice that of a uniform guess, wherever it ended."""
    guess = math.log(choices)
    if len(curves.losses) < ENOUGH_ROWS or curves.peak < 2 * guess:
        return None
    return Diagnosis(
        name="worse_than_guessing",
        finding=f"the training loss went up to {curves.peak:.3g}, and a mere guess gives {guess:.3g}",
        remedy=_gentler(recipe),
    )


def _exploding(curves: Curves, recipe: Recipe, choices: int) -> Diagnosis | None:
    """Gradients grew tenfold and are clipped: medians, because single updates spike in healthy runs too."""
    norms = curves.grad_norms
    if len(norms) < ENOUGH_ROWS:
        return None
    early, late = median(norms[: len(norms) // 4]), median(norms[-(len(norms) // 4) :])
    if late < 10 * early or late < recipe.train.max_grad_norm:
        return None
    return Diagnosis(
        name="gradients_exploding",
        finding=f"the gradient norm grew from {early:.3g} to {late:.3g}, and updates are clipped to "
        f"train.max_grad_norm {recipe.train.max_grad_norm:g}",
        remedy=_gentler(recipe),
    )


def _nothing_learned(curves: Curves, recipe: Recipe, choices: int) -> Diagnosis | None:
    """The last quarter is no better than a uniform guess, by the margin that the number of choices allows."""
    if len(curves.losses) < ENOUGH_ROWS:
        return None
    guess, reached = math.log(choices), fmean(curves.quarter(3))
    # A vocabulary is learned by nats; between a few labels the first hundredth of a nat is progress.
    of_what, margin = ("labels", 0.98) if recipe.base.head == "classification" else ("tokens", 0.9)
    if reached < margin * guess:
        return None
    return Diagnosis(
        name="nothing_learned",
        finding=f"the training loss ends at {reached:.3g}, and guessing among {choices:,} {of_what} gives {guess:.3g}: "
        "nothing was learned",
        remedy=f"{_gentler(recipe)} if the loss jumps about, raise it if the loss does not move; and look at what the "
        "model is shown",
    )


def _over_fitted(curves: Curves, recipe: Recipe, choices: int) -> Diagnosis | None:
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
    return Diagnosis(
        name="over_fitted",
        finding=f"the evaluation loss was best at step {steps[best]} ({losses[best]:.3g}, epoch "
        f"{share * curves.epochs:.2g} of {curves.epochs:.2g}) and rose to {losses[-1]:.3g} while the training loss "
        "went on falling: over-fitted",
        remedy=f"set train.max_steps to {steps[best]}, or take more data{_less_capacity(recipe)}",
    )


def _memorized(curves: Curves, recipe: Recipe, choices: int) -> Diagnosis | None:
    """Practically no training loss is left after more than one pass, and there is no evaluation to tell why."""
    if len(curves.losses) < ENOUGH_ROWS or curves.eval_losses or curves.epochs <= 1:
        return None
    reached = fmean(curves.quarter(3))
    if reached > 0.01 or reached > 0.02 * fmean(curves.losses[:4]):
        return None
    return Diagnosis(
        name="memorized",
        finding=f"the training loss ends at {reached:.2g} after {curves.epochs:.2g} epochs, and without an evaluation "
        "nobody can tell learning from memorizing",
        remedy="give data.eval rows that are not trained on, and train.eval_every",
    )


def _under_trained(curves: Curves, recipe: Recipe, choices: int) -> Diagnosis | None:
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
    return Diagnosis(
        name="under_trained",
        finding=f"the training loss was still falling steeply at the end (by {fall:.2g} to {fmean(losses[-few:]):.3g} "
        f"over the last {length} steps), after {curves.epochs:.2g} epochs: under-trained",
        remedy=_longer(recipe),
    )


SIGNS: tuple[Callable[[Curves, Recipe, int], Diagnosis | None], ...] = (
    _evaluation_not_finite,
    _rising,
    _worse_than_guessing,
    _exploding,
    _nothing_learned,
    _over_fitted,
    _memorized,
    _under_trained,
)

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
