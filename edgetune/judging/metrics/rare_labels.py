"""How much one item of a rare label weighs in a metric over all labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from edgetune.metrics.metric import Metric
from edgetune.metrics.samples import Sample, Samples


def largest_weight(metric: Metric, samples: Samples) -> float:
    """How far the metric falls at most when one right answer becomes wrong, times the number of items: 1 for a mean.

    Were all answers right: of each label one becomes wrong, and names the rarest of the other labels. Of 200 items in
    which a third label has 10, the macro recall falls by a thirtieth, so the weight is 6.7. Only the right labels
    count, because an interval must allow for what the answers did not show. 1 where items have no labels.
    """
    counts = Counter(sample.gold for sample in samples if sample.gold is not None)
    if metric.kind != "aggregate" or not counts:
        return 1.0
    rarest_first = sorted(counts, key=lambda label: (counts[label], label))
    right = [Sample(label, gold=label, predicted=label) for label in counts]
    wrong = [
        replace(sample, predicted=next((label for label in rarest_first if label != sample.gold), None))
        for sample in right
    ]
    aggregate = metric.compute(replace(samples, samples=(*right, *wrong))).aggregate
    labels = len(counts)
    weights = np.zeros((labels + 1, 2 * labels))
    weights[:, :labels] = list(counts.values())
    one_each = np.arange(labels)
    weights[one_each + 1, one_each] -= 1
    weights[one_each + 1, labels + one_each] = 1
    values = aggregate(weights)
    return max(1.0, counts.total() * float(values[0] - values[1:].min()))
