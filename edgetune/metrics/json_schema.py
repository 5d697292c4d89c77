"""Whether an answer is JSON that a schema allows: https://json-schema.org, by the package jsonschema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgetune.errors import RecipeError
from edgetune.metrics.json_text import parse_json

_DEEP = 50
"""Brackets. An answer with fewer cannot be what a check without end is due to; the schema is."""


def schema_check(schema: dict[str, Any]) -> Callable[[str], bool]:
    """A function that says whether an answer is JSON (as `json_text.parse_json` reads it) that fits the schema.

    The schema is of the draft that its $schema names, 2020-12 otherwise; `format` refuses nothing, as that draft has
    it. References lead into the schema itself: nothing is fetched. Raises RecipeError for an invalid schema, for a
    reference that leads nowhere and for one that never ends; the check raises it too, for references that only some
    answers reach.
    """
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    if not isinstance(schema.get("$schema", ""), str):
        raise RecipeError("json_schema.$schema must be the address of a draft, as text")
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as problem:
        place = "".join(f".{step}" for step in problem.absolute_path)
        raise RecipeError(f"json_schema{place} is not a JSON schema ({_first_line(problem.message)})") from None
    validator = kind(schema, registry=Registry())

    def fits(value: Any) -> bool:
        try:
            return bool(validator.is_valid(value))
        except Unresolvable as problem:
            raise RecipeError(
                f"json_schema has a reference that leads nowhere ({_first_line(str(problem))})",
                remedy="put the missing part into its $defs",
            ) from None

    def check(text: str) -> bool:
        try:
            return fits(parse_json(text))
        except ValueError:
            return False
        except RecursionError:
            if text.count("[") + text.count("{") > _DEEP:
                return False  # nested more deeply than any program would take it
            raise RecipeError("json_schema refers to itself without end") from None

    for probe in ("null", "{}", "[]"):
        check(probe)
    return check


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")[:200]
