"""Several tests at once: with twenty of them, one is below 0.05 by chance alone."""

from __future__ import annotations

from collections.abc import Sequence


def adjust_holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the order given: comparing each with alpha keeps the chance of even one false alarm
    among all of them at alpha, however they depend on each other.

    The smallest of k p-values is multiplied by k, the next by k - 1 and so on; none becomes smaller than the one before
    it, or larger than 1. Source: Holm (1979), Scandinavian Journal of Statistics 6:65-70.
    """
    adjusted, least, left = [0.0] * len(p_values), 0.0, len(p_values)
    for place in sorted(range(len(p_values)), key=lambda place: p_values[place]):
        least = max(least, min(1.0, left * p_values[place]))
        adjusted[place] = least
        left -= 1
    return tuple(adjusted)
