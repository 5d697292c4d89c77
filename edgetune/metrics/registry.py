"""All metrics by name, edgetune's own and those of plugins, for a training's evaluation and for judging."""

from __future__ import annotations

from dataclasses import replace

from edgetune.errors import DataError, EdgetuneError
from edgetune.metrics import classification, exact_match, json_answers, length, likelihood, rouge, speed, token_f1
from edgetune.metrics.metric import Formula, Metric, MetricResult, by_item
from edgetune.metrics.samples import NEEDS, Samples
from edgetune.plugins import METRICS_GROUP, Registry

_OWN = (
    classification.ACCURACY,
    classification.MACRO_F1,
    classification.WEIGHTED_F1,
    classification.MACRO_PRECISION,
    classification.MACRO_RECALL,
    json_answers.JSON_VALID,
    json_answers.JSON_SCHEMA,
    exact_match.EXACT_MATCH,
    token_f1.TOKEN_F1,
    *rouge.ROUGE,
    likelihood.PERPLEXITY,
    likelihood.BITS_PER_BYTE,
    length.LENGTH_WORDS,
    length.LENGTH_CHARACTERS,
    length.LENGTH_TOKENS,
    speed.TOKENS_PER_SECOND,
    speed.FIRST_TOKEN_SECONDS,
)
"""In the order of tables."""


def _adopt(name: str, given: object) -> Metric:
    """A plugin's Metric; or a function of one Sample, from 0 (worst) to 1 (best), or None for an item without a value.

    Raises TypeError or ValueError for anything else.
    """
    if isinstance(given, Metric):
        metric = given
    elif callable(given):
        metric = Metric(name, name.replace("_", " ").capitalize(), by_item(given))
    else:
        raise TypeError(f"{given!r} is neither a Metric nor a function of a Sample")
    strangers = set(metric.needs) - set(NEEDS)
    if metric.name != name:
        raise ValueError(f"its entry point calls it {name}, and the Metric is named {metric.name}")
    if strangers:
        raise ValueError(f"it needs {', '.join(sorted(strangers))}; a metric may need {', '.join(NEEDS)}")
    return replace(metric, formula=_reported(name, metric.formula))


def _reported(name: str, formula: Formula) -> Formula:
    """A plugin's formula, whose mistakes are DataErrors that name the metric."""

    def compute(samples: Samples) -> MetricResult:
        try:
            return formula(samples)
        except EdgetuneError:
            raise
        except Exception as problem:
            raise DataError(f"metric {name} failed ({type(problem).__name__}: {problem})") from problem

    return compute


METRICS = Registry[Metric](METRICS_GROUP, {metric.name: metric for metric in _OWN}, _adopt)
