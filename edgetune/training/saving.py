"""What a training saves: an adapter in PEFT's own format, or with method full a whole model in Transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.models.adapters import save_adapter
from edgetune.models.ends import record_answer_end
from edgetune.models.tokenizer import wrap_tokenizer
from edgetune.outputs import staged_folder
from edgetune.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def save_result(run: RunDirectory, model: PeftModel | PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """What a finished run is for, in RUN/adapter or RUN/model, with the tokenizer and template that training used."""
    whole = not hasattr(model, "peft_config")
    with staged_folder(run.model if whole else run.adapter, force=True) as folder:
        if whole:
            model.save_pretrained(folder)
        else:
            save_adapter(model, folder)
        tokenizer.save_pretrained(folder)
        if whole and tokenizer.is_fast:
            record_answer_end(folder, wrap_tokenizer(tokenizer, where=str(run.model)))
        (folder / "README.md").unlink(missing_ok=True)


def save_weights(model: PeftModel | PreTrainedModel, folder: Path) -> None:
    """The trained weights as they are, which a checkpoint holds."""
    if hasattr(model, "peft_config"):
        # With its defaults PEFT asks the hub here whether the base's vocabulary was changed.
        model.save_pretrained(folder, save_embedding_layers=False)
    else:
        model.save_pretrained(folder)
