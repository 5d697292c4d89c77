"""The files of a run directory, and the checks before a run starts or resumes. Its contract is in docs/runs.md."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from edgetune import outputs
from edgetune.errors import DataError, OutputError, RecipeError, UsageError
from edgetune.recipe.load import dump_recipe, load_recipe
from edgetune.recipe.schema import Recipe
from edgetune.recipe.section import Section
from edgetune.training.summary import Summary

COMPLETE = "complete"
"""Marks a checkpoint folder whose other files are all on the disk. It holds the size of metrics.jsonl at that time, in
bytes."""


class _Place:
    """A file or folder of a run directory, by its name below `path`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, run: RunDirectory, _: type) -> Path:
        return run.path / self._name


@dataclass(frozen=True)
class RunDirectory:
    """`runs/NAME/` and the files in it."""

    path: Path

    recipe = _Place("recipe.yaml")
    metrics = _Place("metrics.jsonl")
    summary = _Place("summary.json")
    card = _Place("README.md")
    loss_plot = _Place("plots/loss.png")
    adapter = _Place("adapter")
    model = _Place("model")
    """The whole model where every weight was trained; such a run has no adapter."""
    checkpoints = _Place("checkpoints")
    frozen_products = _Place("checkpoints/frozen_products.json")
    """How the frozen layers multiply, which a resumed run keeps."""

    def read_metrics(self) -> list[dict[str, Any]]:
        """The logged rows so far, oldest first. An unfinished last line is ignored."""
        if not self.metrics.is_file():
            return []
        *lines, _ = self.metrics.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines]

    def read_summary(self) -> Summary:
        """The content of summary.json. Raises DataError while the run is not finished, or where the file is damaged."""
        try:
            return Summary.model_validate_json(self.summary.read_bytes())
        except FileNotFoundError:
            raise DataError(
                "this run is not finished: it has no summary.json",
                where=self.path,
                remedy=f"train it to its end: edgetune train {self.recipe} --out {self.path} --resume",
            ) from None
        except ValidationError as problem:
            field = ".".join(map(str, problem.errors()[0]["loc"]))
            raise DataError(
                f"cannot be read as a summary (at {field or 'its beginning'})",
                where=self.summary,
                remedy="train again with --force",
            ) from None

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
                remedy=f"{'pass --resume to continue it, ' if unfinished else ''}choose another --out, or pass "
                "--force to replace it",
            )
        if not self.recipe.exists():
            raise OutputError(
                "is not a run directory, so --force does not replace it", where=self.path, remedy="choose another --out"
            )

    def check_resumable(self, recipe: Recipe, *, processes: int) -> Path:
        """The checkpoint from which `processes` processes can resume.

        Raises OutputError when there is none, RecipeError when the recipe changed, UsageError when the number of
        processes changed: each step would then see other examples.
        """
        if not self.recipe.is_file():
            raise OutputError("there is no run to resume here", where=self.path, remedy="remove --resume")
        changed = _differences(load_recipe(str(self.recipe)), recipe)
        if changed:
            raise RecipeError(
                f"the recipe has changed since this run began: {'; '.join(changed)}",
                where=self.recipe,
                remedy=f"undo the change, or resume by the run's own recipe: edgetune train {self.recipe} --out "
                f"{self.path} --resume",
            )
        if self.summary.exists():
            raise OutputError("this run is finished", where=self.path, remedy="start another with another --out")
        checkpoint = self.last_checkpoint()
        if checkpoint is None:
            raise OutputError(
                "this run has no complete checkpoint to resume from",
                where=self.path,
                remedy="pass --force to start again",
            )
        before = len([*checkpoint.glob("rng_state*.pth")])
        if before != processes:
            raise UsageError(
                f"this run was trained by {before} processes, and a step of {processes} sees other examples",
                where="--processes",
                remedy=f"resume with --processes {before}",
            )
        return checkpoint

    def seal(self, checkpoint: Path) -> None:
        """Mark a checkpoint as complete, after everything else in it is written."""
        outputs.flush_to_disk(self.metrics)
        (checkpoint / COMPLETE).write_text(str(self.metrics.stat().st_size), encoding="utf-8")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings out of this folder. Raises OutputError when one is running in it.

        The system releases the lock when its process ends, however that happens. The locked file lies beside the
        folder, which may be replaced.
        """
        outputs.check_target(self.path, force=True)
        place = self.path.absolute()
        lock = place.with_name(f".{place.name}.lock")
        held = FileLock(lock)
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.touch()
            held.acquire(timeout=0)
        except Timeout:
            raise OutputError(
                f"another training is running here (process {lock.read_text(encoding='utf-8') or 'unknown'})",
                where=self.path,
                remedy="wait for it, or choose another --out",
            ) from None
        except OSError as problem:
            what = f"nothing can be written here ({problem.strerror})"
            raise OutputError(what, where=lock.parent, remedy="choose another --out") from None
        with outputs.explain_refused_writes(self.path):
            lock.write_text(str(os.getpid()), encoding="utf-8")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            held.release()

    def start(self, recipe: Recipe) -> None:
        """Replace the folder by one that holds only the resolved recipe."""
        if self.path.exists():
            shutil.rmtree(self.path)
        outputs.write_text(self.recipe, dump_recipe(recipe))

    def rewind(self, checkpoint: Path) -> None:
        """Remove what was logged or saved after `checkpoint`, so that the resumed run continues exactly there."""
        step = checkpoint_step(checkpoint)
        length = (checkpoint / COMPLETE).read_text(encoding="utf-8")
        if length:
            os.truncate(self.metrics, int(length))
        else:  # a checkpoint of edgetune 0.1, which did not note the length
            kept = [row for row in self.read_metrics() if row["step"] <= step]
            outputs.write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in kept), force=True)
        for folder in [*self.checkpoints.glob("checkpoint-*"), *self.checkpoints.glob(".checkpoint-*")]:
            if not (folder / COMPLETE).exists() or folder.name.startswith(".") or checkpoint_step(folder) > step:
                shutil.rmtree(folder)


def checkpoint_step(folder: Path) -> int:
    """The optimizer update after which a checkpoint was saved."""
    return int(folder.name.rsplit("-", 1)[1])


def _differences(old: Section, new: Section, prefix: str = "") -> list[str]:
    """`train.epochs was 3 and is 5` for every value that differs; marks new values that are defaults."""
    if type(old) is not type(new):
        return [f"{prefix.rstrip('.')} was {old.model_dump()} and is {new.model_dump()}"]
    changed = []
    before, after = old.model_dump(), new.model_dump()
    for field, value in new:
        if isinstance(value, Section):
            changed += _differences(getattr(old, field), value, f"{prefix}{field}.")
        elif before[field] != after[field]:
            origin = "" if field in new.model_fields_set else ", the default of this version"
            changed.append(f"{prefix}{field} was {before[field]!r} and is {after[field]!r}{origin}")
    return changed
