"""What a comparison could have shown, and how many items would decide it.

All figures are approximations for planning: they take the noise of the items at hand for that of all items.
"""

from __future__ import annotations

import math

from scipy.special import ndtri, stdtrit

POWER = 0.8
"""How surely a comparison should show an effect that is there; the usual choice."""

_TOO_MANY_ITEMS = 10_000_000


def reach_in_errors(alpha: float, degrees: int | None = None) -> float:
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


def items_to_decide(
    items: int, distance: float, standard_error: float, alpha: float, *, step: float = 0.0
) -> int | None:
    """About how many items would decide four times in five, if difference and noise stay as they are.

    `distance` is how far the difference is from what it has to be told from: from the margin where the loss is smaller,
    from zero where it is not. The standard error of `items` items falls with the square root of their number, until the
    distance is `reach_in_errors(alpha)` of them; where only a few items differ, each by `step`, the distance must also
    be one that `smallest_visible_loss` gives. More than there are, for these did not decide. None when the distance is
    zero or next to it: no number would do.
    """
    reach = reach_in_errors(alpha)
    noise, losers = reach**2 * items * standard_error**2, reach**2 * step
    if distance <= 0 or max(noise, losers * distance) >= _TOO_MANY_ITEMS * distance**2:
        return None
    return max(items + 1, math.ceil(max(noise / distance**2, losers / distance)))
