"""All metrics by name, and which of them a suite means."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.errors import RecipeError
from edgetune.judging.metrics import classification, json_answers, length, likelihood, rouge, short_answers, speed
from edgetune.judging.metrics.metric import Metric
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.recipe.yaml_input import nearest

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        classification.ACCURACY,
        classification.MACRO_F1,
        classification.WEIGHTED_F1,
        classification.MACRO_RECALL,
        json_answers.JSON_VALID,
        json_answers.JSON_SCHEMA,
        short_answers.EXACT_MATCH,
        short_answers.TOKEN_F1,
        *rouge.ROUGE,
        likelihood.PERPLEXITY,
        likelihood.BITS_PER_BYTE,
        length.LENGTH_WORDS,
        length.LENGTH_CHARACTERS,
        length.LENGTH_TOKENS,
        speed.TOKENS_PER_SECOND,
        speed.FIRST_TOKEN_SECONDS,
    )
}
"""In the order of tables."""

_MAIN = {
    "classify": ("accuracy",),
    "generate": ("json_schema", "json_valid", "token_f1"),
    "summarize": ("rougeL",),
    "perplexity": ("perplexity", "bits_per_byte"),
}
"""What a gate compares by default: the first of these that is measured."""


def find_metrics(names: Sequence[str], suite: Suite) -> tuple[Metric, ...]:
    """The metrics of these names, in their order.

    Raises RecipeError for a name that there is not (with the nearest that there is), for a metric that the suite's task
    does not give answers for, and for json_schema without a schema.
    """
    fitting = [name for name, metric in METRICS.items() if suite.task in metric.tasks]
    for name in names:
        if name not in METRICS:
            raise RecipeError(
                f"there is no metric {name}{nearest(name, fitting)}; task {suite.task} has {', '.join(fitting)}",
                where=suite.name,
            )
        if name not in fitting:
            raise RecipeError(
                f"metric {name} is for task {' and '.join(METRICS[name].tasks)}; task {suite.task} has "
                f"{', '.join(fitting)}",
                where=suite.name,
            )
        if name == "json_schema" and suite.json_schema is None:
            raise RecipeError(
                "metric json_schema needs a schema", where=suite.name, remedy="give one, or its file, as json_schema"
            )
    return tuple(METRICS[name] for name in names)


def default_metrics(suite: Suite, items: Sequence[Item]) -> tuple[str, ...]:
    """What is measured where the suite names no metrics: what fits its task and its items.

    References are compared with where every item has some, and a JSON schema where there is one.
    """
    if suite.task == "classify":
        return ("accuracy", "macro_f1", "weighted_f1")
    if suite.task == "perplexity":
        return ("perplexity", "bits_per_byte")
    names = ["json_valid", "json_schema"] if suite.json_schema is not None else []
    if all(item.references for item in items):
        if suite.task == "generate":
            names += ["exact_match", "token_f1"]
        names += ["rouge1", "rouge2", "rougeL", "rougeLsum"] if suite.task == "summarize" else ["rougeL"]
    return (*names, "length_words")


def main_metric(suite: Suite, items: Sequence[Item]) -> str:
    """The metric that a gate compares where the suite names none for it.

    Of what is measured (the suite's metrics, or `default_metrics`): accuracy; json_schema, json_valid or token_f1 for
    generate; rougeL for summarize; perplexity or bits_per_byte. Otherwise the first that tells better from worse and
    has a margin. Raises RecipeError where none does.
    """
    measured = tuple(suite.metrics) or default_metrics(suite, items)
    known = find_metrics(measured, suite)
    usable = [metric.name for metric in known if metric.higher_is_better is not None]
    usable = [name for name in usable if METRICS[name].default_margin is not None]
    for name in (*_MAIN[suite.task], *usable):
        if name in usable:
            return name
    raise RecipeError(
        f"nothing that is measured here ({', '.join(measured)}) says which of two models is better",
        where=suite.name,
        remedy="give the items references, the suite a json_schema or a rubric, or name gate.metric",
    )
