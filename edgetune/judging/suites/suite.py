"""The schema of suites, and how a suite is found. Defaults live only here.

A suite contains all of a judgement except the models: the items, the prompt, how answers are scored, and the gate.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from edgetune import assets
from edgetune.judging.suites.identity import hash_value
from edgetune.recipe.data import DataSource
from edgetune.recipe.extends import plain_copy
from edgetune.recipe.load import Named, find_named
from edgetune.recipe.section import Section
from edgetune.recipe.yaml_input import read_mapping, validate

Task = Literal["classify", "generate", "summarize", "perplexity"]

SuiteFormat = Literal[
    "text-label", "text-summary", "prompt", "text", "prompt-completion", "alpaca", "messages", "sharegpt"
]

FORMATS_OF_SUITE: dict[str, tuple[str, ...]] = {
    "classify": ("text-label",),
    "generate": ("prompt", "prompt-completion", "alpaca", "messages", "sharegpt"),
    "summarize": ("text-summary",),
    "perplexity": ("text", "prompt-completion", "alpaca", "messages", "sharegpt"),
}
"""Which formats a suite's task can read: those of training, `prompt` (a question whose `reference` may be missing, a
text or a list of them) and `text` (a text by itself)."""


class SuiteSource(DataSource):
    """One file or hub data set of items, and how its columns are read."""

    format: SuiteFormat = Field(description="How rows become items.")  # type: ignore[assignment]
    id: str = Field("id", description="The column with the items' ids; without it they are numbered.")


class GenerationSettings(Section):
    """Generation settings of the models under test."""

    max_tokens: int = Field(256, ge=1, description="Maximum tokens per answer, including its reasoning.")
    temperature: float = Field(0.0, ge=0, le=2, description="0 always takes the most likely token.")
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = Field(0, ge=0)
    system: str | None = Field(None, description="A system message before every prompt.")


class Gate(Section):
    """The conditions under which a candidate can replace its baseline."""

    metric: str | list[str] | None = Field(
        None,
        description="The metric or metrics to compare (with Holm's correction). Default: with a judge, the judged "
        "criteria or preference; otherwise the task's main metric.",
    )
    margin: float | dict[str, float] | None = Field(
        None,
        description="The smallest loss that matters, in the metric's unit (0.02 is 2 points), or a mapping by metric.",
    )
    alpha: float = Field(
        0.05, gt=0, le=0.5, description="Significance level of the test; the interval's confidence is 1 - alpha."
    )
    max_unscored: float = Field(
        0.05, ge=0, le=1, description="With a larger share of unscored verdicts the judge is invalid."
    )
    min_consistency: float = Field(
        0.6, ge=0, le=1, description="If both orders agree on a smaller share of the pairs, the judge is invalid."
    )
    control: int = Field(
        20, ge=0, description="Number of baseline answers that are judged again as an A/A control; 0 turns it off."
    )
    certificate: bool = Field(False, description="true: every judge must have a certificate of a passed calibration.")

    @field_validator("metric")
    @classmethod
    def _metrics_differ(cls, metric: str | list[str] | None) -> str | list[str] | None:
        if isinstance(metric, list) and (not metric or len(set(metric)) != len(metric)):
            raise ValueError("it names no metric, or one of them twice")
        return metric

    @field_validator("margin")
    @classmethod
    def _margins_are_sizes(cls, margin: float | dict[str, float] | None) -> float | dict[str, float] | None:
        for value in margin.values() if isinstance(margin, dict) else [margin or 0.0]:
            if value < 0:
                raise ValueError(f"{value} is negative; give the size of the smallest loss that matters")
        return margin

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are named here; empty for the default."""
        return () if self.metric is None else (self.metric,) if isinstance(self.metric, str) else tuple(self.metric)

    def margin_of(self, metric: str, default: float) -> float:
        """The margin that is given for a metric, or its `default`."""
        given = self.margin.get(metric) if isinstance(self.margin, dict) else self.margin
        return default if given is None else given


class Suite(Section):
    """A set of items with prompts, metrics and a gate."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="Lower case; names the report.")
    description: str = Field("", description="A one-line description.")
    task: Task = Field(description="The task of the models.")
    data: list[SuiteSource] = Field(min_length=1, description="The items.")
    labels: list[str] = Field([], description="classify: the labels, in the order of tables and matrices.")
    prompt: str | None = Field(
        None,
        description="classify, summarize: the user message. {text} stands for the text, {name} for any other column of "
        "the source.",
    )
    scoring: Literal["likelihood", "generate"] = Field(
        "likelihood",
        description="classify: likelihood takes the most likely label, generate the label that the model's answer "
        "names.",
    )
    generation: GenerationSettings = GenerationSettings()
    metrics: list[str] = Field([], description="The metrics to compute. Default: those of the task.")
    json_schema: dict[str, Any] | str | None = Field(
        None, description="For the metric json_schema: the schema itself, or a file (relative to the suite's folder)."
    )
    rubric: str | None = Field(None, description="The judge's criteria: a shipped rubric's name or a YAML file.")
    judge: str | list[str] | None = Field(
        None, description="A shipped judge, a YAML file, a .gguf file or URL#MODEL; a list makes a panel."
    )
    grading: Literal["pointwise", "pairwise"] = Field(
        "pointwise", description="pointwise: each answer is graded. pairwise: the two answers are compared."
    )
    cluster: str | None = Field(
        None, description="A column that groups items that belong together (one document, one user)."
    )
    gate: Gate = Gate()

    @property
    def judges(self) -> tuple[str, ...]:
        """The judges that are named here."""
        return () if self.judge is None else (self.judge,) if isinstance(self.judge, str) else tuple(self.judge)

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: list[str]) -> list[str]:
        if len(set(labels)) != len(labels):
            raise ValueError("a label is named twice")
        if any(not label.strip() for label in labels):
            raise ValueError("a label is empty")
        return labels

    @field_validator("prompt")
    @classmethod
    def _prompt_takes_the_text(cls, prompt: str | None) -> str | None:
        if prompt is not None and "{text}" not in prompt:
            raise ValueError("it must contain {text}")
        return prompt

    @model_validator(mode="after")
    def _fits_the_task(self) -> Suite:
        for number, source in enumerate(self.data):
            own = any(source.format in formats for formats in FORMATS_OF_SUITE.values())
            if own and source.format not in FORMATS_OF_SUITE[self.task]:
                known = ", ".join(FORMATS_OF_SUITE[self.task])
                raise ValueError(f"data.{number}.format is {source.format}; task {self.task} reads {known}")
        if self.task == "classify" and len(self.labels) < 2:
            raise ValueError("labels: task classify needs at least 2")
        if self.task != "classify" and self.labels:
            raise ValueError(f"labels: task {self.task} has none")
        if self.task == "classify" and self.prompt is None:
            raise ValueError("prompt: task classify needs one, with {text} in it")
        if self.task in ("generate", "perplexity") and self.prompt is not None:
            raise ValueError(f"prompt: task {self.task} takes its questions from the data; take it out")
        if self.rubric is not None and self.task == "perplexity":
            raise ValueError("rubric: task perplexity writes no answers that could be judged")
        if self.judge is not None and self.rubric is None:
            raise ValueError("judge: it needs a rubric; name one, such as rubric: answer-quality")
        return self

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each setting that shapes results. Two evaluations are comparable when these are equal."""
        parts = ("task", "labels", "prompt", "scoring", "metrics", "json_schema", "grading", "cluster")
        shaping = {part: hash_value(getattr(self, part)) for part in parts}
        return {**shaping, "generation": hash_value(self.generation.model_dump(mode="json"))}


def shipped_suites() -> dict[str, Path]:
    """The suites that ship with edgetune, by name."""
    return assets.shipped_files("judge", "suites/*.yaml")


def load_suite(suite: Named | Suite) -> Suite:
    """Read a suite by path or shipped name, or a dict of what such a file says, and make its paths absolute.

    A dict's paths are relative to the working directory. Raises RecipeError naming the file and field.
    """
    if isinstance(suite, Suite):
        return suite
    if isinstance(suite, Mapping):
        return _with_absolute_paths(validate(Suite, plain_copy(suite), where="suite"), Path.cwd())
    shipped = shipped_suites()
    remedy = f"give the path of a suite file, or one that ships: {', '.join(shipped)}"
    path = find_named(os.fspath(suite), shipped, kind="suite", remedy=remedy)
    return _with_absolute_paths(validate(Suite, read_mapping(path), where=str(path)), path.resolve().parent)


def _with_absolute_paths(suite: Suite, folder: Path) -> Suite:
    changes: dict[str, Any] = {"data": [source.found_from(folder) for source in suite.data]}
    if isinstance(suite.json_schema, str):
        changes["json_schema"] = read_mapping(folder / suite.json_schema)
    if suite.rubric is not None:
        changes["rubric"] = _found_from(folder, suite.rubric)
    if suite.judges:
        changes["judge"] = [_found_from(folder, judge) for judge in suite.judges]
    return suite.model_copy(update=changes)


def _found_from(folder: Path, reference: str) -> str:
    """A file's path absolute, where it was relative to `folder`; a name stays what it is."""
    is_file = reference.endswith((".yaml", ".yml", ".gguf")) and not reference.startswith(("http://", "https://"))
    return str((folder / reference).resolve()) if is_file else reference
