"""What all public functions have in common: their errors are `edgetune.errors` and name the functions' parameters."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from edgetune.cores import limit_spinning
from edgetune.errors import EdgetuneError, MissingComponent

P = ParamSpec("P")
T = TypeVar("T")

PathLike = str | os.PathLike[str]
"""A path. A `Run` and what `merge` and `export` return are paths, too."""

EXTRAS = {
    "train": ("accelerate", "bitsandbytes", "datasets", "peft", "pyarrow", "sklearn", "torch", "transformers", "trl"),
    "plots": ("matplotlib",),
}
"""Extra -> the packages that a function may miss when it is not installed."""


def public(function: Callable[P, T]) -> Callable[P, T]:
    """Let errors name the function's own parameters (see `EdgetuneError.parameters`), and the extra that is missing.

    A package that is not installed becomes MissingComponent with the install command.
    """
    defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}

    @functools.wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> T:
        limit_spinning()
        try:
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


def _missing_package(problem: BaseException | None) -> str:
    """The package that could not be imported, which Transformers names only in the cause of its own error."""
    while problem is not None:
        if isinstance(problem, ModuleNotFoundError) and problem.name:
            return problem.name.partition(".")[0]
        problem = problem.__cause__ or problem.__context__
    return ""
