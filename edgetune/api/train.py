"""`edgetune.train`: a recipe becomes a run directory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.api.public import PathLike, public
from edgetune.api.run import Run
from edgetune.recipe.load import Named, Overrides, dump_recipe, load_recipe

if TYPE_CHECKING:
    from edgetune.recipe.schema import Recipe


@public
def train(
    recipe: Named | Recipe,
    *,
    overrides: Overrides = (),
    out: PathLike | None = None,
    resume: bool = False,
    processes: int | None = None,
    force: bool = False,
) -> Run:
    """Fine-tune a base model by a recipe.

    `recipe` is the name of one that ships, the path of a YAML file, a dict of what such a file says, or a `Recipe`.
    `out` is the run directory, runs/NAME by default. `processes` train together on this machine, one per GPU at most.
    Ctrl-C saves a checkpoint and raises Interrupted; with `resume` the training goes on from there.
    Raises RecipeError, DataError, ModelError, OutputError, MissingComponent, OutOfMemory, NumericalError or
    ProcessFailed.
    """
    from edgetune.training import processes as together
    from edgetune.training.run_directory import RunDirectory

    loaded = load_recipe(recipe, overrides)
    run = RunDirectory(Path(out) if out is not None else Path("runs") / loaded.name)
    if processes is None or not together.must_launch(processes):
        from edgetune.training.run import train as run_training

        with together.failures_reported():
            return Run(run.path, run_training(loaded, run.path, resume=resume, force=force))
    # What the processes would refuse is refused before any is started.
    if resume:
        run.check_resumable(loaded, processes=processes)
    else:
        run.check_startable(force=force)
    with tempfile.TemporaryDirectory(prefix="edgetune-") as folder:
        file = Path(folder) / f"{loaded.name}.yaml"
        file.write_text(dump_recipe(loaded), encoding="utf-8")
        flags = ["--resume"] * resume + ["--force"] * force
        together.launch(processes, ["train", str(file), "--out", str(run.path), "--processes", str(processes), *flags])
    return Run(run.path)
