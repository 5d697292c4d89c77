"""What a recipe may say. Defaults live here only: help, docs and the run directory are generated from these fields.

Words are the field's own: PEFT's for methods, TRL's and Transformers' for training. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """One part of a recipe: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, protected_namespaces=())


class Base(Section):
    """The model that is fine-tuned."""

    model: str = Field(
        description="Hub id (owner/name), a folder with config.json, a .gguf file, or package:NAME for a GGUF inside "
        "an installed Python package."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    quantize: Literal["none", "int8", "nf4"] = Field(
        "none", description="Quantize the frozen base while training, with bitsandbytes. nf4 with method lora is QLoRA."
    )
    double_quantization: bool = Field(True, description="nf4 only: quantize the quantization constants too.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Type of weights and compute; auto is bfloat16 on a GPU that has it, float32 on a CPU."
    )


DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""A data source that ends so is a file; anything else is a hub id."""


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
    format: Literal["messages", "sharegpt", "alpaca", "prompt-completion", "text-label"] = Field(
        description="How rows become conversations."
    )
    columns: dict[str, str] = Field({}, description="The format's column name -> the file's, such as {text: tweet}.")
    labels: dict[str, str] = Field({}, description='Value in the file -> label, such as {"0": negative}.')

    def found_from(self, folder: Path) -> DataSource:
        """The same source with a file's path absolute; it was relative to `folder`."""
        if not self.source.lower().endswith(DATA_SUFFIXES):
            return self
        return self.model_copy(update={"source": str((folder / self.source).resolve())})


class Percentile(Section):
    """A maximum length taken from the training data."""

    percentile: float = Field(gt=0, le=100, description="Share of the training examples that fit whole, in percent.")


class Data(Section):
    """What the model learns from, and what it is tested on."""

    train: list[DataSource] = Field(min_length=1)
    eval: list[DataSource] = []
    max_length: Annotated[int, Field(ge=8)] | Percentile = Field(
        1024, description="Tokens per example; longer ones are cut at the end. Or {percentile: 80}."
    )
    template: str = Field(
        "chat", description="chat (the tokenizer's own), alpaca, or a Jinja file (relative to the recipe's folder)."
    )
    labels: list[str] = Field([], description="classify: the labels, in the order of tables and matrices.")
    prompt: str | None = Field(None, description="classify: the user's message, with {text} where the text goes.")


class Lora(Section):
    """Low-rank adaptation, https://arxiv.org/abs/2106.09685. On an nf4 base: QLoRA, https://arxiv.org/abs/2305.14314."""

    type: Literal["lora"]
    rank: int = Field(16, ge=1, description="Rank r of the update B·A.")
    alpha: float = Field(32, gt=0, description="The update is scaled by alpha / rank (alpha / √rank with rslora).")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: list[str] | Literal["all-linear"] = Field("all-linear", description="Module names, or all-linear.")
    rslora: bool = Field(False, description="Scale by alpha / √rank, https://arxiv.org/abs/2312.03732.")
    dora: bool = Field(False, description="Weight-decomposed LoRA, https://arxiv.org/abs/2402.09353.")


class Ia3(Section):
    """Learned rescaling of activations, https://arxiv.org/abs/2205.05638."""

    type: Literal["ia3"]
    targets: list[str] = Field(
        ["k_proj", "v_proj", "down_proj"], min_length=1, description="Modules that get a scaling vector."
    )
    feedforward: list[str] = Field(
        ["down_proj"], description="Those of the targets whose input is scaled instead of their output."
    )

    @model_validator(mode="after")
    def _feedforward_is_targeted(self) -> Ia3:
        strangers = sorted(set(self.feedforward) - set(self.targets))
        if strangers:
            raise ValueError(f"feedforward names {', '.join(strangers)}, which targets does not")
        return self


Method = Annotated[Lora | Ia3, Field(discriminator="type")]


class Train(Section):
    """How the adapter is trained."""

    epochs: float = Field(1, gt=0, description="Passes over the training data.")
    max_steps: int | None = Field(
        None, ge=1, description="Stop after this many optimizer updates, whatever epochs says."
    )
    batch_size: int = Field(1, ge=1, description="Examples per device and step.")
    accumulate: int = Field(1, ge=1, description="Steps per optimizer update.")
    learning_rate: float = Field(2e-4, gt=0)
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"] = "adamw"
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    gradient_checkpointing: bool = Field(False, description="Less memory for activations, about a third more time.")
    eval_every: int | None = Field(None, ge=1, description="Evaluate each this many updates; None is at the end only.")
    save_every: int | None = Field(None, ge=1, description="Checkpoint each this many updates; None is each epoch.")
    log_every: int = Field(1, ge=1, description="Write a row of metrics.jsonl each this many updates.")
    seed: int = Field(0, ge=0)


class Recipe(Section):
    """A whole fine-tuning, from base model to last step."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="Lower case; names the run directory.")
    description: str = Field("", description="One line for `edgetune recipes`.")
    task: Literal["chat", "classify"]
    base: Base
    data: Data
    method: Method
    train: Train = Train()

    @field_validator("base", mode="before")
    @classmethod
    def _base_may_be_a_name(cls, value: object) -> object:
        return {"model": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _labels_belong_to_classify(self) -> Recipe:
        if self.task == "classify":
            if len(self.data.labels) < 2:
                raise ValueError("data.labels needs at least 2 labels when task is classify")
            if len(set(self.data.labels)) != len(self.data.labels):
                raise ValueError("data.labels names a label twice")
            if self.data.prompt is None or "{text}" not in self.data.prompt:
                raise ValueError("data.prompt must contain {text} when task is classify")
        elif self.data.labels or self.data.prompt is not None:
            raise ValueError(f"data.labels and data.prompt belong to task classify, not {self.task}")
        return self

    @model_validator(mode="after")
    def _formats_fit_the_task(self) -> Recipe:
        for field, sources in (("train", self.data.train), ("eval", self.data.eval)):
            for number, source in enumerate(sources):
                if (source.format == "text-label") != (self.task == "classify"):
                    raise ValueError(
                        f"data.{field}.{number}.format is {source.format}, which task {self.task} cannot read"
                    )
        return self

    @model_validator(mode="after")
    def _quantized_bases_take_lora(self) -> Recipe:
        if isinstance(self.method, Lora) and self.method.dora and self.base.quantize == "int8":
            raise ValueError("method.dora does not work on an int8 base; use base.quantize nf4 or none")
        return self
