"""Writes base ⊕ adapter as a Hugging Face folder that loads like any other model."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgetune import console
from edgetune.measure import peak_resident_bytes
from edgetune.outputs import check_target, staged_folder
from edgetune.weights.base import TensorInfo
from edgetune.weights.source import Source, require_rows
from edgetune.weights.stream import FoldedTensors, open_folded

if TYPE_CHECKING:
    import torch

MAX_SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True)
class MergeReport:
    """What was written. `bytes` counts the weights; `folded_modules` those that the adapter changed."""

    out: Path
    bytes: int
    tensors: int
    folded_modules: int
    shards: int
    seconds: float
    peak_memory_bytes: int


def merge(source: Source, out: Path, *, max_shard_bytes: int = MAX_SHARD_BYTES, force: bool = False) -> MergeReport:
    """Write safetensors, configuration, tokenizer and chat template to the folder `out`, complete or not at all.

    One tensor is in memory at a time. Raises OutputError, ModelError, AdapterError, NumericalError.
    """
    started = time.monotonic()
    check_target(out, force=force)
    folded = open_folded(source)
    tokenizer = source.load_tokenizer()
    require_rows(tokenizer, folded.config.vocab_size, where=source.name)
    shards = _split_into_shards(list(folded.tensors.values()), max_shard_bytes)
    with staged_folder(out, force=force) as staged:
        _write_weights(folded, shards, staged)
        _write_config(folded, staged)
        tokenizer.save_pretrained(staged)
    return MergeReport(
        out=out,
        bytes=sum(info.nbytes for info in folded.tensors.values()),
        tensors=len(folded.tensors),
        folded_modules=folded.folded_modules,
        shards=len(shards),
        seconds=time.monotonic() - started,
        peak_memory_bytes=peak_resident_bytes(),
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
    with console.progress("merging", total / 1e6, "MB") as bar:
        for number, shard in enumerate(shards, start=1):
            file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            with (folder / file).open("wb") as stream:
                stream.write(_safetensors_header(shard))
                for info in shard:
                    _write_tensor(stream, folded.load(info.name), info)
                    place[info.name] = file
                    bar.advance(info.nbytes / 1e6, info.name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(place.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _safetensors_header(shard: list[TensorInfo]) -> bytes:
    """Length and JSON header of a safetensors file, https://huggingface.co/docs/safetensors. Data starts 8-aligned."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for info, start in zip(shard, _offsets(shard), strict=True):
        header[info.name] = {
            "dtype": _safetensors_dtype(info.dtype),
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


def _safetensors_dtype(dtype: torch.dtype) -> str:
    import torch

    return {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]


def _write_tensor(stream: IO[bytes], tensor: torch.Tensor, info: TensorInfo) -> None:
    import torch

    data = tensor.detach().to(info.dtype).contiguous()
    stream.write(memoryview(data.reshape(-1).view(torch.uint8).numpy()))


def _write_config(folded: FoldedTensors, folder: Path) -> None:
    from transformers import GenerationConfig

    folded.config.save_pretrained(folder)
    base = folded.source.base
    recorded = base.folder / "generation_config.json"
    if base.gguf is None and recorded.is_file():
        shutil.copyfile(recorded, folder / recorded.name)
    else:
        GenerationConfig.from_model_config(folded.config).save_pretrained(folder)
