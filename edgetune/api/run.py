"""A run directory as a value: what a training has made, also when it was opened again later."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.api.public import PathLike
from edgetune.errors import AdapterError, DataError
from edgetune.notebook_view import picture_html, table_html

if TYPE_CHECKING:
    from edgetune.recipe.schema import Recipe
    from edgetune.training.summary import Summary


class Run:
    """The run directory `path`. It is a path, too: every function that takes one takes a Run.

    `summary` is read from the run directory where it is not given. Raises AdapterError where `path` is none.
    """

    def __init__(self, path: PathLike, summary: Summary | None = None) -> None:
        from edgetune.training.run_directory import RunDirectory

        self.path = Path(path)
        self._files = RunDirectory(self.path)
        if summary is not None:
            self.summary = summary
        elif not self._files.recipe.is_file():
            raise AdapterError("is not a run directory: it has no recipe.yaml", where=self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def adapter(self) -> Path:
        """The folder of the adapter, in PEFT's format. Raises AdapterError where there is none."""
        if self._files.adapter.is_dir():
            return self._files.adapter
        if self._files.model.is_dir():
            raise AdapterError("every weight was trained, so there is no adapter", where=self._files.model)
        raise AdapterError("this run has no finished adapter/", where=self.path, remedy="train it to its end")

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe with every default."""
        from edgetune.recipe.load import load_recipe

        return load_recipe(self._files.recipe)

    @cached_property
    def summary(self) -> Summary:
        """What summary.json says. Raises DataError while the run is not finished, or where the file is damaged."""
        return self._files.read_summary()

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, oldest first; also while the training goes on."""
        try:
            return self._files.read_metrics()
        except (OSError, json.JSONDecodeError) as problem:
            raise DataError(f"cannot be read ({problem})", where=self._files.metrics) from None

    def _repr_html_(self) -> str:
        """The loss curve, and what came of the training."""
        if not self._files.summary.is_file():
            return table_html({"run": self.path, "finished": "no", "steps": len(self.metrics())})
        names = ("name", "method", "base", "steps", "final_train_loss", "eval_loss", "train_seconds")
        table = table_html({"run": self.path} | {name: getattr(self.summary, name) for name in names})
        plot = self._files.loss_plot
        return (picture_html(plot.read_bytes(), "loss curve") if plot.is_file() else "") + table
