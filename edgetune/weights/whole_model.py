"""A model in torch with its adapter, not folded: the result of training as Transformers and PEFT run it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.errors import AdapterError, NumericalError, OutputError, first_line_of
from edgetune.models.load import load_model, quiet_libraries
from edgetune.models.locate import ModelFiles
from edgetune.weights.adapter_file import AdapterFile
from edgetune.weights.fold import needs_whole_model
from edgetune.weights.source import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapter, ModelSource
from edgetune.weights.torch_arrays import torch_dtype

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def load_adapted(source: ModelSource, **settings: Any) -> PreTrainedModel | PeftModel:
    """The base, loaded with the settings of `load_model`, with its adapter, in evaluation mode.

    Where the vocabulary was changed, the base is first resized to the adapter's number of rows. Raises ModelError, and
    AdapterError when the adapter does not fit its base.
    """
    quiet_libraries()
    model: PreTrainedModel | PeftModel = load_model(source.base, **settings)
    if source.adapter is not None:
        from peft import PeftModel

        file = AdapterFile(source.adapter, model.state_dict().keys())
        _resize(model, source, file)
        try:
            with _with_keys_of_peft(source.adapter, file) as folder:
                model = PeftModel.from_pretrained(model, folder)
        except (RuntimeError, ValueError, KeyError) as problem:
            raise AdapterError(
                f"does not fit its base ({first_line_of(problem)})", where=source.adapter.folder
            ) from problem
    return model.eval()


def merge_whole(source: ModelSource, folder: Path, dtype: str) -> ModelFiles:
    """Merge in memory with PEFT's own code, the model in `dtype` (safetensors' name), and save it to `folder`.

    This is for adapters whose updates belong to several modules, and for experts, which are several tensors on disk and
    one in memory. Raises AdapterError when PEFT cannot merge, or would merge wrongly; NumericalError, OutputError,
    ModelError.
    """
    import torch

    assert source.adapter is not None
    model = load_adapted(source, dtype=torch_dtype(dtype), on_gpu=False)
    if not isinstance(model, torch.nn.Module) or not hasattr(model, "merge_and_unload"):
        raise AdapterError("has a method that PEFT cannot merge", where=source.adapter.folder)
    tied = getattr(model.config, "tie_word_embeddings", False)
    vocabulary = [f".{path}." for path in _vocabulary_paths(model.get_base_model())]
    if tied and any(path in key for key in AdapterFile(source.adapter, ()).tensors for path in vocabulary):
        raise AdapterError(
            "changes the embedding or the output layer of a base with tied embeddings, and PEFT would change both",
            where=source.adapter.folder,
            remedy="train again without them, or on a base with an output layer of its own",
        )
    try:
        merged = model.merge_and_unload()
    except (ValueError, RuntimeError, NotImplementedError) as problem:
        raise AdapterError(f"PEFT cannot merge it ({first_line_of(problem)})", where=source.adapter.folder) from problem
    if not all(parameter.isfinite().all() for parameter in merged.parameters()):
        raise NumericalError(
            "folding the adapter in gives NaN or infinity, so nothing was written",
            where=source.adapter.folder,
            remedy="the training diverged; train again with a lower learning rate",
        )
    try:
        merged.save_pretrained(folder)
    except OSError as problem:
        raise OutputError(
            f"the merged model cannot be written ({problem.strerror})",
            where=folder,
            remedy="name a folder with room for the whole model in the environment variable TMPDIR",
        ) from problem
    return ModelFiles(source.base.reference, folder)


def _vocabulary_paths(model: PreTrainedModel) -> list[str]:
    vocabulary = (model.get_input_embeddings(), model.get_output_embeddings())
    return [path for path, module in model.named_modules() if any(module is part for part in vocabulary)]


def _resize(model: PreTrainedModel, source: ModelSource, file: AdapterFile) -> None:
    paths = [f".{path}." for path in _vocabulary_paths(model)]
    assert source.adapter is not None
    if needs_whole_model(source.adapter) or not any(path in key for key in file.tensors for path in paths):
        return
    from edgetune.weights.stream import FoldedTensors

    rows = FoldedTensors(source).config.get("vocab_size")
    if rows is not None and rows != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)


@contextmanager
def _with_keys_of_peft(adapter: Adapter, file: AdapterFile) -> Iterator[Path]:
    """The adapter's folder, or a temporary copy with PEFT's keys where its file has others."""
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
