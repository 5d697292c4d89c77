"""Trains a recipe into a run directory. Only this module knows data, model, adapter and trainer together."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune import events
from edgetune.errors import Interrupted
from edgetune.outputs import explain_refused_writes
from edgetune.recipe.schema import Recipe
from edgetune.training import processes
from edgetune.training.diagnosis import diagnose_recipe
from edgetune.training.out_of_memory import explain_out_of_memory
from edgetune.training.prepare import Prepared, prepare
from edgetune.training.run_directory import RunDirectory, checkpoint_step
from edgetune.training.trackers import check_trackers

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from edgetune.training.summary import Summary
    from edgetune.training.trainer import ObjectiveTrainer


def train(recipe: Recipe, out: Path, *, resume: bool = False, force: bool = False) -> Summary:
    """Train `recipe` into the run directory `out`, and return the content of its summary.json.

    Ctrl-C saves a checkpoint and raises Interrupted; `resume` continues from the newest checkpoint, with the result of
    an uninterrupted run.
    Raises OutputError, RecipeError, DataError, ModelError, MissingComponent before anything is written, OutOfMemory,
    and NumericalError when the loss is not finite.

    Each of several processes that train together calls this, and all return the same.
    """
    processes.join()
    check_trackers(recipe)
    run = RunDirectory(out)
    with run.locked() if processes.is_first() else nullcontext():
        checkpoint = run.check_resumable(recipe, processes=processes.world_size()) if resume else None
        if checkpoint is None and processes.is_first():
            run.check_startable(force=force)
        for warning in diagnose_recipe(recipe, processes=processes.world_size()):
            events.warn(str(warning))
        if recipe.train.parallel == "fsdp" and processes.world_size() == 1:
            events.note("train.parallel: fsdp has no effect with one process; --processes 2 shards the base")
        prepared = prepare(recipe)
        import torch

        from edgetune.training.backends import choose_backend
        from edgetune.training.batches import training_batches
        from edgetune.training.frozen_linear import check_products
        from edgetune.training.settings import total_steps

        batches = training_batches(recipe, prepared.train, rank=0, processes=processes.world_size())
        steps = total_steps(recipe, len(batches))

        backend = choose_backend(recipe, prepared.config.model_type)

        with explain_out_of_memory(recipe, run, loading=True):
            model = backend.load(recipe, prepared, total_steps=steps)
        check_products(model, recipe, on_gpu=torch.cuda.is_available())
        if processes.is_first():
            if checkpoint is None:
                run.start(recipe)
            else:
                run.rewind(checkpoint)
                events.note(f"resuming after step {checkpoint_step(checkpoint)}")
        with explain_out_of_memory(recipe, run, loading=False):
            return _fit(recipe, run, prepared, model, steps, checkpoint, backend.name)


def _fit(
    recipe: Recipe,
    run: RunDirectory,
    prepared: Prepared,
    model: PeftModel | PreTrainedModel,
    steps: int,
    checkpoint: Path | None,
    backend: str,
) -> Summary:
    from edgetune.models.load import resolve_dtype
    from edgetune.training.frozen_layers import use_products
    from edgetune.training.frozen_linear import agree_on_products
    from edgetune.training.saving import count_parameters, save_result, summarize
    from edgetune.training.settings import trainer_settings
    from edgetune.training.telemetry import Telemetry
    from edgetune.training.trainer import trainer_class

    dtype = resolve_dtype(recipe.base.dtype)
    parameters = count_parameters(model)
    evaluates = prepared.evaluation is not None
    settings = trainer_settings(recipe, run, kind=prepared.kind, evaluates=evaluates, dtype=dtype)
    frozen_products = None
    if settings.device.type == "cpu":
        with explain_refused_writes(run.path):
            agreed = agree_on_products(model, recipe, run.frozen_products, resumed=checkpoint is not None)
        frozen_products = use_products(model, agreed)
    with explain_refused_writes(run.path), Telemetry(run, recipe, writes=processes.is_first()) as telemetry:
        with events.progress(f"training {recipe.name}", steps, "steps") as progress:
            if checkpoint is not None:
                progress.advance(checkpoint_step(checkpoint))
            trainer = trainer_class(settings)(model, settings, recipe, prepared, telemetry, progress)
            _run_loop(trainer, run, checkpoint)
        train_seconds = telemetry.train_seconds
        eval_loss = None
        if evaluates:
            work = trainer.evaluation_work
            with telemetry.paused(), events.progress("evaluating", work, "steps") as progress:
                eval_loss = trainer.evaluate(progress=progress)["eval_loss"]
        summary = None
        if processes.is_first():
            save_result(run, model, prepared.tokenizer)
            summary = summarize(
                recipe,
                run,
                model,
                trainer.state,
                telemetry,
                parameters=parameters,
                dtype=dtype,
                frozen_products=frozen_products,
                train_seconds=train_seconds,
                eval_loss=eval_loss,
                evaluation=trainer.evaluation,
                backend=backend,
            )
            said = diagnose_recipe(recipe, processes=processes.world_size())
            for warning in summary.warnings:
                if warning not in said:
                    events.warn(str(warning))
        return processes.from_first(summary)


def _run_loop(trainer: ObjectiveTrainer, run: RunDirectory, checkpoint: Path | None) -> None:
    try:
        with trainer.interrupt:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except KeyboardInterrupt:
        kept = run.last_checkpoint()
        done = f"step {checkpoint_step(kept)} is saved" if kept else "no checkpoint was saved yet"
        raise Interrupted(f"interrupted; {done}", where=run.path, remedy=_resume_hint(run, kept)) from None
    if trainer.interrupt.stopped and trainer.state.global_step < trainer.state.max_steps:
        raise Interrupted(
            f"interrupted after step {trainer.state.global_step} of {trainer.state.max_steps}; a checkpoint is saved",
            where=run.path,
            remedy=_resume_hint(run, run.last_checkpoint()),
        )


def _resume_hint(run: RunDirectory, checkpoint: Path | None) -> str:
    """A command that continues with the recipe and overrides that the run began with."""
    if checkpoint is None:
        return "start it again with --force"
    together = f" --processes {processes.world_size()}" if processes.world_size() > 1 else ""
    return f"continue with: edgetune train {run.recipe} --out {run.path} --resume{together}"
