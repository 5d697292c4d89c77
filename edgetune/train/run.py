"""A recipe becomes a run directory. The only place where data, model, adapter and trainer meet."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune import console
from edgetune.errors import Interrupted
from edgetune.outputs import explain_refused_writes
from edgetune.recipe.schema import Recipe
from edgetune.train import processes
from edgetune.train.prepare import Prepared, prepare
from edgetune.train.run_directory import RunDirectory, checkpoint_step

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from edgetune.train.summary import Summary
    from edgetune.train.trainer import ObjectiveTrainer


def train(recipe: Recipe, out: Path, *, resume: bool = False, force: bool = False) -> Summary:
    """Train by `recipe` into the run directory `out`, and return what is in its summary.json.

    Ctrl-C saves a checkpoint and raises Interrupted; `resume` goes on from the newest one as if nothing had happened.
    Raises OutputError, RecipeError, DataError, ModelError before anything is written, NumericalError when the loss is
    not finite.

    Where several processes were started to train together, all of them call this, and all return the same.
    """
    processes.join()
    run = RunDirectory(out)
    with run.locked() if processes.is_first() else nullcontext():
        checkpoint = run.check_resumable(recipe, processes=processes.world_size()) if resume else None
        if checkpoint is None and processes.is_first():
            run.check_startable(force=force)
        prepared = prepare(recipe)
        from edgetune.train.backends.transformers import load_adapted_model

        model = load_adapted_model(recipe, prepared)
        if processes.is_first():
            if checkpoint is None:
                run.start(recipe)
            else:
                run.rewind(checkpoint)
                console.note(f"resuming after step {checkpoint_step(checkpoint)}")
        return _fit(recipe, run, prepared, model, checkpoint)


def _fit(recipe: Recipe, run: RunDirectory, prepared: Prepared, model: PeftModel, checkpoint: Path | None) -> Summary:
    from edgetune.models.load import resolve_dtype
    from edgetune.train.settings import total_steps, trainer_settings
    from edgetune.train.summary import summarize
    from edgetune.train.telemetry import Telemetry
    from edgetune.train.trainer import trainer_class

    dtype = resolve_dtype(recipe.base.dtype)
    evaluation = prepared.evaluation.examples if prepared.evaluation else ()
    settings = trainer_settings(recipe, run, evaluates=bool(evaluation), dtype=dtype)
    count = processes.world_size()
    steps = total_steps(recipe, examples=len(prepared.train.examples), processes=count)
    with explain_refused_writes(run.path), Telemetry(run, recipe, writes=processes.is_first()) as telemetry:
        with console.progress(f"training {recipe.name}", steps, "steps") as progress:
            if checkpoint is not None:
                progress.advance(checkpoint_step(checkpoint))
            trainer = trainer_class(settings)(
                model,
                settings,
                prepared.tokenizer,
                prepared.objective,
                prepared.train.examples,
                evaluation,
                telemetry,
                progress,
            )
            _run_loop(trainer, run, checkpoint)
        train_seconds = telemetry.train_seconds
        eval_loss = None
        if evaluation:
            batches = math.ceil(len(evaluation) / (recipe.train.batch_size * count))
            with telemetry.paused(), console.progress("evaluating", batches, "batches") as progress:
                eval_loss = trainer.evaluate(progress=progress)["eval_loss"]
        summary = None
        if processes.is_first():
            _save_adapter(run, model, prepared.tokenizer)
            summary = summarize(
                recipe,
                run,
                model,
                trainer.state,
                telemetry,
                dtype=dtype,
                train_seconds=train_seconds,
                eval_loss=eval_loss,
            )
        return processes.from_first(summary)


def _run_loop(trainer: ObjectiveTrainer, run: RunDirectory, checkpoint: Path | None) -> None:
    try:
        with trainer.interrupt:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except KeyboardInterrupt:
        kept = run.last_checkpoint()
        done = f"up to step {checkpoint_step(kept)} is kept" if kept else "nothing was finished yet"
        raise Interrupted(f"interrupted; {done}", where=run.path, remedy=_resume_hint(run, kept)) from None
    if trainer.interrupt.stopped and trainer.state.global_step < trainer.state.max_steps:
        raise Interrupted(
            f"interrupted after step {trainer.state.global_step} of {trainer.state.max_steps}; a checkpoint is saved",
            where=run.path,
            remedy=_resume_hint(run, run.last_checkpoint()),
        )


def _resume_hint(run: RunDirectory, checkpoint: Path | None) -> str:
    """A command that goes on whatever recipe and overrides the run began with."""
    if checkpoint is None:
        return "start it again with --force"
    together = f" --processes {processes.world_size()}" if processes.world_size() > 1 else ""
    return f"go on with: edgetune train {run.recipe} --out {run.path} --resume{together}"


def _save_adapter(run: RunDirectory, model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """PEFT's own format, with the tokenizer and the chat template that training used."""
    from edgetune.outputs import staged_folder

    with staged_folder(run.adapter, force=True) as folder:
        model.save_pretrained(folder, save_embedding_layers=False)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
