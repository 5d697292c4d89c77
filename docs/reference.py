"""Writes docs/recipe.md and docs/suite.md from the schemas: python docs/reference.py"""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from edgetune.judging.suites import judge_file, rubric, suite
from edgetune.metrics.registry import METRICS
from edgetune.recipe import data, methods, schema, section, train

FOLDER = Path(__file__).parent


def _tag(kind: type[section.Section]) -> str:
    return str(typing.get_args(kind.model_fields["type"].annotation)[0])


RECIPE: dict[str, type[section.Section]] = {
    "": schema.Recipe,
    "base": schema.Base,
    "data": data.Data,
    "data.train[], data.eval[]": data.DataSource,
    **{f"method, type {_tag(kind)}": kind for kind in methods.OWN_METHODS},
    "train": train.Train,
}

SUITE: dict[str, type[section.Section]] = {
    "": suite.Suite,
    "data[]": suite.SuiteSource,
    "generation": suite.GenerationSettings,
    "gate": suite.Gate,
    "a rubric": rubric.Rubric,
    "a rubric's criteria": rubric.Criterion,
    "a judge, kind endpoint": judge_file.EndpointJudge,
    "a judge, kind gguf": judge_file.LocalJudge,
    "a judge's price": judge_file.Price,
}


_EXTENDS = """\
## extends

A recipe can contain only its differences from another:

```yaml
extends: demo                 # the name of a shipped recipe, or a file relative to this one
name: demo-gentle
train: {learning_rate: 1.0e-4}
```

- Sections merge key by key; lists and plain values replace. A `method` of another `type` replaces the whole section.
- Paths are relative to the file that contains them. Paths in `-s` are relative to the working folder.
- The `recipe.yaml` of a run contains every value. `edgetune recipes NAME --resolved` prints the same for a recipe.
- A file whose name begins with `_` is a base for others. It can be incomplete and is not listed."""


def recipe_page() -> str:
    """The reference of recipes as Markdown."""
    introduction = (
        "# Recipe reference",
        "Written by `python docs/reference.py` from the schemas in `edgetune/recipe/`; change it there. Override any "
        "value on the command line: `edgetune train RECIPE -s train.epochs=2`.",
        _EXTENDS,
    )
    return "\n\n".join([*introduction, *_tables(RECIPE)]) + "\n"


def suite_page() -> str:
    """The reference of suites, rubrics and judges as Markdown."""
    introduction = (
        "# Suite reference",
        "Written by `python docs/reference.py` from the schemas in `edgetune/judging/suites/` and the metrics in "
        "`edgetune/metrics/`; change it there. [Judging](judging.md) explains their use.",
    )
    rows = [
        f"| `{metric.name}` | {metric.title} | {', '.join(metric.tasks)} | {_margin(metric.default_margin)} |"
        for metric in METRICS.own.values()
    ]
    metrics = ["| metric | | task | margin |", "|---|---|---|---|", *rows]
    return "\n\n".join([*introduction, *_tables(SUITE), "## metrics", _METRICS, "\n".join(metrics)]) + "\n"


PAGES = {"recipe.md": recipe_page, "suite.md": suite_page}

_METRICS = """\
A gate's margin is in the metric's unit: 0.02 of a share is 2 points, 1 of ROUGE is 1 of 100, 0.02 of perplexity is 2 %.
A metric without a margin cannot be gated: neither direction is better, or the result depends on the machine."""


def _margin(margin: float | None) -> str:
    return "" if margin is None else f"`{margin:g}`"


def _tables(sections: dict[str, type[section.Section]]) -> list[str]:
    """Heading, description and table of keys of each section."""
    parts = []
    for name, kind in sections.items():
        parts.append(f"## {name or 'top level'}\n\n{(kind.__doc__ or '').strip()}")
        rows = [_row(key, field) for key, field in kind.model_fields.items()]
        parts.append("\n".join(["| key | type | default | |", "|---|---|---|---|", *rows]))
    return parts


def _row(key: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else f"`{_plain(field.get_default(call_default_factory=True))}`"
    limits = [str(limit) for limit in field.metadata if hasattr(limit, "__slots__")]
    kind = _type_name(field.annotation) + (f" ({', '.join(_limit(limit) for limit in limits)})" if limits else "")
    return f"| `{key}` | {kind} | {default} | {field.description or ''} |"


def _limit(limit: str) -> str:
    """annotated_types prints Ge(ge=1); this returns ≥ 1."""
    signs = {"Ge": "≥ ", "Gt": "> ", "Le": "≤ ", "Lt": "< ", "MinLen": "at least "}
    name, _, value = limit.rstrip(")").partition("(")
    return signs.get(name, name + " ") + value.partition("=")[2]


def _plain(value: Any) -> str:
    """A default as YAML writes it."""
    if isinstance(value, section.Section):
        return "{}"
    return yaml.safe_dump(value, default_flow_style=True, width=1000).split("\n")[0]


def _type_name(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        names = [_type_name(part) for part in arguments if part is not type(None)]
        return "one of the sections below" if len(names) > 3 else " or ".join(names)
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin in (list, dict):
        return f"{origin.__name__} of {_type_name(arguments[-1])}"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "Any": "anything"}.get(
        kind.__name__, f"section {kind.__name__}"
    )


if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
