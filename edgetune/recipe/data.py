"""The `data` section of a recipe: sources, and how their rows become examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from edgetune.plugins import DATA_FORMATS_GROUP
from edgetune.recipe.section import Section, own_or_plugin

DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""A data source with one of these endings is a file; any other is a hub id."""

SPREADSHEET_SUFFIXES = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")
"""Files that are refused: spreadsheet programs can save them as .csv."""

Format = Literal["messages", "sharegpt", "alpaca", "prompt-completion", "text-label", "text-summary"]

FORMATS_OF_TASK: dict[str, tuple[str, ...]] = {
    "chat": ("messages", "sharegpt", "alpaca", "prompt-completion"),
    "classify": ("text-label",),
    "summarize": ("text-summary",),
}
"""Which of edgetune's own formats a task can read; a plugin's format names its tasks itself."""


class DataSource(Section):
    """One file or hub data set, and how its columns are read."""

    source: str = Field(
        description="A .jsonl, .json, .csv, .tsv or .parquet file (relative to the recipe's folder), or a hub id."
    )
    subset: str | None = Field(
        None, description="Configuration name of a hub data set, such as sentiment of tweet_eval."
    )
    split: str = Field(
        "train", description='Split, with the slices of datasets: "train[:1000]". Slices work on files too.'
    )
    format: Format = Field(
        description="How rows become conversations, labelled texts or texts with summaries; or a plugin's name."
    )
    columns: dict[str, str] = Field(
        {},
        description="The format's column name -> the file's, such as {text: tweet}; a dotted name reads a value inside "
        "an object. Further names can be used in data.prompt.",
    )
    labels: dict[str, str | None] = Field(
        {},
        description='Value in the file -> label, such as {"0": negative}, in addition to the labels themselves; null '
        "leaves the row out.",
    )
    labels_ignore_case: bool = Field(
        False, description="Read Billing and BILLING as the label billing. Outer spaces are always ignored."
    )
    cap: int | None = Field(None, ge=1, description="At most this many rows, drawn with data.seed.")
    weight: float = Field(
        1.0, gt=0, description="Times that each row is used per epoch: 0.5 uses half of the rows, drawn with data.seed."
    )

    _format = field_validator("format", mode="wrap")(own_or_plugin(DATA_FORMATS_GROUP))

    @field_validator("labels", mode="before")
    @classmethod
    def _numbers_are_written_without_quotes(cls, value: object) -> object:
        """YAML reads {0: negative} with a number as its key."""
        if not isinstance(value, dict):
            return value
        return {
            str(key) if isinstance(key, int | float) and not isinstance(key, bool) else key: label
            for key, label in value.items()
        }

    def found_from(self, folder: Path) -> DataSource:
        """The source with its path, which is relative to `folder`, made absolute."""
        if not self.source.lower().endswith((*DATA_SUFFIXES, *SPREADSHEET_SUFFIXES)):
            return self
        return self.model_copy(update={"source": str((folder / self.source).resolve())})


class Percentile(Section):
    """A maximum length computed from the training data."""

    percentile: float = Field(gt=0, le=100, description="Share of the training examples that fit whole, in percent.")


Length = Annotated[int, Field(ge=1)] | Percentile


class Data(Section):
    """The training and evaluation data."""

    train: list[DataSource] = Field(min_length=1)
    eval: list[DataSource] = Field([])
    holdout: float | None = Field(
        None,
        gt=0,
        description="Instead of eval: reserve this share (below 1) or number of the training examples for evaluation, "
        "drawn with data.seed, label by label.",
    )
    seed: int = Field(0, ge=0, description="Draws cap, weight, holdout and balance; train.seed does not change them.")
    max_length: Annotated[int, Field(ge=8)] | Percentile = Field(
        1024, description="Maximum tokens per example; longer ones are cut at the end. Or {percentile: 80}."
    )
    max_source_length: Length | None = Field(
        None,
        description="classify, summarize: maximum tokens of the text itself; the instruction around it is not cut. Or "
        "{percentile: 80}.",
    )
    max_target_length: Length | None = Field(
        None,
        description="summarize: maximum tokens of the summary, in training and in generation. Or {percentile: 90}.",
    )
    template: str = Field(
        "chat", description="chat (the tokenizer's own), alpaca, or a Jinja file (relative to the recipe's folder)."
    )
    labels: list[str] = Field([], description="classify: the labels, in the order of tables and matrices.")
    prompt: str | None = Field(
        None,
        description="classify, summarize: the prompt. {text} stands for the text, {name} for any other column of the "
        "source.",
    )
    balance: Literal["none", "undersample", "oversample"] = Field(
        "none",
        description="classify: give every label as many training examples as the rarest or the most frequent has.",
    )

    @model_validator(mode="after")
    def _evaluation_comes_from_one_place(self) -> Data:
        if self.holdout is not None and self.eval:
            raise ValueError("holdout and eval cannot be combined; remove one of them")
        return self
