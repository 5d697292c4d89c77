"""A model in torch with its adapter around it, not folded in: what training left, as Transformers and PEFT run it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.errors import AdapterError
from edgetune.models.load import load_model, quiet_libraries
from edgetune.weights.adapter_file import AdapterFile
from edgetune.weights.source import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapter, Source
from edgetune.weights.stream import FoldedTensors

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def load_adapted(source: Source, **settings: Any) -> PreTrainedModel | PeftModel:
    """The base, loaded with the settings of `load_model`, and the adapter on it where there is one; ready to be asked.

    The base gets the adapter's number of rows first, where the vocabulary was changed. Raises ModelError, and
    AdapterError when the adapter does not fit its base.
    """
    quiet_libraries()
    model: PreTrainedModel | PeftModel = load_model(source.base, **settings)
    if source.adapter is not None:
        from peft import PeftModel

        file = AdapterFile(source.adapter, model.state_dict().keys())
        _resize(model, source, file)
        try:
            with _in_words_of_peft(source.adapter, file) as folder:
                model = PeftModel.from_pretrained(model, folder)
        except (RuntimeError, ValueError, KeyError) as problem:
            reason = str(problem).strip().split("\n")[0]
            raise AdapterError(f"does not fit its base ({reason})", where=source.adapter.folder) from problem
    return model.eval()


def _resize(model: PreTrainedModel, source: Source, file: AdapterFile) -> None:
    vocabulary = (model.get_input_embeddings(), model.get_output_embeddings())
    paths = [f".{path}." for path, module in model.named_modules() if any(module is part for part in vocabulary)]
    if not any(path in key for key in file.tensors for path in paths):
        return
    rows = FoldedTensors(source).config.get("vocab_size")
    if rows is not None and rows != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)


@contextmanager
def _in_words_of_peft(adapter: Adapter, file: AdapterFile) -> Iterator[Path]:
    """The adapter's folder, or a copy for the time being where its file has other keys than PEFT's."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    if all(file.name_in_file(key) == key for key in file.tensors):
        yield adapter.folder
        return
    with tempfile.TemporaryDirectory() as folder, safe_open(adapter.weights, framework="pt") as stored:
        shutil.copy(adapter.folder / ADAPTER_CONFIG, folder)
        renamed = {key: stored.get_tensor(file.name_in_file(key)) for key in file.tensors}
        save_file(renamed, Path(folder) / ADAPTER_WEIGHTS)
        yield Path(folder)
