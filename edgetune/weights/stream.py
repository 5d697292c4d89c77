"""The tensors of a source with the adapter folded in, by rows, for `merge` and `export`."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgetune import events
from edgetune.errors import AdapterError, ModelError, NumericalError
from edgetune.models.config import ModelConfig, read_config
from edgetune.models.families import EmbeddingNames
from edgetune.models.gguf_file import GgufFile
from edgetune.models.weight_names import embedding_names, names_in_memory, ties_embeddings
from edgetune.recipe.yaml_input import read_mapping
from edgetune.weights.base import ITEM_BYTES, BaseTensors, open_base, renamed, widest_dtype
from edgetune.weights.classifier import ClassifierBase, trains_head
from edgetune.weights.fold import AdapterFolder, needs_whole_model
from edgetune.weights.source import ModelSource
from edgetune.weights.tying import same_rows

if TYPE_CHECKING:
    import numpy as np

BaseAs = Literal["16bit", "trained"]
"""The base for an adapter that was trained on a quantized base: as it is stored, or rounded as it was in training."""

_TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

_NOT_FINITE = {"F64": 0x7FF0 << 48, "F32": 0x7F80 << 16, "F16": 0x7C00, "BF16": 0x7F80}
"""The bits of positive infinity. As integers, NaNs are larger and finite numbers are smaller."""


def open_folded(source: ModelSource, *, base_as: BaseAs = "16bit") -> FoldedTensors:
    """Open base and adapter and check that they belong together, without reading weights.

    Raises ModelError or AdapterError, and UsageError for `base_as` "trained" where the base was not quantized.
    """
    if base_as == "16bit" and makes_up_for_rounding(source):
        events.note("LoftQ's adapter corrects the rounding to nf4, so it is folded into the base as it was trained")
        base_as = "trained"
    if base_as == "16bit" and source.adapter is not None and needs_whole_model(source.adapter):
        return _merged_by_peft(source)
    folded = FoldedTensors(source, base_as)
    if folded.adapter_changes_nothing:
        events.warn(f"{source.name}: A or B is zero in every module of this adapter, so it does not change the base")
    return folded


def _merged_by_peft(source: ModelSource) -> FoldedTensors:
    """The merged model, in a folder that is deleted with the result."""
    from edgetune.weights.whole_model import merge_whole

    events.note("PEFT merges this adapter, with the whole model in memory and a temporary copy on disk")
    folder = tempfile.TemporaryDirectory(prefix="edgetune-merged-")
    base = open_base(source.base, read_config(source.base))
    merged = merge_whole(source, Path(folder.name), widest_dtype(base.tensors.values()))
    folded = FoldedTensors(replace(source, base=merged, adapter=None))
    folded.folder_of_merge = folder
    return folded


def makes_up_for_rounding(source: ModelSource) -> bool:
    """True for a run with LoftQ, whose adapter began as the rounding error of the quantized base and fits no other."""
    method = read_mapping(source.recipe).get("method") if source.recipe is not None and source.adapter else None
    return isinstance(method, dict) and method.get("init") == "loftq"


class FoldedTensors:
    """The folded model. `tensors` has names, shapes and types; `rows` computes rows of one tensor.

    `config` is the base's configuration with the folded model's vocabulary size, tied embeddings and dtype.
    `gguf_base` is the base if it is a GGUF file, whose unchanged tensors can be copied as they are stored.
    Names are those in memory, which an adapter's keys use; `stored_name` gives the name in the base's files.
    `tensors` has no output layer when it is tied to the embedding. With an adapter that was trained with a
    classification head, this is its family's classification model. Several threads may read at once.
    """

    folder_of_merge: tempfile.TemporaryDirectory[str] | None = None
    """The folder of the merged model, where PEFT merged the whole model."""

    def __init__(self, source: ModelSource, base_as: BaseAs = "16bit") -> None:
        self.source = source
        self.gguf_base = None if source.base.gguf is None else GgufFile(source.base.gguf)
        base_config = read_config(source.base)
        stored = open_base(source.base, base_config)
        self._stored_names = names_in_memory(base_config, source.base, stored.tensors)
        self._base: BaseTensors = renamed(stored, self._stored_names)
        if source.adapter is not None and trains_head(source.adapter):
            classifier = ClassifierBase(source, self._base, base_config)
            self._base, base_config, self._stored_names = classifier, classifier.config, {}
        self._rounded: frozenset[str] = frozenset()
        if base_as == "trained":
            self._round_base(base_config)
        self._names = embedding_names(base_config, source.base, self._base.tensors)
        self._folder: AdapterFolder | None = None
        tied = self._names is not None and self._is_tied(self._names, base_config)
        if source.adapter is not None:
            if tied and self._names is not None:  # an adapter may name either
                both = {name: name for name in self._base.tensors} | {self._names.head: self._names.embedding}
                self._base = renamed(self._base, both)
            self._folder = AdapterFolder(source.adapter, self._base, vocabulary=self._names, tied=tied)
            tied = self._folder.keeps_tied
        hidden = self._hidden(tied)
        present = self._base.tensors if self._folder is None else self._folder.tensors
        self.tensors = {name: info for name, info in present.items() if name not in hidden}
        self.config: ModelConfig = self._true_config(base_config, tied)

    @property
    def folded_modules(self) -> int:
        """The number of modules that the adapter changes."""
        return 0 if self._folder is None else len(self._folder.modules)

    @property
    def adapter_changes_nothing(self) -> bool:
        """True when the adapter does not change the base."""
        return self._folder is not None and self._folder.changes_nothing

    @property
    def working_bytes(self) -> int:
        """The memory for computing rows, without the rows: an adapter's module that is folded whole."""
        return 0 if self._folder is None else self._folder.working_bytes

    def stored_name(self, name: str) -> str:
        """The tensor's name in the base's files, where they have it."""
        return self._stored_names.get(name, name)

    def touches(self, name: str) -> bool:
        """True when this tensor differs from the stored one."""
        return name in self._rounded or (self._folder is not None and self._folder.touches(name))

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of a tensor in its stored type, BF16 as uint16; read-only, and valid until the release.

        Raises NumericalError when a value is not finite, AdapterError when the adapter's tensors do not fit.
        """
        if self._folder is None or not self._folder.touches(name):
            made = self._base.rows(name, start, stop)
        else:
            made = self._folder.rows(name, start, stop)
        if not _is_finite(made, self.tensors[name].dtype):
            raise self._not_finite(name)
        return made

    def release(self, name: str, start: int, stop: int) -> None:
        """Release the memory of these rows: pages of mapped files, and modules that were folded whole."""
        (self._folder or self._base).release(name, start, stop)

    def load(self, name: str) -> np.ndarray:
        """One whole tensor, as `rows` gives it."""
        return self.rows(name, 0, (self.tensors[name].shape or (1,))[0])

    def _round_base(self, config: ModelConfig) -> None:
        from edgetune.weights.trained_base import TrainedBase, trained_quantization

        trained = TrainedBase(self._base, config, trained_quantization(self.source))
        self._base, self._rounded = trained, trained.rounded

    def _not_finite(self, name: str) -> NumericalError:
        base = self._base.tensors[name]
        replaced = self._folder is not None and self._folder.replaces(name)
        if not replaced and not _is_finite(self._base.rows(name, 0, (base.shape or (1,))[0]), base.dtype):
            return NumericalError(f"{name} of the base has NaN or infinity", where=self.source.base.reference)
        assert self.source.adapter is not None
        return NumericalError(
            f"folding the adapter into {name} gives NaN or infinity, so nothing was written",
            where=self.source.adapter.folder,
            remedy="the training diverged; train again with a lower learning rate",
        )

    def _is_tied(self, names: EmbeddingNames, config: ModelConfig) -> bool:
        """Some tools write the tied head too; it is a tensor of its own only when it differs."""
        if names.embedding not in self._base.tensors:
            if config.ties_embeddings:
                raise ModelError(f"has no {names.embedding}, which its configuration needs", where=config.where)
            return False
        if not ties_embeddings(config, self.source.base):
            return False
        return names.head not in self._base.tensors or same_rows(self._base, names.head, names.embedding)

    def _hidden(self, tied: bool) -> set[str]:
        """The base's names of copies of the embedding."""
        if self._names is None:
            return set()
        repeated = {
            name
            for name in self._names.copies
            if name in self._base.tensors and same_rows(self._base, name, self._names.embedding)
        }
        return {*repeated, self._names.head} if tied else repeated

    def _true_config(self, config: ModelConfig, tied: bool) -> ModelConfig:
        """The configuration of `tensors`. Raises AdapterError for a vocabulary with two sizes."""
        config = config.replace(dtype=_TORCH_NAMES[widest_dtype(self.tensors.values())])
        if self._names is None:
            return config
        config = config.replace(tie_word_embeddings=tied)
        if self._names.embedding not in self.tensors:
            return config
        names = (self._names.embedding, self._names.head)
        sizes = {self.tensors[name].shape[0] for name in names if name in self.tensors}
        if len(sizes) > 1:
            raise AdapterError(
                f"the embedding and the output layer have different numbers of rows ({sorted(sizes)})",
                where=None if self.source.adapter is None else self.source.adapter.folder,
                remedy="an adapter must hold both after a change of the vocabulary: save the resized model and give it "
                "with --base MODEL, or train again with modules_to_save [embed_tokens, lm_head]",
            )
        return config.with_vocabulary(sizes.pop())


def _is_finite(array: np.ndarray, dtype: str) -> bool:
    """Two passes without a copy: as signed integers, positive non-finite values are the largest; as unsigned, all."""
    import numpy as np

    if array.size == 0:
        return True
    width, limit = ITEM_BYTES[dtype], _NOT_FINITE[dtype]
    flat = array.reshape(-1)
    sign = 1 << (8 * width - 1)
    return bool(flat.view(f"i{width}").max() < limit and flat.view(f"u{width}").max() < np.uint64(sign + limit))
