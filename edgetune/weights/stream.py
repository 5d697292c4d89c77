"""Source -> the model's tensors with the adapter folded in, one at a time. `merge` and `export` read from here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgetune.errors import AdapterError, ModelError, NumericalError
from edgetune.weights.base import TensorInfo, open_base
from edgetune.weights.fold import AdapterFolder
from edgetune.weights.source import Source

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


def open_folded(source: Source) -> FoldedTensors:
    """Open base and adapter and check that they belong together; no weights are read yet.

    Raises ModelError or AdapterError.
    """
    return FoldedTensors(source)


def stream_tensors(source: Source) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of the folded model in a stable order, each in its stored dtype; nothing is kept.

    Tied embeddings stay tied: then there is no lm_head.weight. Raises NumericalError naming a tensor with NaN.
    """
    folded = open_folded(source)
    for name in folded.tensors:
        yield name, folded.load(name)


class FoldedTensors:
    """The folded model. `tensors` tells names, shapes and types beforehand; `load` makes one tensor, in any order.

    `config` is the base's configuration as it is true of the folded model (vocabulary size, tied embeddings, dtype).
    """

    def __init__(self, source: Source) -> None:
        from edgetune.models.load import load_config, quiet_libraries

        quiet_libraries()
        self.source = source
        self.config: PretrainedConfig = load_config(source.base)
        self._base = open_base(source.base, self.config)
        self._aliases: dict[str, str] = {}
        head, embedding = _tied_names(self.config)
        tied = head is not None and self._is_tied(head, embedding)
        available = dict(self._base.tensors)
        if head is not None and tied:
            available[head] = replace(available[embedding], name=head)
        self._folder = None if source.adapter is None else AdapterFolder(source.adapter, available)
        if head is not None and tied:
            if self._parts_tied(head, embedding):
                self._aliases[head] = embedding
                tied = False
            else:
                del available[head]
        self.tensors = {name: self._after_folding(info) for name, info in available.items()}
        self._finish_config(tied, embedding)

    @property
    def folded_modules(self) -> int:
        """How many modules the adapter changes."""
        return 0 if self._folder is None else len(self._folder.folds)

    def load(self, name: str) -> torch.Tensor:
        """One tensor of the folded model. Raises NumericalError when a value is not finite, AdapterError when the
        adapter's tensors do not fit."""
        path, _, parameter = name.rpartition(".")
        if self._folder is None or path not in self._folder.folds:
            tensor = self._load_base(name)
        else:
            parameters = {
                kind: self._load_base(f"{path}.{kind}")
                for kind in ("weight", "bias")
                if f"{path}.{kind}" in self.tensors
            }
            tensor = self._folder.fold(path, parameters)[parameter]
        self._check_finite(name, tensor)
        return tensor

    def _load_base(self, name: str) -> torch.Tensor:
        return self._base.load(self._aliases.get(name, name))

    def _check_finite(self, name: str, tensor: torch.Tensor) -> None:
        if _is_finite(tensor):
            return
        if not _is_finite(self._load_base(name)):
            raise NumericalError(f"{name} of the base holds NaN or infinity", where=self.source.base.reference)
        assert self.source.adapter is not None
        raise NumericalError(
            f"folding the adapter into {name} gives NaN or infinity, so nothing was written",
            where=self.source.adapter.folder,
            remedy="the training diverged; train again with a lower learning rate",
        )

    def _is_tied(self, head: str, embedding: str) -> bool:
        """Some tools write the tied head a second time; only when it differs is it a tensor of its own."""
        import torch

        if not getattr(self.config, "tie_word_embeddings", False):
            return False
        if embedding not in self._base.tensors:
            raise ModelError(f"has no {embedding}, which its configuration needs", where=self.source.base.reference)
        return head not in self._base.tensors or torch.equal(self._base.load(head), self._base.load(embedding))

    def _parts_tied(self, head: str, embedding: str) -> bool:
        """True when the adapter gives head and embedding different weights, so that they can be tied no longer."""
        import torch

        if self._folder is None:
            return False
        head_fold = self._folder.folds.get(head.rpartition(".")[0])
        embedding_fold = self._folder.folds.get(embedding.rpartition(".")[0])
        adapted = [fold for fold in (head_fold, embedding_fold) if fold is not None]
        if not adapted or all(fold.row_key and not fold.adapter_keys for fold in adapted):
            return False
        if getattr(self._folder.config, "ensure_weight_tying", False):
            if any(fold.adapter_keys for fold in adapted):
                raise AdapterError(
                    "shares one adapter between the embedding and the output layer (ensure_weight_tying)",
                    where=self._folder.adapter.folder,
                    remedy="merge it with PEFT's merge_and_unload and give the merged model",
                )
            return False
        whole = all(fold is not None and not fold.adapter_keys for fold in (head_fold, embedding_fold))
        return not (whole and torch.equal(self._folder.replacement(head), self._folder.replacement(embedding)))

    def _after_folding(self, info: TensorInfo) -> TensorInfo:
        shape = None if self._folder is None else self._folder.replacement_shape(info.name)
        if shape is None or shape == info.shape:
            return info
        rows_differ = len(shape) == len(info.shape) == 2 and shape[1:] == info.shape[1:]
        if rows_differ and info.name in _vocabulary_names(self.config):
            return replace(info, shape=shape)
        assert self.source.adapter is not None
        raise AdapterError(
            f"was made for another base: {info.name} has the shape {list(shape)}, this base needs {list(info.shape)}",
            where=self.source.adapter.folder,
            remedy=f"it records {self.source.adapter.recorded_base}; name the right base with --base MODEL",
        )

    def _finish_config(self, tied: bool, embedding: str) -> None:
        """Make the configuration true of what `tensors` holds. Raises AdapterError for a vocabulary that cannot be."""
        causal = _causal_class(self.config)
        if causal is not None and not self.config.architectures:
            self.config.architectures = [causal.__name__]
        self.config.tie_word_embeddings = tied
        self.config.dtype = _widest_dtype(self.tensors.values())
        if embedding in self.tensors:
            sizes = {self.tensors[name].shape[0] for name in _vocabulary_names(self.config) if name in self.tensors}
            if len(sizes) > 1:
                raise AdapterError(
                    f"the embedding and the output layer have different numbers of rows ({sorted(sizes)})",
                    where=None if self.source.adapter is None else self.source.adapter.folder,
                    remedy="save both with the adapter: modules_to_save [embed_tokens, lm_head]",
                )
            self.config.vocab_size = sizes.pop()


def _causal_class(config: PretrainedConfig) -> Any:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)


def _tied_names(config: PretrainedConfig) -> tuple[str | None, str]:
    """(output layer, input embedding) as Transformers' model class ties them; the first is None for other models."""
    tied = getattr(_causal_class(config), "_tied_weights_keys", None)
    if isinstance(tied, dict) and len(tied) == 1:
        head, embedding = next(iter(tied.items()))
        return str(head), str(embedding)
    return None, ""


def _vocabulary_names(config: PretrainedConfig) -> tuple[str, ...]:
    head, embedding = _tied_names(config)
    return () if head is None else (head, embedding)


def _widest_dtype(tensors: Any) -> torch.dtype:
    import torch

    found = {info.dtype for info in tensors if len(info.shape) > 1}
    if len(found) == 1:
        dtype: torch.dtype = found.pop()
        return dtype
    return torch.float32


def _is_finite(tensor: torch.Tensor) -> bool:
    """One pass without a copy: minimum and maximum carry a NaN along."""
    import torch

    return tensor.numel() == 0 or all(bool(torch.isfinite(value)) for value in torch.aminmax(tensor))
