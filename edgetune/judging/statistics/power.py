"""What a comparison could have shown, and how many items would decide it.

All figures are approximations for planning: they take the noise of the items at hand for that of all items.
"""

from __future__ import annotations

import math

from scipy.special import ndtri, stdtrit

POWER = 0.8
"""How surely a comparison should show an effect that is there; the usual choice."""

_TOO_MANY_ITEMS = 10_000_000


def reach_in_errors(alpha: float, degrees: float | None = None) -> float:
    """How many standard errors an effect must measure to be significant at `alpha` (two-sided) four times in five: 2.80
    for 0.05. With `degrees` of freedom Student's quantile takes the place of the normal one.
    """
    quantile = ndtri(1 - alpha / 2) if degrees is None else stdtrit(degrees, 1 - alpha / 2)
    return float(quantile) + float(ndtri(POWER))


def smallest_visible_loss(standard_error: float, units: int, reach: float, step: float) -> float:
    """The smallest loss that `units` items (or clusters) would show as significant, four times in five or more often.

    That is `reach` standard errors (see `reach_in_errors`). But a loss is made of items that lose: where each loses
    `step`, a loss L has a standard error of at least sqrt(L step / units), so that L is at least reach² step / units.
    A `step` of 0 leaves that out.
    """
    return max(reach * standard_error, reach**2 * step / units)


def items_to_pass(
    items: int,
    units: int,
    distance: float,
    reach: float,
    standard_error: float,
    alpha: float,
    *,
    fall: float = math.inf,
) -> int | None:
    """About how many items would rule out a loss of the margin four times in five, if difference and noise stay.

    `distance` is how far the loss is within the margin, `reach` how far the bound of the interval lies from the
    difference. Of the reach, the standard errors that `alpha` asks for (1.96 for 0.05) fall with the square root of the
    number of items; the rest stands for what was not seen, and falls with the number itself. The next set of so many
    items may by chance be less good, which takes as many standard errors more as `POWER` says. And where the worst that
    an item can do is to lose `fall`, there are so many units that the share of such items that makes up the distance
    would show. More items than there are, for these did not decide. None where no number would do.
    """
    quantile = float(ndtri(1 - alpha / 2))
    noise = (quantile + float(ndtri(POWER))) * standard_error
    unseen = max(0.0, reach - quantile * standard_error)
    if distance <= 0 or max(noise**2, unseen * distance) * items >= _TOO_MANY_ITEMS * distance**2:
        return None
    # unseen x² + noise x = distance, where x² is the share of the present items in those that are needed.
    root = 2 * distance / (noise + math.sqrt(noise**2 + 4 * unseen * distance))
    showing = math.log(alpha / 2) / math.log1p(-distance / fall) if distance < fall < math.inf else 0.0
    needed = max(items / root**2, showing * items / units)
    return None if needed >= _TOO_MANY_ITEMS else max(items + 1, math.ceil(needed))


def items_to_fail(items: int, loss: float, standard_error: float, alpha: float, *, step: float = 0.0) -> int | None:
    """About how many items would show a loss as significant four times in five, if it and the noise stay as they are.

    The standard error of `items` items falls with the square root of their number, until the loss is
    `reach_in_errors(alpha)` of them; where only a few items differ, each by `step`, the loss must also be one that
    `smallest_visible_loss` gives. More than there are, for these did not decide. None where no number would do.
    """
    reach = reach_in_errors(alpha)
    noise, losers = reach**2 * items * standard_error**2, reach**2 * step
    if loss <= 0 or max(noise, losers * loss) >= _TOO_MANY_ITEMS * loss**2:
        return None
    return max(items + 1, math.ceil(max(noise / loss**2, losers / loss)))
