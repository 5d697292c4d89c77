"""The base class of all parts of a recipe."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler

from edgetune.plugins import find_plugins


class Section(BaseModel):
    """One part of a recipe: frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, protected_namespaces=(), allow_inf_nan=False)


def own_or_plugin(group: str) -> Callable[[object, ValidatorFunctionWrapHandler], object]:
    """The validator, of mode wrap, of a field that takes edgetune's own words and the names of a group's plugins."""

    def check(value: object, own: ValidatorFunctionWrapHandler) -> object:
        try:
            return own(value)
        except ValidationError:
            if isinstance(value, str) and value in find_plugins(group):
                return value
            raise

    return check
