"""How much one item of a rare label weighs in a metric over all labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from edgetune.judging.metrics.metric import Metric
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite


def largest_weight(metric: Metric, items: Sequence[Item], suite: Suite) -> float:
    """How far the metric falls at most when one right answer becomes wrong, times the number of items: 1 for a mean.

    Were all answers right: of each label one becomes wrong, and names the rarest of the other labels. Of 200 items in
    which a third label has 10, the macro recall falls by a thirtieth, so the weight is 6.7. No answers are needed, for
    it is of what they did not show that an interval must allow. 1 where items have no labels.
    """
    counts = Counter(item.gold for item in items if item.gold is not None)
    if suite.task != "classify" or metric.kind != "aggregate" or not counts:
        return 1.0
    by_label = {item.gold: item for item in items}
    rarest_first = sorted(counts, key=lambda label: (counts[label], label))
    shown = [by_label[label] for label in counts]
    right = [Answer(item.id, predicted=item.gold) for item in shown]
    wrong = [
        Answer(item.id, predicted=next((label for label in rarest_first if label != item.gold), None)) for item in shown
    ]
    aggregate = metric.compute([*shown, *shown], [*right, *wrong], suite).aggregate
    labels = len(shown)
    weights = np.zeros((labels + 1, 2 * labels))
    weights[:, :labels] = list(counts.values())
    one_each = np.arange(labels)
    weights[one_each + 1, one_each] -= 1
    weights[one_each + 1, labels + one_each] = 1
    values = aggregate(weights)
    return max(1.0, counts.total() * float(values[0] - values[1:].min()))
