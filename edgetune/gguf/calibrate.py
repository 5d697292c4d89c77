"""Measures an importance matrix: how much each input column of a weight carries while the folded model reads a text.

As llama.cpp's tools/imatrix does it: the text is cut into chunks that are read one by one, and for every weight of a
block the squares of what is multiplied with it are summed, per column. Embedding and output layer are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
"""No tokenizer takes more characters of ordinary text for a token, on average."""
_BLOCKS = "blk."


def collect_imatrix(
    source: ModelSource, data: Path, *, context_tokens: int = CONTEXT_TOKENS, max_chunks: int = MAX_CHUNKS
) -> Imatrix:
    """Let the folded model read `data` and return the mean squares of what its weights are multiplied with.

    `data` is a text, or a data file of conversations or with a column `text`. At most `max_chunks` chunks of
    `context_tokens` tokens are read; what is left over at the end is not, unless it is all there is. The whole model is
    in memory, as Transformers runs it.

    Raises DataError, ModelError, AdapterError, and NumericalError naming a weight whose input is not finite.
    """
    tokenizer = source.open_tokenizer()
    folded = open_folded(source)
    tokenizer.require_rows(folded.config.require("vocab_size"), where=source.name)
    context_tokens = min(context_tokens, folded.config.get("max_position_embeddings", context_tokens))
    ids = read_tokens(data, tokenizer, context_tokens * max_chunks)
    chunks = list(_cut(ids, context_tokens, _bos(tokenizer)))
    if len(chunks[0]) < context_tokens:
        events.warn(f"{data}: {len(ids)} tokens are few to calibrate with; ten thousand and more are usual")
    weights = _block_weights(folded)
    measured = _measure(_load_model(folded), weights, chunks)
    return Imatrix(measured, (data.name,), chunks=len(chunks), chunk_tokens=context_tokens)


def _block_weights(folded: FoldedTensors) -> dict[str, str]:
    """Paths of the modules whose weights are measured -> the weights' names in GGUF."""
    where = folded.source.base.reference
    if folded.config.get("is_encoder_decoder"):
        raise ModelError(
            "has an encoder and a decoder, which a plain text cannot be given to",
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
        raise DataError("holds no text to calibrate with", where=data)
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
    """The format of conversations whose columns the row has; None for a row with a `text`."""
    conversations = {name: FORMATS[name].columns for name in FORMATS_OF_TASK["chat"]}
    for name, columns in conversations.items():
        if set(columns) <= row.values.keys():
            return name
    if "text" in row.values:
        return None
    formats = ", ".join(map(" and ".join, conversations.values()))
    raise DataError(
        f"there is nothing to read in the columns {', '.join(row.values) or 'none'}",
        where=row.where,
        remedy=f"name them text, or as a format of conversations has them ({formats})",
    )


def _chat_template(tokenizer: ModelTokenizer, data: Path) -> ChatTemplate:
    if tokenizer.default_template is None:
        raise DataError(
            "holds conversations, and this model has no chat template to write them with",
            where=data,
            remedy="give a plain text, or rows with a column text",
        )
    return ChatTemplate(tokenizer.default_template, tokenizer.bos_token, tokenizer.eos_token)


def _bos(tokenizer: ModelTokenizer) -> int | None:
    """The token that the model expects in front of everything, where it does."""
    around = tokenizer.encode("", add_special=True)
    bos = tokenizer.token_id("bos")
    return bos if around and around[0] == bos else None


def _cut(ids: Sequence[int], context_tokens: int, bos: int | None) -> Iterator[list[int]]:
    """Chunks of `context_tokens`; BOS takes the place of each one's first token, as in llama.cpp."""
    for start in range(0, max(len(ids) - context_tokens, 0) + 1, context_tokens):
        chunk = list(ids[start : start + context_tokens])
        if bos is not None:
            chunk[0] = bos
        yield chunk


def _load_model(folded: FoldedTensors) -> PreTrainedModel:
    """The folded model in Transformers, in the type that the machine computes in, on the GPU where there is one."""
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


@dataclass
class _Sums:
    """What has gone through one module: sums of squares per column in float64, and how many tokens."""

    squares: torch.Tensor
    tokens: int = field(default=0)

    def add(self, inputs: torch.Tensor) -> None:
        rows = inputs.detach().flatten(0, -2).float()
        self.squares += rows.square().sum(0).double()
        self.tokens += len(rows)


def _measure(model: PreTrainedModel, weights: dict[str, str], chunks: Sequence[Sequence[int]]) -> dict[str, Importance]:
    import torch

    sums: dict[str, _Sums] = {}
    hooks = []
    modules = dict(model.named_modules())
    for path, name in weights.items():
        module = modules.get(path)
        if isinstance(module, torch.nn.Linear):
            sums[name] = _Sums(torch.zeros(module.in_features, dtype=torch.float64, device=model.device))
            hooks.append(module.register_forward_pre_hook(_hook(sums[name])))
    try:
        # Without the output layer, which takes a good part of the time and is not measured.
        reader = model.base_model
        with torch.inference_mode(), events.progress("calibrating", sum(map(len, chunks)), "tokens") as bar:
            for chunk in chunks:
                reader(input_ids=torch.tensor([chunk], device=model.device))
                bar.advance(len(chunk))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _importance(name, total) for name, total in sums.items()}


def _hook(sums: _Sums) -> Callable[[Any, Any], None]:
    def add(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        sums.add(inputs[0])

    return add


def _importance(name: str, total: _Sums) -> Importance:
    import numpy as np

    squares = total.squares.cpu().numpy().astype(np.float32)
    if not np.isfinite(squares).all():
        raise NumericalError(f"what goes into {name} is not finite", remedy="the model does not work with this text")
    return Importance(squares[None, :], np.array([total.tokens], dtype=np.int64))
