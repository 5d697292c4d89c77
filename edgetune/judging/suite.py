"""What a suite may say, and where it is found. Defaults live here only.

A suite is the whole of a judgement but for the models: the items, the question, how answers are scored, and the gate.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from edgetune import assets
from edgetune.recipe.data import DataSource
from edgetune.recipe.load import find_named
from edgetune.recipe.section import Section
from edgetune.recipe.yaml_input import read_mapping, validate


class Gate(Section):
    """When a candidate may replace its baseline."""

    metric: Literal["accuracy"] = Field("accuracy", description="What is compared.")
    margin: float = Field(0.02, ge=0, lt=1, description="The smallest loss that matters, as a share: 0.02 is 2 points.")
    alpha: float = Field(
        0.05, gt=0, le=0.5, description="Significance level of the test; the interval's confidence is 1 - alpha."
    )


class Suite(Section):
    """A question asked of many items whose answers are known."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="Lower case; names the report.")
    description: str = Field("", description="One line for people.")
    task: Literal["classify"]
    data: list[DataSource] = Field(min_length=1, description="The items; a column named id, if any, names them.")
    labels: list[str] = Field(min_length=2, description="The labels, in the order of tables and matrices.")
    prompt: str = Field(description="The user's message, with {text} where the text goes.")
    scoring: Literal["likelihood", "generate"] = Field(
        "likelihood",
        description="likelihood: the label that the model finds likeliest. generate: the label read from its answer.",
    )
    gate: Gate = Gate()

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
    def _prompt_takes_the_text(cls, prompt: str) -> str:
        if "{text}" not in prompt:
            raise ValueError("it must contain {text}")
        return prompt

    @model_validator(mode="after")
    def _formats_fit_the_task(self) -> Suite:
        for number, source in enumerate(self.data):
            if source.format != "text-label":
                raise ValueError(f"data.{number}.format is {source.format}; task classify reads text-label")
        return self

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each setting that shapes predictions. Two evaluations are comparable when these are equal."""
        return {part: hash_value(getattr(self, part)) for part in ("task", "labels", "prompt", "scoring")}


def hash_value(value: Any) -> str:
    """SHA-256 of a plain value, in hexadecimal: equal values have equal hashes on every machine."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def shipped_suites() -> dict[str, Path]:
    """The suites that ship with edgetune, by name."""
    return assets.shipped_files("judge", "suites/*.yaml")


def load_suite(name: str) -> Suite:
    """Read a suite by path or shipped name, and make its data paths absolute.

    Raises RecipeError naming the file and field.
    """
    shipped = shipped_suites()
    path = find_named(
        name, shipped, kind="suite", remedy=f"give the path of a suite file, or one that ships: {', '.join(shipped)}"
    )
    suite = validate(Suite, read_mapping(path), where=str(path))
    folder = path.resolve().parent
    return suite.model_copy(update={"data": [source.found_from(folder) for source in suite.data]})
