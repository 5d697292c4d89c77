"""A recipe becomes a run directory. The only place where data, model, adapter and trainer meet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune import console
from edgetune.data.load import load_examples
from edgetune.data.template import ChatTemplate, load_template
from edgetune.data.tokenize import TokenizedData, tokenize_examples
from edgetune.errors import Interrupted
from edgetune.models.locate import ModelFiles, locate_model
from edgetune.outputs import explain_refused_writes
from edgetune.recipe.schema import Recipe
from edgetune.train.run_directory import RunDirectory, checkpoint_step

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from edgetune.train.summary import Summary
    from edgetune.train.trainer import ObjectiveTrainer


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs apart from the weights, checked before they are loaded."""

    files: ModelFiles
    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    train: TokenizedData
    evaluation: TokenizedData | None


def train(recipe: Recipe, out: Path, *, resume: bool = False, force: bool = False) -> Summary:
    """Train by `recipe` into the run directory `out`, and return what is in its summary.json.

    Ctrl-C saves a checkpoint and raises Interrupted; `resume` goes on from the newest one as if nothing had happened.
    Raises OutputError, RecipeError, DataError, ModelError before anything is written, NumericalError when the loss is
    not finite.
    """
    run = RunDirectory(out)
    checkpoint = run.check_resumable(recipe) if resume else None
    if checkpoint is None:
        run.check_startable(force=force)
    prepared = prepare(recipe)
    model = load_adapted_model(recipe, prepared)
    if checkpoint is None:
        run.start(recipe)
    else:
        run.rewind(checkpoint)
        console.note(f"resuming after step {checkpoint_step(checkpoint)}")
    return _fit(recipe, run, prepared, model, checkpoint)


def prepare(recipe: Recipe) -> Prepared:
    """Read and tokenize the data with the base's tokenizer and the recipe's chat template."""
    train_examples = load_examples(recipe.data.train, recipe.data, recipe.task)
    eval_examples = load_examples(recipe.data.eval, recipe.data, recipe.task) if recipe.data.eval else []
    files = locate_model(recipe.base.model, revision=recipe.base.revision)
    from edgetune.models.load import load_tokenizer, quiet_libraries

    quiet_libraries()
    tokenizer = load_tokenizer(files)
    template = load_template(
        recipe.data.template,
        tokenizer_template=tokenizer.chat_template,
        bos_token=tokenizer.bos_token or "",
        eos_token=tokenizer.eos_token or "",
    )
    tokenizer.chat_template = template.source

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    train_data = tokenize_examples(train_examples, template, encode, recipe.data.max_length)
    limit = train_data.max_length_tokens
    evaluation = tokenize_examples(eval_examples, template, encode, limit) if eval_examples else None
    for name, data in (("training", train_data), ("evaluation", evaluation)):
        if data is not None and (data.truncated or data.dropped):
            console.note(
                f"{name} data: {data.truncated} examples cut to {limit} tokens, {data.dropped} left out because "
                "nothing supervised was left of them"
            )
    return Prepared(files, tokenizer, template, train_data, evaluation)


def load_adapted_model(recipe: Recipe, prepared: Prepared) -> PeftModel:
    """The base with a fresh adapter, seeded: the same recipe gives the same first weights."""
    from peft import prepare_model_for_kbit_training
    from transformers import set_seed

    from edgetune.models.adapters import add_adapter
    from edgetune.models.load import load_model, resolve_dtype

    console.note(f"loading {recipe.base.model}")
    base = recipe.base
    model = load_model(
        prepared.files,
        dtype=resolve_dtype(base.dtype),
        quantize=base.quantize,
        double_quantization=base.double_quantization,
    )
    if base.quantize != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=recipe.train.gradient_checkpointing)
    elif recipe.train.gradient_checkpointing:
        model.enable_input_require_grads()
    set_seed(recipe.train.seed)
    return add_adapter(model, recipe.method, base=recipe.base.model)


def _fit(recipe: Recipe, run: RunDirectory, prepared: Prepared, model: PeftModel, checkpoint: Path | None) -> Summary:
    from edgetune.models.load import resolve_dtype
    from edgetune.train.objectives.language_model import LanguageModel
    from edgetune.train.settings import total_steps, trainer_settings
    from edgetune.train.summary import summarize
    from edgetune.train.telemetry import Telemetry
    from edgetune.train.trainer import trainer_class

    dtype = resolve_dtype(recipe.base.dtype)
    evaluation = prepared.evaluation.examples if prepared.evaluation else ()
    settings = trainer_settings(recipe, run, evaluates=bool(evaluation), dtype=dtype)
    steps = total_steps(recipe, examples=len(prepared.train.examples))
    with explain_refused_writes(run.path), Telemetry(run) as telemetry:
        with console.progress(f"training {recipe.name}", steps, "steps") as progress:
            if checkpoint is not None:
                progress.advance(checkpoint_step(checkpoint))
            trainer = trainer_class(settings)(
                model,
                settings,
                prepared.tokenizer,
                LanguageModel(prepared.tokenizer.pad_token_id),
                prepared.train.examples,
                evaluation,
                telemetry,
                progress,
            )
            _run_loop(trainer, run, checkpoint)
        train_seconds = telemetry.train_seconds
        eval_loss = None
        if evaluation:
            batches = math.ceil(len(evaluation) / recipe.train.batch_size)
            with console.progress("evaluating", batches, "batches") as progress:
                eval_loss = trainer.evaluate(progress=progress)["eval_loss"]
        _save_adapter(run, model, prepared.tokenizer)
        return summarize(
            recipe,
            run,
            model,
            trainer.state,
            telemetry,
            dtype=dtype,
            train_seconds=train_seconds,
            eval_loss=eval_loss,
        )


def _run_loop(trainer: ObjectiveTrainer, run: RunDirectory, checkpoint: Path | None) -> None:
    try:
        with trainer.interrupt:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except KeyboardInterrupt:
        kept = run.last_checkpoint()
        done = f"up to step {checkpoint_step(kept)} is kept" if kept else "nothing was finished yet"
        raise Interrupted(f"interrupted; {done}", where=run.path, remedy=_resume_hint(run, kept)) from None
    if trainer.interrupt.requested and trainer.state.global_step < trainer.state.max_steps:
        raise Interrupted(
            f"interrupted after step {trainer.state.global_step} of {trainer.state.max_steps}; a checkpoint is saved",
            where=run.path,
            remedy=_resume_hint(run, run.last_checkpoint()),
        )


def _resume_hint(run: RunDirectory, checkpoint: Path | None) -> str:
    """A command that goes on whatever recipe and overrides the run began with."""
    if checkpoint is None:
        return "start it again with --force"
    return f"go on with: edgetune train {run.recipe} --out {run.path} --resume"


def _save_adapter(run: RunDirectory, model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """PEFT's own format, with the tokenizer and the chat template that training used."""
    from edgetune.outputs import staged_folder

    with staged_folder(run.adapter, force=True) as folder:
        model.save_pretrained(folder, save_embedding_layers=False)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
