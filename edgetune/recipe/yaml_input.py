"""YAML text of recipes and suites -> a validated model, with errors that name file, field and nearest known word."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edgetune.errors import RecipeError

Model = TypeVar("Model", bound=BaseModel)

_FLOAT = re.compile(
    r"[-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """SafeLoader, in C if PyYAML has it (ten times as fast), with 1e-4 as a number; in YAML 1.1 it is text."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def parse_yaml(text: str, *, where: str) -> Any:
    """Parse one YAML document. Raises RecipeError with line and column."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        raise RecipeError(
            f"this is not valid YAML ({getattr(problem, 'problem', None) or problem})", where=place
        ) from None


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping. Raises RecipeError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise RecipeError(f"cannot be read ({problem})", where=path) from None
    value = parse_yaml(text, where=str(path))
    if not isinstance(value, dict):
        raise RecipeError("must be a mapping of keys to values", where=path)
    return value


def validate(model: type[Model], values: dict[str, Any], *, where: str | Callable[[Sequence[str]], str]) -> Model:
    """Build `model` from plain values. Raises RecipeError naming the first invalid field and the valid values.

    `where` is the file to name, or a function that returns it for the field's path.
    """
    try:
        return model.model_validate(values)
    except ValidationError as problem:
        error = problem.errors()[0]
        field = _path_in(values, error)
        place = where if isinstance(where, str) else where(field)
        raise RecipeError(_describe(model, error, ".".join(field)), where=place) from None


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the known word nearest to `word`, or nothing."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]}?)" if match else ""


def _describe(model: type[BaseModel], error: ErrorDetails, field: str) -> str:
    """One of pydantic's errors as a message: `method.rank is 0; it must be at least 1`."""
    if error["type"] == "extra_forbidden":
        path = [str(step) for step in error["loc"]]
        siblings = _keys_at(model, path[:-1])
        return f"unknown key {field}{nearest(path[-1], siblings)}; known here: {', '.join(sorted(siblings))}"
    phrase = _PHRASES.get(error["type"], _plain_phrase)
    return phrase(field, error.get("input"), error.get("ctx", {}), error["msg"])


def _bound_phrase(words: str) -> Callable[..., str]:
    def phrase(field: str, given: object, context: dict[str, Any], _: str) -> str:
        limit = next(value for key, value in context.items() if key in ("ge", "gt", "lt", "le"))
        return f"{field} is {given!r}; it must be {words} {limit}"

    return phrase


def _tag_phrase(field: str, _given: object, context: dict[str, Any], _message: str) -> str:
    tag, choices = context["tag"], context["expected_tags"].replace("'", "")
    return f"{field} has the unknown type {tag!r}{nearest(tag, choices.split(', '))}; known: {choices}"


def _literal_phrase(field: str, given: object, context: dict[str, Any], _: str) -> str:
    choices = context["expected"].replace("'", "")
    guess = nearest(given, choices.replace(" or ", ", ").split(", ")) if isinstance(given, str) else ""
    return f"{field} is {given!r}{guess}; it must be one of {choices}"


def _own_phrase(field: str, _given: object, context: dict[str, Any], _message: str) -> str:
    return f"{field}: {context['error']}" if field else str(context["error"])


def _text_phrase(field: str, given: object, *_: object) -> str:
    """YAML reads yes, no, on and off as true and false, and digits as numbers."""
    if isinstance(given, bool):
        return f"{field} is {str(given).lower()} (YAML also reads yes, no, on and off so); put text in quotes"
    if isinstance(given, int | float):
        return f'{field} is the number {given}; put text in quotes: "{given}"'
    return f"{field} is {given!r}; it must be text"


def _plain_phrase(field: str, given: object, _context: dict[str, Any], message: str) -> str:
    return f"{field} is {given!r}; {message[0].lower()}{message[1:]}"


_PHRASES: dict[str, Callable[..., str]] = {
    "missing": lambda field, *_: f"{field} is missing",
    "union_tag_not_found": lambda field, _given, context, _: (
        f"{field}.{context['discriminator'].strip(chr(39))} is missing"
    ),
    "union_tag_invalid": _tag_phrase,
    "literal_error": _literal_phrase,
    "value_error": _own_phrase,
    "string_type": _text_phrase,
    "greater_than_equal": _bound_phrase("at least"),
    "greater_than": _bound_phrase("more than"),
    "less_than_equal": _bound_phrase("at most"),
    "less_than": _bound_phrase("less than"),
}


def _path_in(values: Any, error: ErrorDetails) -> list[str]:
    """The error's path in the file. Pydantic's own path also names members of unions (method.lora.rank)."""
    path: list[str] = []
    for step in error["loc"]:
        place: Any = dict(enumerate(values)) if isinstance(values, list) else values
        if isinstance(place, dict) and step in place:
            path.append(str(step))
            values = place[step]
    return [*path, str(error["loc"][-1])] if error["type"] == "missing" else path


def _keys_at(model: type[BaseModel], path: list[str]) -> set[str]:
    """The known keys at a place of the file, over all members of unions that the path allows."""
    choices: list[Any] = [model]
    for step in path:
        tagged = [
            choice for choice in choices
            if _is_model(choice) and "type" in choice.model_fields
            and step in typing.get_args(choice.model_fields["type"].annotation)
        ]  # fmt: skip
        if tagged:
            choices = tagged
            continue
        fields = [
            choice.model_fields[step].annotation
            for choice in choices
            if _is_model(choice) and step in choice.model_fields
        ]
        if fields:
            choices = [member for field in fields for member in _members(field)]
    return {key for choice in choices if _is_model(choice) for key in choice.model_fields}


def _members(annotation: Any) -> Iterator[Any]:
    """The plain types inside Optional, Union, list and Annotated."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, list, typing.Annotated):
        for argument in typing.get_args(annotation):
            yield from _members(argument)
    else:
        yield annotation


def _is_model(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)
