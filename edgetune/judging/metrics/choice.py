"""Which metrics a suite means."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.errors import RecipeError
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.metrics.metric import Metric
from edgetune.metrics.registry import METRICS
from edgetune.recipe.yaml_input import nearest

_MAIN = {
    "classify": ("accuracy",),
    "generate": ("json_schema", "json_valid", "token_f1"),
    "summarize": ("rougeL",),
    "perplexity": ("perplexity", "bits_per_byte"),
}
"""What a gate compares by default: the first of these that the suite computes."""


def find_metrics(names: Sequence[str], suite: Suite) -> tuple[Metric, ...]:
    """The metrics of these names, in their order.

    Raises RecipeError for a name that does not exist (with the nearest one), for a metric that the suite's task
    does not give answers for, and for json_schema without a schema.
    """
    found = []
    for name in names:
        metric = METRICS.get(name)
        if metric is None or suite.task not in metric.tasks:
            fitting = [other for other, one in METRICS.items() if suite.task in one.tasks]
            problem = f"there is no metric {name}{nearest(name, fitting)}"
            if metric is not None:
                problem = f"metric {name} is for task {' and '.join(metric.tasks)}"
            raise RecipeError(f"{problem}; task {suite.task} has {', '.join(fitting)}", where=suite.name)
        if "json_schema" in metric.needs and suite.json_schema is None:
            raise RecipeError(
                f"metric {name} needs a schema", where=suite.name, remedy="give one, or its file, as json_schema"
            )
        found.append(metric)
    return tuple(found)


def default_metrics(suite: Suite, items: Sequence[Item]) -> tuple[str, ...]:
    """The metrics of a suite that names none: those that fit its task and its items.

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

    Of the suite's metrics, or `default_metrics`: accuracy; json_schema, json_valid or token_f1 for
    generate; rougeL for summarize; perplexity or bits_per_byte. Otherwise the first that tells better from worse and
    has a margin. Raises RecipeError where none does.
    """
    chosen = tuple(suite.metrics) or default_metrics(suite, items)
    known = find_metrics(chosen, suite)
    usable = [one.name for one in known if one.higher_is_better is not None and one.default_margin is not None]
    for name in (*_MAIN[suite.task], *usable):
        if name in usable:
            return name
    raise RecipeError(
        f"none of the metrics here ({', '.join(chosen)}) says which of two models is better",
        where=suite.name,
        remedy="give the items references, the suite a json_schema or a rubric, or name gate.metric",
    )
