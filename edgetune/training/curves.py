"""The rows of metrics.jsonl as sequences of numbers, and statistical tests for noisy ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Curves:
    """Oldest first; values that are not finite are left out."""

    steps: list[int]
    losses: list[float]
    grad_norms: list[float]
    eval_steps: list[int]
    eval_losses: list[float]
    eval_broken_at: int | None
    """The first step whose evaluation loss was not finite."""
    epochs: float

    @staticmethod
    def of(rows: Sequence[dict[str, Any]]) -> Curves:
        """The curves in `rows`; of two evaluations after the same step the later one counts."""
        train = [(row["step"], row["loss"]) for row in rows if _is_finite(row.get("loss"))]
        evaluations = {row["step"]: row["eval_loss"] for row in rows if "eval_loss" in row}
        finite = {step: loss for step, loss in evaluations.items() if _is_finite(loss)}
        return Curves(
            [step for step, _ in train],
            [loss for _, loss in train],
            [row["grad_norm"] for row in rows if _is_finite(row.get("grad_norm"))],
            list(finite),
            list(finite.values()),
            min(evaluations.keys() - finite.keys(), default=None),
            rows[-1].get("epoch", 0.0) if rows else 0.0,
        )

    def quarter(self, number: int) -> list[float]:
        """The losses of quarter 0, 1, 2 or 3 of the run."""
        return self.losses[number * len(self.losses) // 4 : (number + 1) * len(self.losses) // 4]

    @property
    def peak(self) -> float:
        """The highest level that five losses in a row kept, by their median."""
        return max((median(self.losses[place : place + 5]) for place in range(len(self.losses) - 4)), default=0.0)

    def fell_after(self, step: int) -> bool:
        """True when the losses after `step` are below as many before it, on average."""
        after = [loss for at, loss in zip(self.steps, self.losses, strict=True) if at > step]
        before = [loss for at, loss in zip(self.steps, self.losses, strict=True) if at <= step][-len(after) :]
        return bool(after and before) and fmean(after) < fmean(before)


def chance_of_rise(low: list[float], high: list[float]) -> float:
    """Welch's test on logarithms: the chance of a difference like this when the typical loss did not rise."""
    from scipy.stats import ttest_ind_from_stats

    logs = [_logarithms(losses) for losses in (high, low)]
    noise = [_without_trend(part) for part in logs]
    count = max(_independent(noise), 2.0)
    test = ttest_ind_from_stats(
        *(value for part, errors in zip(logs, noise, strict=True) for value in (part.mean(), _spread(errors), count)),
        equal_var=False,
        alternative="greater",
    )
    return float(test.pvalue)


def trend(steps: list[int], losses: list[float]) -> tuple[float, float]:
    """The change along a straight line through the logarithms of the losses, and its chance without a trend."""
    import numpy as np
    from scipy.stats import linregress, t

    x, y = np.asarray(steps, dtype=float), _logarithms(losses)
    line = linregress(x, y)
    count = _independent([y - (line.intercept + line.slope * x)])
    if count < 4:
        return 0.0, 1.0
    error = max(line.stderr * math.sqrt((len(steps) - 2) / (count - 2)), 1e-12)
    return float(line.slope * (x[-1] - x[0])), float(2 * t.sf(abs(line.slope) / error, count - 2))


def deviations_above(loss: float, losses: list[float]) -> float:
    """How many of their own standard deviations `losses` are above a single `loss` on average, in logarithms."""
    logs = _logarithms(losses)
    return float((logs.mean() - _logarithms([loss])[0]) / _spread(_without_trend(logs)))


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _logarithms(losses: list[float]) -> NDArray[np.float64]:
    """In logarithms the noise is about the same everywhere on the curve, and single large losses weigh little."""
    import numpy as np

    return np.log(np.maximum(losses, 1e-9))


def _without_trend(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The residuals of a straight line: a trend is not noise."""
    from scipy.signal import detrend

    return detrend(logs)


def _spread(errors: NDArray[np.float64]) -> float:
    """Their standard deviation, at least 0.001, so that it can be a divisor."""
    return max(float(errors.std(ddof=1)), 1e-3)


def _independent(errors: list[NDArray[np.float64]]) -> float:
    """The effective number of independent values in each sequence of noise, on average: neighbours may correlate.

    Santer et al. 2000, https://doi.org/10.1029/1999JD901105, equation 6.
    """
    together = sum(float(error[1:] @ error[:-1]) for error in errors)
    alone = sum(float(error @ error) for error in errors)
    alike = min(max(together / max(alone, 1e-30), 0.0), 0.9)
    return fmean(len(error) for error in errors) * (1 - alike) / (1 + alike)
