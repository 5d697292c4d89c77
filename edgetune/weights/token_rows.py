"""Single trained rows of an embedding or output layer, mostly of new tokens (PEFT's trainable tokens)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.errors import AdapterError
from edgetune.weights.adapter_file import AdapterFile
from edgetune.weights.adapter_keys import TokenRows, other_base
from edgetune.weights.base import TensorInfo
from edgetune.weights.source import Adapter
from edgetune.weights.torch_arrays import as_array, copy_to_torch, torch_dtype

if TYPE_CHECKING:
    import numpy as np


class TrainedRows:
    """The trained rows of `weight`, (tokens, width), in its type. Raises AdapterError when they do not fit."""

    def __init__(self, adapter: Adapter, file: AdapterFile, rows: TokenRows, weight: TensorInfo) -> None:
        stored = file.tensors[rows.key]
        largest = max(rows.indices)
        if largest >= weight.shape[0]:
            raise AdapterError(
                f"has trained rows of tokens up to {largest}, and neither it nor its base has all rows of "
                f"{weight.name} from {weight.shape[0]} on",
                where=adapter.folder,
                remedy="save the resized model and give it with --base MODEL, or train again with modules_to_save "
                "[embed_tokens, lm_head]",
            )
        if stored.shape != (len(rows.indices), weight.shape[1]) or min(rows.indices) < 0:
            raise other_base(
                adapter,
                f"{rows.key} has the shape {list(stored.shape)} for {len(rows.indices)} tokens, and {weight.name} has "
                f"{list(weight.shape)}",
            )
        self._file = file
        self._rows = rows
        self._dtype = weight.dtype

    def put_into(self, base: np.ndarray, start: int) -> np.ndarray:
        """A copy of `base`, the weight's rows from `start` on, with the trained rows in it."""
        key = self._rows.key
        trained = copy_to_torch(self._file.rows(key), self._file.tensors[key].dtype).to(torch_dtype(self._dtype))
        new, made = as_array(trained), base.copy()
        for place, index in enumerate(self._rows.indices):
            if start <= index < start + len(made):
                made[index - start] = new[place]
        return made
