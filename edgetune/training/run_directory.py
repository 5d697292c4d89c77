"""The run directory: which file is where, and what a resumed run may go on from. Its contract is in docs/runs.md."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from edgetune import outputs
from edgetune.errors import OutputError, RecipeError, UsageError, first_line_of
from edgetune.recipe.load import dump_recipe, load_recipe
from edgetune.recipe.schema import Recipe
from edgetune.recipe.section import Section
from edgetune.training.summary import Summary

COMPLETE = "complete"
"""A checkpoint folder holds this file once everything else in it is on the disk; in it stands how many bytes long
metrics.jsonl was then."""


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
    def model(self) -> Path:
        """The whole model where every weight was trained; such a run has no adapter."""
        return self.path / "model"

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
    def frozen_products(self) -> Path:
        """How the frozen layers multiply, which a resumed run goes on with."""
        return self.checkpoints / "frozen_products.json"

    @property
    def card(self) -> Path:
        return self.path / "README.md"

    @property
    def loss_plot(self) -> Path:
        return self.path / "plots" / "loss.png"

    def read_metrics(self) -> list[dict[str, Any]]:
        """The logged rows so far, oldest first. A last line without its end was cut off while it was written."""
        if not self.metrics.is_file():
            return []
        *lines, _ = self.metrics.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines]

    def read_summary(self) -> Summary:
        """What the run reports. Raises OutputError where it is not finished, or where no such file can be read."""
        try:
            return Summary.model_validate_json(self.summary.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise OutputError(
                "holds no summary of a finished run", where=self.path, remedy=f"train with --out {self.path} first"
            ) from None
        except ValueError as problem:
            raise OutputError(
                f"is no summary of a run ({first_line_of(problem)})",
                where=self.summary,
                remedy="train again with --force",
            ) from problem

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

    def check_resumable(self, recipe: Recipe, *, processes: int) -> Path:
        """The checkpoint to go on from with `processes` processes.

        Raises OutputError when there is none, RecipeError when the recipe changed, UsageError when the number of
        processes did: with it, other examples would be in a step.
        """
        if not self.recipe.is_file():
            raise OutputError("there is no run to resume here", where=self.path, remedy="leave --resume out")
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
                remedy="pass --force to start anew",
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
        """Mark a checkpoint that is otherwise written as complete."""
        outputs.flush_to_disk(self.metrics)
        (checkpoint / COMPLETE).write_text(str(self.metrics.stat().st_size), encoding="utf-8")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings out of this folder. Raises OutputError when one is at work in it.

        The system lets go of the lock when its holder ends, however that happens. The file that is locked lies beside
        the folder, which may be replaced.
        """
        outputs.check_target(self.path, force=True)
        place = self.path.absolute()
        lock = place.with_name(f".{place.name}.lock")
        with _open_locked(lock) as file:
            if file is None:
                raise OutputError(
                    f"another training is at work here (process {lock.read_text(encoding='utf-8') or 'unknown'})",
                    where=self.path,
                    remedy="wait for it, or choose another --out",
                )
            with outputs.explain_refused_writes(self.path):
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)

    def start(self, recipe: Recipe) -> None:
        """Make the folder anew with the resolved recipe in it."""
        if self.path.exists():
            shutil.rmtree(self.path)
        outputs.write_text(self.recipe, dump_recipe(recipe))

    def rewind(self, checkpoint: Path) -> None:
        """Drop what was logged or half-saved after `checkpoint`, so that the resumed run continues without a seam."""
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


@contextmanager
def _open_locked(lock: Path) -> Iterator[TextIO | None]:
    """The file, locked; None when it is locked already."""
    import fcntl  # POSIX has it; reading a run needs no lock

    while True:
        with _open(lock) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            if _is_at(file, lock):
                yield file
                return


def _open(lock: Path) -> TextIO:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        return lock.open("a", encoding="utf-8")
    except OSError as problem:
        raise OutputError(
            f"nothing can be written here ({problem.strerror})", where=lock.parent, remedy="choose another --out"
        ) from None


def _is_at(file: TextIO, path: Path) -> bool:
    """False where the lock's last holder removed the file after we had opened it and before we had locked it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _differences(old: Section, new: Section, prefix: str = "") -> list[str]:
    """`train.epochs was 3 and is 5`, for every value that differs, and where the new one is a default."""
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
