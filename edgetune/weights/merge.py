"""Writes base ⊕ adapter as a Hugging Face folder that loads like any other model."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgetune import events
from edgetune.measure import peak_resident_bytes
from edgetune.models.ends import record_answer_end
from edgetune.models.load import load_config, quiet_libraries
from edgetune.models.locate import ModelFiles
from edgetune.outputs import WrittenModel, check_target, staged_folder
from edgetune.weights.base import TensorInfo
from edgetune.weights.classifier import ends_in_head
from edgetune.weights.source import ModelSource
from edgetune.weights.stream import FoldedTensors, open_folded

if TYPE_CHECKING:
    import numpy as np
    from transformers import PretrainedConfig

MAX_SHARD_BYTES = 5_000_000_000

_PROCESSORS = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
"""Transformers' files about images, beside the tokenizer's."""


@dataclass(frozen=True)
class MergeResult(WrittenModel):
    """What was written. `folded_modules` counts those that the adapter changed."""

    tensors: int
    folded_modules: int
    shards: int
    seconds: float
    peak_memory_bytes: int
    scores_labels: bool
    """True where the model has a classification head, with which llama.cpp runs few families."""


def merge(
    source: ModelSource, out: Path, *, max_shard_bytes: int = MAX_SHARD_BYTES, force: bool = False
) -> MergeResult:
    """Write safetensors, configuration, tokenizer and chat template to the folder `out`, complete or not at all.

    One tensor is in memory at a time. Raises OutputError, ModelError, AdapterError, NumericalError.
    """
    started = time.monotonic()
    check_target(out, force=force)
    quiet_libraries()
    folded = open_folded(source)
    config = transformers_config(folded)
    tokenizer = source.load_tokenizer()
    if ends_in_head(folded.config) and config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id  # where a text ends, a decoder's head must know
    light = source.open_tokenizer()
    light.require_rows(config.get_text_config().vocab_size, where=source.name)
    shards = _split_into_shards(list(folded.tensors.values()), max_shard_bytes)
    with staged_folder(out, force=force) as staged:
        _write_weights(folded, shards, staged)
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
        shards=len(shards),
        seconds=time.monotonic() - started,
        peak_memory_bytes=peak_resident_bytes(),
        scores_labels=ends_in_head(folded.config),
    )


def _split_into_shards(tensors: list[TensorInfo], max_shard_bytes: int) -> list[list[TensorInfo]]:
    shards: list[list[TensorInfo]] = [[]]
    filled = 0
    for info in tensors:
        if shards[-1] and filled + info.nbytes > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(info)
        filled += info.nbytes
    return shards


def _write_weights(folded: FoldedTensors, shards: list[list[TensorInfo]], folder: Path) -> None:
    total = sum(info.nbytes for info in folded.tensors.values())
    place: dict[str, str] = {}
    with events.progress("merging", total / 1e6, "MB") as bar:
        for number, shard in enumerate(shards, start=1):
            file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            with (folder / file).open("wb") as stream:
                stream.write(_safetensors_header(shard, folded.stored_name))
                for info in shard:
                    _write_tensor(stream, folded.load(info.name))
                    folded.release(info.name, 0, (info.shape or (1,))[0])
                    place[folded.stored_name(info.name)] = file
                    bar.advance(info.nbytes / 1e6, info.name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(place.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _safetensors_header(shard: list[TensorInfo], stored_name: Callable[[str], str]) -> bytes:
    """Length and JSON header of a safetensors file, https://huggingface.co/docs/safetensors. Data starts 8-aligned."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for info, start in zip(shard, _offsets(shard), strict=True):
        header[stored_name(info.name)] = {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": [start, start + info.nbytes],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _offsets(shard: list[TensorInfo]) -> Iterator[int]:
    position = 0
    for info in shard:
        yield position
        position += info.nbytes


def _write_tensor(stream: IO[bytes], array: np.ndarray) -> None:
    import numpy as np

    stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def transformers_config(folded: FoldedTensors) -> PretrainedConfig:
    """The base's configuration in Transformers' own form, with what folding has changed."""
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
    """What makes images of a model's prompt ready for it; a model of text alone has none."""
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
