"""Measures an importance matrix: the mean square of each input column of each weight while the merged model reads a
text.

The method is that of llama.cpp's tools/imatrix: the text is read in separate chunks, and the squares of the inputs of
every weight in a block are summed per column. Embedding and output layer are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune import events
from edgetune.data.formats import FORMATS, to_example
from edgetune.data.read import Row, read_rows
from edgetune.data.template import ChatTemplate
from edgetune.data.text_file import read_text
from edgetune.errors import DataError, ModelError, NumericalError
from edgetune.gguf.architectures import find_architecture
from edgetune.gguf.imatrix import Imatrix, Importance
from edgetune.models.tokenizer import ModelTokenizer
from edgetune.recipe.data import DATA_SUFFIXES, FORMATS_OF_TASK, Data, DataSource
from edgetune.weights.source import ModelSource
from edgetune.weights.stream import FoldedTensors, open_folded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

CONTEXT_TOKENS = 512
MAX_CHUNKS = 40
"""20 thousand tokens. On SmolLM2, 20 chunks helped as much as 100 did (benchmarks/calibration.py --chunks)."""

_TOKEN_CHARACTERS = 16
"""Above the mean number of characters per token of every tokenizer on ordinary text."""
_BLOCKS = "blk."


def collect_imatrix(
    source: ModelSource, data: Path, *, context_tokens: int = CONTEXT_TOKENS, max_chunks: int = MAX_CHUNKS
) -> Imatrix:
    """The importance matrix of the merged model on `data`.

    `data` is a text, or a data file of conversations or with a column `text`. At most `max_chunks` chunks of
    `context_tokens` tokens are read; a shorter rest is read only if it is the whole text. Transformers runs the model,
    with all of it in memory.

    Raises DataError, ModelError, AdapterError, and NumericalError naming a weight whose input is not finite.
    """
    tokenizer = source.open_tokenizer()
    folded = open_folded(source)
    tokenizer.require_rows(folded.config.require("vocab_size"), where=source.name)
    context_tokens = min(context_tokens, folded.config.get("max_position_embeddings", context_tokens))
    ids = read_tokens(data, tokenizer, context_tokens * max_chunks)
    chunks = list(_cut(ids, context_tokens, _bos(tokenizer)))
    if len(chunks[0]) < context_tokens:
        events.warn(f"{data}: {len(ids)} tokens are few for calibration; ten thousand or more are usual")
    weights = _block_weights(folded)
    measured = _measure(_load_model(folded), weights, chunks)
    return Imatrix(measured, (data.name,), chunks=len(chunks), chunk_tokens=context_tokens)


def _block_weights(folded: FoldedTensors) -> dict[str, str]:
    """Paths of the measured modules -> the names of their weights in GGUF."""
    where = folded.source.base.reference
    if folded.config.get("is_encoder_decoder"):
        raise ModelError(
            "has an encoder and a decoder, so it cannot be calibrated on plain text",
            where=where,
            remedy="export it without --calibrate",
        )
    plan = find_architecture(folded.config, where=where).plan(folded.config, folded.tensors)
    return {
        tensor.source.removesuffix(".weight"): tensor.name
        for tensor in plan
        if tensor.source is not None and tensor.name.startswith(_BLOCKS) and len(tensor.shape) > 1
    }


def read_tokens(data: Path, tokenizer: ModelTokenizer, wanted: int) -> list[int]:
    """The first `wanted` tokens of a text or data file, special tokens as the text or the chat template writes them.

    Raises DataError.
    """
    ids: list[int] = []
    for text in _texts(data, tokenizer):
        ids += tokenizer.encode(text[: wanted * _TOKEN_CHARACTERS])
        if len(ids) >= wanted:
            break
    if not ids:
        raise DataError("contains no text for calibration", where=data)
    return ids[:wanted]


def _texts(data: Path, tokenizer: ModelTokenizer) -> Iterator[str]:
    if not data.is_file():
        raise DataError("there is no such text or data file", where=data)
    if not data.name.lower().endswith(DATA_SUFFIXES):
        yield read_text(data)
        return
    kind = DataSource(source=str(data), format="messages")
    rows = read_rows(kind)
    form = _format_of(rows[0])
    if form is None:
        for row in rows:
            yield str(row.values.get("text", "")) + "\n\n"
        return
    template = _chat_template(tokenizer, data)
    source = kind.model_copy(update={"format": form})
    settings = Data(train=[source])
    for row in rows:
        example = to_example(row, source, settings)
        if example is not None:
            yield template.render(example.messages, tools=example.tools)


def _format_of(row: Row) -> str | None:
    """The conversation format of the row's columns; None for a row with a `text`."""
    conversations = {name: FORMATS[name].columns for name in FORMATS_OF_TASK["chat"]}
    for name, columns in conversations.items():
        if set(columns) <= row.values.keys():
            return name
    if "text" in row.values:
        return None
    formats = ", ".join(map(" and ".join, conversations.values()))
    raise DataError(
        f"the columns {', '.join(row.values) or 'none'} contain no text or conversations",
        where=row.where,
        remedy=f"use a column text, or the columns of a conversation format ({formats})",
    )


def _chat_template(tokenizer: ModelTokenizer, data: Path) -> ChatTemplate:
    if tokenizer.default_template is None:
        raise DataError(
            "contains conversations, but this model has no chat template",
            where=data,
            remedy="use a plain text, or rows with a column text",
        )
    return ChatTemplate(tokenizer.default_template, tokenizer.bos_token, tokenizer.eos_token)


def _bos(tokenizer: ModelTokenizer) -> int | None:
    """The BOS token if the model expects one before any text."""
    around = tokenizer.encode("", add_special=True)
    bos = tokenizer.token_id("bos")
    return bos if around and around[0] == bos else None


def _cut(ids: Sequence[int], context_tokens: int, bos: int | None) -> Iterator[list[int]]:
    """Chunks of `context_tokens`; BOS replaces the first token of each, as in llama.cpp."""
    for start in range(0, max(len(ids) - context_tokens, 0) + 1, context_tokens):
        chunk = list(ids[start : start + context_tokens])
        if bos is not None:
            chunk[0] = bos
        yield chunk


def _load_model(folded: FoldedTensors) -> PreTrainedModel:
    """The merged model in Transformers, in the machine's compute type, on a GPU if there is one."""
    import torch
    import transformers

    from edgetune.models.load import quiet_libraries, resolve_dtype
    from edgetune.weights.merge import transformers_config
    from edgetune.weights.torch_arrays import copy_to_torch

    quiet_libraries()
    config = transformers_config(folded)
    dtype = resolve_dtype("auto")
    state: dict[str, torch.Tensor] = {}
    for name, info in folded.tensors.items():
        state[name] = copy_to_torch(folded.load(name), info.dtype).to(dtype)
        folded.release(name, 0, (info.shape or (1,))[0])
    model: PreTrainedModel = getattr(transformers, folded.config.architectures[0]).from_pretrained(
        None, config=config, state_dict=state, dtype=dtype, device_map={"": 0} if torch.cuda.is_available() else None
    )
    return model.eval()


def _measure(model: PreTrainedModel, weights: dict[str, str], chunks: Sequence[Sequence[int]]) -> dict[str, Importance]:
    import torch

    squares: dict[str, torch.Tensor] = {}
    tokens: Counter[str] = Counter()
    hooks = []
    modules = dict(model.named_modules())

    def add(name: str, inputs: tuple[torch.Tensor, ...]) -> None:
        rows = inputs[0].detach().flatten(0, -2).float()
        squares[name] += rows.square().sum(0).double()
        tokens[name] += len(rows)

    for path, name in weights.items():
        module = modules.get(path)
        if isinstance(module, torch.nn.Linear):
            squares[name] = torch.zeros(module.in_features, dtype=torch.float64, device=model.device)
            hooks.append(module.register_forward_pre_hook(lambda _module, inputs, name=name: add(name, inputs)))
    try:
        # Without the output layer, which is not measured and takes much of the time.
        reader = model.base_model
        with torch.inference_mode(), events.progress("calibrating", sum(map(len, chunks)), "tokens") as bar:
            for chunk in chunks:
                reader(input_ids=torch.tensor([chunk], device=model.device))
                bar.advance(len(chunk))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _importance(name, total, tokens[name]) for name, total in squares.items()}


def _importance(name: str, total: torch.Tensor, tokens: int) -> Importance:
    import numpy as np

    squares = total.cpu().numpy().astype(np.float32)
    if not np.isfinite(squares).all():
        raise NumericalError(f"the input of {name} is not finite", remedy="the model does not work with this text")
    return Importance(squares[None, :], np.array([tokens], dtype=np.int64))
