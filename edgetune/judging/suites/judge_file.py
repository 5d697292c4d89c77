"""The schema of judges: a YAML file in judge/judges/ or the user's own, a GGUF, or URL#MODEL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from edgetune import assets
from edgetune.errors import ModelError, UsageError
from edgetune.judging.suites.address import hide_secrets, is_azure, spell_url
from edgetune.judging.suites.forms import FORM_DIALECTS
from edgetune.judging.suites.identity import hash_gguf, hash_value
from edgetune.keys import find_key
from edgetune.models.locate import locate_model
from edgetune.plugins import find_plugins
from edgetune.recipe.load import find_named
from edgetune.recipe.section import Section
from edgetune.recipe.yaml_input import nearest, read_mapping, validate

KEY_VARIABLE = "OPENAI_API_KEY"
"""The variable of the key in the openai package, too."""
AZURE_KEY_VARIABLE = "AZURE_OPENAI_API_KEY"
"""The same for Azure OpenAI."""


class Price(Section):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class _Judge(Section):
    name: str = Field(min_length=1, description="The judge's name in reports.")
    description: str = Field("", description="A one-line description.")
    temperature: float = Field(0.0, ge=0, le=2, description="0 always takes the most likely token.")
    max_tokens: int = Field(512, ge=16, description="Maximum tokens of a verdict with its reason.")
    repeats: int = Field(1, ge=1, le=32, description="Number of times that each question is asked; the mean counts.")
    certificate: str | None = Field(
        None, description="File written by `edgetune judge calibrate`, relative to this file; a gate can require it."
    )


class EndpointJudge(_Judge):
    """A model behind an OpenAI-compatible endpoint."""

    kind: Literal["endpoint"] = "endpoint"
    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    url: str = Field("https://api.openai.com/v1", description="The base URL, including /v1. A query is kept.")
    key: str | None = Field(
        KEY_VARIABLE,
        description="The variable of the key, in the environment or .env; null if no key is needed.",
    )
    structured: str = Field(
        "auto",
        description="How the verdict's format is requested: auto (the strictest that the endpoint supports), "
        f"{', '.join(FORM_DIALECTS.own)}, or the name of a plugin's dialect.",
    )
    probabilities: Literal["auto", "off"] = Field(
        "auto", description="auto: expected grades from token probabilities if the endpoint returns them."
    )
    connections: int = Field(8, ge=1, le=512, description="Number of parallel requests.")
    requests_per_minute: float | None = Field(None, gt=0, description="Maximum requests per minute.")
    timeout_seconds: float = Field(120, gt=0, description="Timeout of one answer.")
    attempts: int = Field(6, ge=1, le=20, description="Attempts for one verdict if the endpoint is busy or fails.")
    price: Price | None = Field(None, description="Used for the cost estimate and --max-cost.")

    @field_validator("structured")
    @classmethod
    def _structured_is_known(cls, name: str) -> str:
        known = ("auto", *FORM_DIALECTS.own, *find_plugins(FORM_DIALECTS.group))
        if name not in known:
            raise ValueError(f"{name!r} is unknown{nearest(name, known)}; it must be one of {', '.join(known)}")
        return name

    @field_validator("url")
    @classmethod
    def _url_is_one(cls, url: str) -> str:
        return spell_url(url)

    def read_key(self) -> str | None:
        """The key in the judge's variable, of the environment or .env; None where the judge needs none.

        Raises UsageError when the variable is not set, or its value cannot be sent.
        """
        if self.key is None:
            return None
        if not self.key.isidentifier():  # most likely the key itself, which no message may show
            raise UsageError(
                "its key must be the name of a variable, not what the variable holds",
                where=self.name,
                remedy="write a name such as key: OPENAI_API_KEY",
            )
        key = find_key(self.key)
        if key is None:
            problem, first = "not set", ""
            if self.key in os.environ:
                problem, first = "empty in the environment, which takes precedence over .env", "unset it and "
            raise UsageError(
                f"its key {self.key} is {problem}",
                where=self.name,
                remedy=f"export {self.key}=..., or {first}write it into .env in this folder, or write key: null where "
                "the endpoint needs none",
            )
        return key


class LocalJudge(_Judge):
    """A GGUF in llama.cpp on this machine: no cost, no network."""

    kind: Literal["gguf"] = "gguf"
    model: str = Field(min_length=1, description="A .gguf file (relative to this file), or package:NAME.")
    reason_tokens: int = Field(96, ge=0, description="Maximum tokens of the reason before the grades.")
    context_tokens: int = Field(4096, ge=256)

    @property
    def price(self) -> Price:
        """Nothing."""
        return Price(input=0, output=0)

    def find_file(self) -> Path:
        """The GGUF. Raises ModelError where there is none, MissingComponent for a package that is not installed."""
        found = locate_model(self.model)
        if found.gguf is None:
            raise ModelError("is not a GGUF file, and a judge on this machine must be one", where=self.model)
        return found.gguf


Judge = EndpointJudge | LocalJudge


def judge_hash(judge: Judge) -> str:
    """SHA-256 of what shapes its verdicts: model, where it is, temperature, form; not its limits and prices.

    A GGUF counts by its bytes, wherever it lies. Raises ModelError where there is none.
    """
    shaping = {"kind", "model", "url", "temperature", "max_tokens", "repeats", "structured", "probabilities"}
    shaping |= {"reason_tokens", "context_tokens"}
    values = {key: value for key, value in judge.model_dump(mode="json").items() if key in shaping}
    if isinstance(judge, LocalJudge):
        values["model"] = hash_gguf(judge.find_file())
    return hash_value(values)


def shipped_judges() -> dict[str, Path]:
    """The judges that ship with edgetune, by name."""
    return assets.shipped_files("judge", "judges/*.yaml")


def load_judge(reference: str) -> Judge:
    """The judge behind a reference: a shipped name, a YAML file, a .gguf file, package:NAME, or URL#MODEL.

    An endpoint given as URL#MODEL takes the key in OPENAI_API_KEY where that is set, in the environment or .env, and
    none otherwise; one of Azure takes that in AZURE_OPENAI_API_KEY first. Raises RecipeError or UsageError.
    """
    if reference.startswith(("http://", "https://")):
        url, _, model = reference.partition("#")
        if not model:
            remedy = f"write it after a #: {hide_secrets(url)}#MODEL"
            raise UsageError("an endpoint needs the name of a model", where=hide_secrets(url), remedy=remedy)
        if "?" in model:
            what = "the query belongs to the address; write it before the #"
            raise UsageError(what, where=hide_secrets(url), remedy="write URL?api-version=VERSION#MODEL")
        values = {"name": model, "model": model, "url": url, "key": None}
        address = validate(EndpointJudge, values, where=hide_secrets(url))
        variables = (AZURE_KEY_VARIABLE, KEY_VARIABLE) if is_azure(address.url) else (KEY_VARIABLE,)
        return address.model_copy(update={"key": next(filter(find_key, variables), None)})
    if reference.startswith("package:") or reference.lower().endswith(".gguf"):
        return LocalJudge(name=Path(reference.removeprefix("package:")).stem, model=reference)
    shipped = shipped_judges()
    remedy = f"give a YAML file, a .gguf file, URL#MODEL, or one that ships: {', '.join(shipped)}"
    path = find_named(reference, shipped, kind="judge", remedy=remedy)
    values = read_mapping(path)
    kind: type[Judge] = LocalJudge if values.get("kind") == "gguf" else EndpointJudge
    judge: Judge = validate(kind, values, where=str(path))
    changes = {}
    if isinstance(judge, LocalJudge) and judge.model.lower().endswith(".gguf"):
        changes["model"] = str((path.resolve().parent / judge.model).resolve())
    if judge.certificate is not None:
        changes["certificate"] = str((path.resolve().parent / judge.certificate).resolve())
    return judge.model_copy(update=changes)
