"""Clusters of items that belong together (one document, one user) and are the independent units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def number_clusters(clusters: Sequence[str] | None, items: int) -> NDArray[np.intp]:
    """The number of each item's cluster, (n,), from 0 in the order in which clusters first appear.

    Without clusters every item is one of its own. Raises ValueError when there are not as many names as items.
    """
    if clusters is None:
        return np.arange(items)
    if len(clusters) != items:
        raise ValueError(f"{len(clusters)} cluster names do not fit {items} items")
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.intp)


def cluster_sums(values: NDArray[np.float64], numbers: NDArray[np.intp]) -> NDArray[np.float64]:
    """The sum of each cluster's values, (g,); values (n,), numbers (n,) as `number_clusters` gives them."""
    return drop_rounding(np.bincount(numbers, weights=values).astype(np.float64))


def drop_rounding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values (n,) with zeros for what is zero but for rounding: 0.1 + 0.2 - 0.3, or means of the same grades that were
    added in another order. It matters where zeros are counted."""
    largest = float(np.abs(values).max(initial=1.0))
    return np.where(np.abs(values) < 1e-12 * largest, 0.0, values)


def independent_units(items: int, clusters: Sequence[str] | None) -> int:
    """The number of independent units: clusters where there are some, items otherwise."""
    return items if clusters is None else len(set(clusters))
