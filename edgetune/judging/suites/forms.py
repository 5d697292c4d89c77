"""How an endpoint is asked for the form of a verdict. A new way is a function here and its line in _OWN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from edgetune.plugins import JUDGE_DIALECTS_GROUP, Registry

Ask = Callable[[dict[str, Any]], dict[str, Any]]
"""A verdict's JSON schema -> what the request's body says about it."""


@dataclass(frozen=True)
class FormDialect:
    """One way to ask for the form of a verdict. `note` says of it what a user reads where the strictest is refused."""

    ask: Ask
    note: str = ""


def _json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    named = {"name": "verdict", "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _json_object_with_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_object", "schema": schema}}


def _json_object(_schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_object"}}


def _text(_schema: dict[str, Any]) -> dict[str, Any]:
    return {}


_OWN = {
    "json_schema": FormDialect(_json_schema),
    "json_object with schema": FormDialect(_json_object_with_schema, "the schema is passed in llama.cpp's form"),
    "json_object": FormDialect(_json_object, "JSON without a schema is requested"),
    "text": FormDialect(_text, "the form is only described in the prompt"),
}
"""The strictest first: `structured: auto` tries them in this order."""


def _adopt(_name: str, given: object) -> FormDialect:
    """A plugin's function from a JSON schema to members of the request. Raises TypeError for anything else."""
    if not callable(given):
        raise TypeError(f"{given!r} is no function of a JSON schema")
    return FormDialect(cast(Ask, given))


FORM_DIALECTS = Registry[FormDialect](JUDGE_DIALECTS_GROUP, _OWN, _adopt)
"""By what a judge's file calls them under `structured`; those of plugins are used only where a file names them."""
