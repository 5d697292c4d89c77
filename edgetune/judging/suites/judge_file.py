"""Which model judges, and how it is asked: a YAML file in judge/judges/ or the user's own, a GGUF, or URL#MODEL."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from edgetune import assets
from edgetune.errors import ModelError, UsageError
from edgetune.judging.suites.address import hide_secrets, is_azure, spell_url
from edgetune.judging.suites.identity import hash_gguf, hash_value
from edgetune.keys import find_key
from edgetune.models.locate import locate_model
from edgetune.plugins import JUDGE_DIALECTS_GROUP
from edgetune.recipe.load import find_named
from edgetune.recipe.section import Section, own_or_plugin
from edgetune.recipe.yaml_input import read_mapping, validate

KEY_VARIABLE = "OPENAI_API_KEY"
"""The variable that the openai package, too, takes its key from."""
AZURE_KEY_VARIABLE = "AZURE_OPENAI_API_KEY"
"""The one of Azure OpenAI there."""


class Price(Section):
    """US dollars for a million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class _Judge(Section):
    name: str = Field(min_length=1, description="Names the judge in reports.")
    description: str = Field("", description="One line for people.")
    temperature: float = Field(0.0, ge=0, le=2, description="0 takes the likeliest verdict.")
    max_tokens: int = Field(512, ge=16, description="Of a verdict with its reason.")
    repeats: int = Field(1, ge=1, le=32, description="How often each question is asked; the mean counts.")
    certificate: str | None = Field(
        None, description="What `edgetune judge calibrate` wrote for it, relative to this file; a gate may demand it."
    )


class EndpointJudge(_Judge):
    """A model behind an OpenAI-compatible endpoint."""

    kind: Literal["endpoint"] = "endpoint"
    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    url: str = Field("https://api.openai.com/v1", description="The base URL, with its /v1. A query is kept.")
    key: str | None = Field(
        KEY_VARIABLE,
        description="The variable that holds the key, in the environment or .env; null where none is needed.",
    )
    structured: Literal["auto", "json_schema", "json_object", "text"] = Field(
        "auto",
        description="How the form of a verdict is asked for; auto takes the strictest that is understood; a "
        "plugin's name works too.",
    )
    probabilities: Literal["auto", "off"] = Field(
        "auto", description="auto: expected grades from token probabilities where the endpoint gives them."
    )
    connections: int = Field(8, ge=1, le=512, description="Requests at the same time.")
    requests_per_minute: float | None = Field(None, gt=0, description="At most this many are begun in a minute.")
    timeout_seconds: float = Field(120, gt=0, description="For one answer.")
    attempts: int = Field(6, ge=1, le=20, description="Tries for one verdict, when the endpoint is busy or fails.")
    price: Price | None = Field(None, description="For the cost estimate and --max-cost.")

    _structured = field_validator("structured", mode="wrap")(own_or_plugin(JUDGE_DIALECTS_GROUP))

    @field_validator("url")
    @classmethod
    def _url_is_one(cls, url: str) -> str:
        return spell_url(url)


class LocalJudge(_Judge):
    """A GGUF in llama.cpp on this machine: costs nothing, and needs no network."""

    kind: Literal["gguf"] = "gguf"
    model: str = Field(min_length=1, description="A .gguf file (relative to this file), or package:NAME.")
    reason_tokens: int = Field(96, ge=0, description="At most so many tokens of reasoning before the grades.")
    context_tokens: int = Field(4096, ge=256)

    def find_file(self) -> Path:
        """The GGUF. Raises ModelError where there is none, MissingComponent for a package that is not installed."""
        found = locate_model(self.model)
        if found.gguf is None:
            raise ModelError("is no GGUF, and a judge on this machine is one", where=self.model)
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
            remedy = f"write it behind a #: {hide_secrets(url)}#MODEL"
            raise UsageError("an endpoint needs the name of a model", where=hide_secrets(url), remedy=remedy)
        if "?" in model:
            what = "a query belongs to the address, and stands before the #"
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
