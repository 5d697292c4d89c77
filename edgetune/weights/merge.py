"""Writes a base with a folded adapter as a model folder in Hugging Face's layout."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgetune import events
from edgetune.models.ends import record_answer_end
from edgetune.models.load import load_config, quiet_libraries
from edgetune.models.locate import ModelFiles
from edgetune.outputs import WrittenModel, check_target, staged_folder
from edgetune.usage import peak_resident_bytes
from edgetune.weights.base import TensorInfo
from edgetune.weights.classifier import ends_in_head
from edgetune.weights.source import ModelSource
from edgetune.weights.stream import FoldedTensors, open_folded

if TYPE_CHECKING:
    import numpy as np
    from huggingface_hub import StateDictSplit
    from transformers import PretrainedConfig

MAX_SHARD_BYTES = 5_000_000_000

_PROCESSORS = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
"""Transformers' files for images."""


@dataclass(frozen=True)
class MergeResult(WrittenModel):
    """What was written. `folded_modules` is the number of modules that the adapter changed."""

    tensors: int
    folded_modules: int
    shards: int
    seconds: float
    peak_memory_bytes: int
    scores_labels: bool
    """True for a model with a classification head, which llama.cpp supports in few families."""


def merge(
    source: ModelSource, out: Path, *, max_shard_bytes: int = MAX_SHARD_BYTES, force: bool = False
) -> MergeResult:
    """Write safetensors, configuration, tokenizer and chat template to the folder `out`, all or nothing.

    One tensor is in memory at a time. Raises OutputError, ModelError, AdapterError, NumericalError.
    """
    from huggingface_hub import split_state_dict_into_shards_factory

    started = time.monotonic()
    check_target(out, force=force)
    quiet_libraries()
    folded = open_folded(source)
    config = transformers_config(folded)
    tokenizer = source.load_tokenizer()
    if ends_in_head(folded.config) and config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id  # a decoder's head reads the last token before the padding
    light = source.open_tokenizer()
    light.require_rows(config.get_text_config().vocab_size, where=source.name)
    split = split_state_dict_into_shards_factory(
        folded.tensors,
        get_storage_size=lambda info: info.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_bytes,
    )
    with staged_folder(out, force=force) as staged:
        _write_weights(folded, split, staged)
        config.save_pretrained(staged)
        if not ends_in_head(folded.config):
            _write_generation_config(config, source.base, staged)
            record_answer_end(staged, light)
        tokenizer.save_pretrained(staged)
        _copy_processors(source.base, staged)
    return MergeResult(
        path=out,
        bytes=sum(info.nbytes for info in folded.tensors.values()),
        tensors=len(folded.tensors),
        folded_modules=folded.folded_modules,
        shards=len(split.filename_to_tensors),
        seconds=time.monotonic() - started,
        peak_memory_bytes=peak_resident_bytes(),
        scores_labels=ends_in_head(folded.config),
    )


def _write_weights(folded: FoldedTensors, split: StateDictSplit, folder: Path) -> None:
    with events.progress("merging", split.metadata["total_size"] / 1e6, "MB") as bar:
        for file, names in split.filename_to_tensors.items():
            shard = [folded.tensors[name] for name in names]
            with (folder / file).open("wb") as stream:
                stream.write(_safetensors_header(shard, folded.stored_name))
                for info in shard:
                    _write_tensor(stream, folded.load(info.name))
                    folded.release(info.name, 0, (info.shape or (1,))[0])
                    bar.advance(info.nbytes / 1e6, info.name)
    if split.is_sharded:
        places = {folded.stored_name(name): file for name, file in split.tensor_to_filename.items()}
        index = {"metadata": split.metadata, "weight_map": dict(sorted(places.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _safetensors_header(shard: list[TensorInfo], stored_name: Callable[[str], str]) -> bytes:
    """Length and JSON header of a safetensors file, https://huggingface.co/docs/safetensors. Data starts 8-aligned."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for info in shard:
        start, end = end, end + info.nbytes
        header[stored_name(info.name)] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_tensor(stream: IO[bytes], array: np.ndarray) -> None:
    import numpy as np

    stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def transformers_config(folded: FoldedTensors) -> PretrainedConfig:
    """The base's configuration as Transformers' object, with the changes of folding."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    config = load_config(folded.source.base)
    causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if causal is not None and not config.architectures:
        config.architectures = [causal.__name__]
    head = ("architectures", "id2label", "label2id") if ends_in_head(folded.config) else ()
    for key in ("tie_word_embeddings", "dtype", *head):
        if folded.config.get(key) is not None:
            setattr(config, key, folded.config.get(key))
    if folded.config.get("vocab_size") is not None:
        config.get_text_config().vocab_size = folded.config.require("vocab_size")
    return config


def _copy_processors(base: ModelFiles, folder: Path) -> None:
    """Copy the files for preprocessing images, where there are any."""
    for name in _PROCESSORS:
        if base.gguf is None and (base.folder / name).is_file() and not (folder / name).exists():
            shutil.copyfile(base.folder / name, folder / name)


def _write_generation_config(config: PretrainedConfig, base: ModelFiles, folder: Path) -> None:
    from transformers import GenerationConfig

    recorded = base.folder / "generation_config.json"
    if base.gguf is None and recorded.is_file():
        shutil.copyfile(recorded, folder / recorded.name)
    else:
        GenerationConfig.from_model_config(config).save_pretrained(folder)
