"""What all public functions have in common: their errors are `edgetune.errors` and name the functions' parameters."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable
from types import UnionType
from typing import Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from edgetune.cores import limit_spinning
from edgetune.errors import EdgetuneError, MissingComponent, UsageError
from edgetune.recipe.yaml_input import nearest

P = ParamSpec("P")
T = TypeVar("T")

PathLike = str | os.PathLike[str]
"""A path. A `Run` and what `merge` and `export` return are paths, too."""

EXTRAS = {
    "train": ("accelerate", "bitsandbytes", "datasets", "peft", "pyarrow", "sklearn", "torch", "transformers", "trl"),
    "plots": ("matplotlib",),
}
"""Extra -> the packages that a function may miss when it is not installed."""

_BOUNDS = {
    "limit": (1, math.inf),
    "max_cost": (0, math.inf),
    "min_kappa": (0, 1),
    "seed": (0, math.inf),
    "threads": (1, math.inf),
}
"""Smallest and largest value of parameters, in whichever function they are."""


def public(function: Callable[P, T]) -> Callable[P, T]:
    """Let errors name the function's own parameters (see `EdgetuneError.parameters`), and the extra that is missing.

    Words and numbers that cannot be are refused, and a package that is not installed becomes MissingComponent.
    """
    signature = inspect.signature(function)
    defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
    words = {name: _words(parameter.annotation, function) for name, parameter in signature.parameters.items()}

    @functools.wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> T:
        limit_spinning()
        try:
            for name, value in signature.bind(*arguments, **options).arguments.items():
                _check(name, value, words[name])
            return function(*arguments, **options)
        except ModuleNotFoundError as problem:
            package = _missing_package(problem)
            for extra, packages in EXTRAS.items():
                if package in packages:
                    raise MissingComponent(
                        f"the Python package {package} is not installed",
                        remedy=f'run: pip install "edgetune[{extra}]"',
                    ) from problem
            raise
        except EdgetuneError as problem:
            problem.parameters = {**problem.parameters, **defaults}
            raise

    return call


def _words(annotation: str, function: Callable[..., object]) -> tuple[object, ...]:
    """What a parameter of the type Literal, or of several such types, can be; nothing for other types."""
    try:
        kind = eval(annotation, function.__globals__)
    except (NameError, TypeError):  # a type that is only imported for type checkers
        return ()
    kinds = get_args(kind) if isinstance(kind, UnionType) or get_origin(kind) is Union else (kind,)
    return tuple(word for each in kinds if get_origin(each) is Literal for word in get_args(each))


def _check(name: str, value: object, words: tuple[object, ...]) -> None:
    """Raise UsageError for a word that is none of `words`, and a number out of its bounds."""
    option = f"--{name.replace('_', '-')}"
    if words and isinstance(value, str) and value not in words:
        known = [str(word) for word in words]
        raise UsageError(
            f"invalid value{nearest(value, known)}",
            where=f"{option} {value}",
            remedy=f"use one of {', '.join(known)}",
        )
    if name in _BOUNDS and isinstance(value, int | float):
        least, most = _BOUNDS[name]
        if not least <= value <= most:
            allowed = f"at least {least}" if most == math.inf else f"between {least} and {most}"
            raise UsageError(f"{option} is {value}; it must be {allowed}")


def _missing_package(problem: BaseException | None) -> str:
    """The package that could not be imported, which Transformers names only in the cause of its own error."""
    while problem is not None:
        if isinstance(problem, ModuleNotFoundError) and problem.name:
            return problem.name.partition(".")[0]
        problem = problem.__cause__ or problem.__context__
    return ""
