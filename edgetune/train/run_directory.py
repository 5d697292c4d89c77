"""The run directory: which file is where, and what a resumed run may go on from. Its contract is in docs/runs.md."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune import outputs
from edgetune.errors import OutputError, RecipeError
from edgetune.recipe.load import dump_recipe, load_recipe
from edgetune.recipe.schema import Recipe

COMPLETE = "complete"
"""A checkpoint folder holds this empty file once everything else in it is on the disk."""


@dataclass(frozen=True)
class RunDirectory:
    """`runs/NAME/` and the files in it."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def card(self) -> Path:
        return self.path / "README.md"

    @property
    def loss_plot(self) -> Path:
        return self.path / "plots" / "loss.png"

    def read_metrics(self) -> list[dict[str, Any]]:
        """The logged rows so far, oldest first."""
        if not self.metrics.is_file():
            return []
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").split("\n") if line]

    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint."""
        found = [folder for folder in self.checkpoints.glob("checkpoint-*") if (folder / COMPLETE).exists()]
        return max(found, key=checkpoint_step, default=None)

    def check_startable(self, *, force: bool) -> None:
        """Raise OutputError, before any work, when a fresh run cannot be written here."""
        outputs.check_target(self.path, force=True)
        if self.path.exists() and not self.path.is_dir():
            raise OutputError("is a file, and a run is a folder", where=self.path, remedy="choose another --out")
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        if not force:
            unfinished = not self.summary.exists() and self.last_checkpoint() is not None
            raise OutputError(
                "holds an interrupted run" if unfinished else "exists already",
                where=self.path,
                remedy=f"{'pass --resume to go on with it, ' if unfinished else ''}choose another --out, or pass "
                "--force to replace it",
            )
        if not self.recipe.exists():
            raise OutputError(
                "is not a run directory, so --force does not replace it", where=self.path, remedy="choose another --out"
            )

    def check_resumable(self, recipe: Recipe) -> Path:
        """The checkpoint to go on from. Raises OutputError when there is none, RecipeError when the recipe changed."""
        if not self.recipe.is_file():
            raise OutputError("there is no run to resume here", where=self.path, remedy="leave --resume out")
        changed = _differences(load_recipe(str(self.recipe)).model_dump(), recipe.model_dump())
        if changed:
            raise RecipeError(
                f"the recipe has changed since this run began: {'; '.join(changed)}",
                where=self.recipe,
                remedy="undo the change to resume, or start anew with another --out",
            )
        if self.summary.exists():
            raise OutputError("this run is finished", where=self.path, remedy="start another with another --out")
        checkpoint = self.last_checkpoint()
        if checkpoint is None:
            raise OutputError(
                "this run has no complete checkpoint to resume from",
                where=self.path,
                remedy="pass --force to start anew",
            )
        return checkpoint

    def start(self, recipe: Recipe) -> None:
        """Make the folder anew with the resolved recipe in it."""
        if self.path.exists():
            shutil.rmtree(self.path)
        outputs.write_text(self.recipe, dump_recipe(recipe))

    def rewind(self, checkpoint: Path) -> None:
        """Drop what was logged or half-saved after `checkpoint`, so that the resumed run continues without a seam."""
        step = checkpoint_step(checkpoint)
        kept = [row for row in self.read_metrics() if row["step"] <= step]
        outputs.write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in kept), force=True)
        for folder in self.checkpoints.glob("checkpoint-*"):
            if not (folder / COMPLETE).exists() or checkpoint_step(folder) > step:
                shutil.rmtree(folder)


def checkpoint_step(folder: Path) -> int:
    """The optimizer update after which a checkpoint was saved."""
    return int(folder.name.rsplit("-", 1)[1])


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """`train.epochs was 3 and is 5`, for every value that differs."""
    changed = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changed += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            changed.append(f"{prefix}{key} was {before!r} and is {after!r}")
    return changed
