"""Made-up results of two models on the same items: equal models, and candidates that lost something."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgetune.judging.results.prepared import GRADE_MARGIN
from edgetune.judging.statistics.quantity import Pairing
from edgetune.metrics.aggregates import Aggregate
from edgetune.metrics.units import Unit

ACCURACY_MARGIN = 0.02
Values = tuple[NDArray[np.float64], NDArray[np.float64]]
Sides = tuple[Aggregate, Aggregate]


def draw_normal(generator: np.random.Generator, items: int) -> Values:
    return np.round(generator.normal(0, 1, items), 2), np.zeros(items)


def draw_grades(generator: np.random.Generator, items: int) -> Values:
    """Each item has its own quality, and each grade its own noise."""
    quality = 5 - generator.exponential(0.8, items)
    first, second = (np.clip(np.round(quality + generator.normal(0, 0.7, items)), 1, 5) for _ in range(2))
    return first, second


def draw_tied(generator: np.random.Generator, items: int) -> Values:
    sizes = generator.choice([1.0, 2.0, 3.0], items) * generator.choice([-1.0, 1.0], items)
    return np.where(generator.random(items) < 0.2, sizes, 0.0), np.zeros(items)


def draw_outliers(generator: np.random.Generator, items: int) -> Values:
    spread = np.where(generator.random(items) < 0.05, 4.0, 0.3)
    return np.round(spread * generator.normal(0, 1, items), 2), np.zeros(items)


def draw_right(generator: np.random.Generator, items: int, differing: float, loss: float = 0.0) -> Values:
    place = generator.random(items)
    baseline = np.where(place < (differing - loss) / 2, 0.0, 1.0)
    candidate = np.where((place >= (differing - loss) / 2) & (place < differing), 0.0, 1.0)
    return candidate, baseline


def draw_lost_answers(generator: np.random.Generator, items: int) -> Pairing:
    """Right answers that become wrong, and none the other way: the margin is lost."""
    return pairing_of("accuracy", np.where(generator.random(items) < ACCURACY_MARGIN, 0.0, 1.0), np.ones(items))


def draw_collapse(generator: np.random.Generator, items: int, noisy: float) -> Pairing:
    """As many answers fall from grade 5 to 1 as make up the margin; of the others a share moves by one grade."""
    baseline = np.where(generator.random(items) < noisy, 4.0, 5.0)
    moves = np.where(baseline == 4, generator.choice([-1.0, 1.0], items), 0.0)
    fallen = generator.random(items) < GRADE_MARGIN / 4
    return pairing_of("score", np.where(fallen, 1.0, baseline + moves), np.where(fallen, 5.0, baseline))


def draw_fallen_clusters(generator: np.random.Generator, clusters: int) -> Pairing:
    """Clusters of 1 to 30 items of which as many fall whole from grade 5 to 1 as make up the margin; of the other items
    30 % move by one grade."""
    sizes = generator.integers(1, 31, clusters)
    fallen = np.repeat(generator.random(clusters) < GRADE_MARGIN / 4, sizes)
    moves = generator.choice([-1.0, 1.0], fallen.size) * (generator.random(fallen.size) < 0.3)
    baseline = np.where(moves != 0, 4.0, 5.0)
    names = tuple(str(number) for number in np.repeat(np.arange(clusters), sizes))
    return pairing_of("score", np.where(fallen, 1.0, baseline + moves), np.where(fallen, 5.0, baseline), names)


def draw_skewed(generator: np.random.Generator, items: int) -> NDArray[np.float64]:
    """Grades of one model: nearly all 5, one in twenty 1. Their mean is 4.8."""
    return np.where(generator.random(items) < 0.05, 1.0, 5.0)


def draw_clusters(generator: np.random.Generator, kind: str, clusters: int, largest: int = 9) -> Pairing:
    sizes = generator.integers(1, largest + 1, clusters)
    shared, own = np.repeat(generator.normal(0, 1, clusters), sizes), generator.normal(0, 1, int(sizes.sum()))
    if kind == "score":
        candidate, baseline = np.round(0.7 * shared + 0.7 * own, 2), np.zeros(shared.size)
    else:
        leaning = shared + own
        candidate, baseline = np.where(leaning < -1.5, 0.0, 1.0), np.where(leaning > 1.5, 0.0, 1.0)
    names = tuple(str(number) for number in np.repeat(np.arange(clusters), sizes))
    return pairing_of(kind, candidate, baseline, names)


def draw_grade_loss(generator: np.random.Generator, loss: float, items: int, *, spread: float) -> Pairing:
    return score_of(np.round(generator.normal(-loss, spread, items) * 4) / 4)


def draw_accuracy_loss(generator: np.random.Generator, loss: float, items: int, *, differing: float) -> Pairing:
    return pairing_of("accuracy", *draw_right(generator, items, max(differing, loss), loss))


def draw_f1(generator: np.random.Generator, items: int, accuracy: float) -> Sides:
    """On half of the items the candidate answers for itself, on the others as the baseline."""
    gold = generator.choice(3, items, p=[0.5, 0.3, 0.2])
    baseline = np.where(generator.random(items) < 0.8, gold, generator.integers(0, 3, items))
    fresh = np.where(generator.random(items) < accuracy, gold, generator.integers(0, 3, items))
    candidate = np.where(generator.random(items) < 0.5, fresh, baseline)
    return f1_of(gold, candidate), f1_of(gold, baseline)


def draw_perplexity(generator: np.random.Generator, items: int) -> Sides:
    """Texts of very different lengths; in nats by token."""
    tokens = np.ceil(generator.lognormal(3.5, 0.8, items))
    first, second = (tokens * (2 + generator.normal(0, 0.15, items)) for _ in range(2))
    return ratio_of(first, tokens), ratio_of(second, tokens)


def truth_of(draw: Callable[[np.random.Generator, int], Sides]) -> float:
    """The difference over a million items."""
    items = 1_000_000
    candidate, baseline = draw(np.random.default_rng(0), items)
    return float((candidate(np.ones((1, items))) - baseline(np.ones((1, items))))[0])


def f1_of(gold: NDArray[np.int64], predicted: NDArray[np.int64]) -> Aggregate:
    true, given = np.eye(3)[gold], np.eye(3)[predicted]

    def macro_f1(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        both = counts @ true + counts @ given
        return np.where(both > 0, 2 * (counts @ (true * given)) / np.where(both > 0, both, 1), 0).mean(axis=1)

    return macro_f1


def ratio_of(above: NDArray[np.float64], below: NDArray[np.float64]) -> Aggregate:
    return lambda counts: counts @ above / (counts @ below)


def aggregates_of(unit: Unit, candidate: Aggregate, baseline: Aggregate, items: int) -> Pairing:
    return Pairing(
        "aggregate", "aggregate", "aggregate", unit, True, 0.02, items, None, None, candidate, baseline, None
    )


def score_of(differences: NDArray[np.float64]) -> Pairing:
    return pairing_of("score", differences, np.zeros(differences.size))


def pairing_of(
    kind: str,
    candidate: NDArray[np.float64],
    baseline: NDArray[np.float64],
    clusters: tuple[str, ...] | None = None,
) -> Pairing:
    accuracy = kind == "accuracy"
    return Pairing(
        metric=kind,
        title=kind,
        kind="accuracy" if accuracy else "score",
        unit="share" if accuracy else "grade",
        higher_is_better=True,
        margin=ACCURACY_MARGIN if accuracy else GRADE_MARGIN,
        items=candidate.size,
        candidate=candidate,
        baseline=baseline,
        clusters=clusters,
    )
