"""The base after the adapter's whole tensors and single trained rows have replaced its own, before anything is folded.

Whole tensors are retrained modules and biases, and the embedding and output layer after a change of the vocabulary,
which then have another number of rows. Single rows are mostly those of new tokens (PEFT's trainable tokens).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from edgetune.errors import AdapterError
from edgetune.weights.adapter_file import AdapterFile
from edgetune.weights.adapter_keys import ModuleKeys, TokenRows, incomplete, other_base
from edgetune.weights.base import ITEM_BYTES, BaseTensors, TensorInfo
from edgetune.weights.source import Adapter
from edgetune.weights.torch_arrays import as_array, copy_to_torch, torch_dtype

if TYPE_CHECKING:
    import numpy as np


class ReplacedBase:
    """`base` with the replacements of `modules` (keys of `file`), in the base's types. Threads may read at once.

    Tensors in `vocabulary` may have another number of rows than the base's. They grow by rows of new tokens that were
    all trained, which are zero here. Where one of the two became shorter, the other is cut to its length, as in
    Transformers' resizing. Raises AdapterError when any other shape differs, for a type that no weight has, and for
    trained rows that do not fit.
    """

    def __init__(
        self,
        adapter: Adapter,
        file: AdapterFile,
        base: BaseTensors,
        modules: Mapping[str, ModuleKeys],
        vocabulary: Collection[str],
    ) -> None:
        self._base = base
        self._file = file
        self._keys = {
            f"{path}.{parameter}": key
            for path, module in modules.items()
            for parameter, key in module.replacements.items()
        }
        self.tensors: dict[str, TensorInfo] = dict(base.tensors)
        for name, key in self._keys.items():
            info, stored = base.tensors[name], file.tensors[key]
            if stored.dtype not in ITEM_BYTES:
                raise incomplete(adapter, f"{key} has the type {stored.dtype}, which no weight has")
            rows_differ = name in vocabulary and len(stored.shape) == 2 and stored.shape[1:] == info.shape[1:]
            if stored.shape != info.shape and not rows_differ:
                raise other_base(
                    adapter, f"{name} has the shape {list(stored.shape)}, and this base needs {list(info.shape)}"
                )
            self.tensors[name] = replace(info, shape=stored.shape)
        self._held = {name: self.tensors[name].shape[0] for name in vocabulary if name in self.tensors}
        for path, module in modules.items():
            if module.rows is not None and f"{path}.weight" in self._held:
                self._grow(self.tensors[f"{path}.weight"], module.rows)
        shortest = min((self.tensors[name].shape[0] for name in self._held), default=0)
        for name in self._held:
            info = self.tensors[name]
            if name not in self._keys and info == base.tensors[name]:
                self.tensors[name] = replace(info, shape=(shortest, *info.shape[1:]))
        self._trained = {f"{path}.weight": module.rows for path, module in modules.items() if module.rows is not None}
        for name, rows in self._trained.items():
            _check_rows(adapter, rows, file.tensors[rows.key].shape, self.tensors[name])

    def differs(self, name: str) -> bool:
        """True for a tensor that differs from the base's."""
        return name in self._keys or name in self._trained or self.tensors[name] != self._base.tensors[name]

    def replaces(self, name: str) -> bool:
        """True when the adapter has the whole tensor."""
        return name in self._keys

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) in the base's type, BF16 as uint16."""
        import numpy as np

        held = self._held.get(name, stop)
        rows = self._held_rows(name, min(start, held), min(stop, held))
        if stop > held:
            rows = np.concatenate([rows, np.zeros((stop - max(start, held), *rows.shape[1:]), rows.dtype)])
        trained = self._trained.get(name)
        if trained is None:
            return rows
        new, made = self._in_base_type(trained.key, name, self._file.rows(trained.key)), rows.copy()
        for place, index in enumerate(trained.indices):
            if start <= index < stop:
                made[index - start] = new[place]
        return made

    def release(self, name: str, start: int, stop: int) -> None:
        """Release the memory of these rows."""
        key, stop = self._keys.get(name), min(stop, self._held.get(name, stop))
        if start >= stop:
            return
        if key is None:
            self._base.release(name, start, stop)
        else:
            self._file.release(key, start, stop)

    def _grow(self, weight: TensorInfo, trained: TokenRows) -> None:
        new = range(weight.shape[0], max(trained.indices) + 1)
        if new and {*new} <= {*trained.indices}:
            self.tensors[weight.name] = replace(weight, shape=(new.stop, *weight.shape[1:]))

    def _held_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        key = self._keys.get(name)
        if key is None:
            return self._base.rows(name, start, stop)
        return self._in_base_type(key, name, self._file.rows(key, start, stop))

    def _in_base_type(self, key: str, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows of the adapter's tensor `key` in the type of the base's tensor `name`."""
        stored, wanted = self._file.tensors[key].dtype, self.tensors[name].dtype
        return rows if stored == wanted else as_array(copy_to_torch(rows, stored).to(torch_dtype(wanted)))


def _check_rows(adapter: Adapter, rows: TokenRows, stored: tuple[int, ...], weight: TensorInfo) -> None:
    """Raise AdapterError when trained rows with the shape `stored` do not fit into `weight`."""
    largest = max(rows.indices)
    if largest >= weight.shape[0]:
        raise AdapterError(
            f"has trained rows of tokens up to {largest}, and neither it nor its base has all rows of {weight.name} "
            f"from {weight.shape[0]} on",
            where=adapter.folder,
            remedy="save the resized model and give it with --base MODEL, or train again with modules_to_save "
            "[embed_tokens, lm_head]",
        )
    if stored != (len(rows.indices), weight.shape[1]) or min(rows.indices) < 0:
        raise other_base(
            adapter,
            f"{rows.key} has the shape {list(stored)} for {len(rows.indices)} tokens, and {weight.name} has "
            f"{list(weight.shape)}",
        )
