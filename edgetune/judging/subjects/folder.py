"""Models under test that Transformers and PEFT run: a run directory, a model folder, an adapter folder, a hub id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from edgetune.errors import UsageError
from edgetune.judging.answer import Answer
from edgetune.judging.items import Item
from edgetune.judging.suite import Suite
from edgetune.models.checkpoint import weight_files
from edgetune.models.config import read_config
from edgetune.models.families import Kind, kind_of
from edgetune.recipe.yaml_input import read_mapping
from edgetune.weights.source import Source, resolve_source

if TYPE_CHECKING:
    from edgetune.judging.subjects.torch_model import TorchModel

ITEMS_AT_ONCE = 32
"""So many items are answered before their answers are handed on (and remembered)."""


class FolderSubject:
    """A base in torch, with its adapter where there is one; on the GPU where there is one."""

    size_bytes = None

    def __init__(self, source: Source, reference: str) -> None:
        self.reference = reference
        self.kind = "folder" if source.recipe is None else "run"
        self._source = source
        self._config = read_config(source.base)
        self._family: Kind = kind_of(self._config.model_type)
        self._recipe = {} if source.recipe is None else read_mapping(source.recipe)
        self._model: TorchModel | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the base's weights and the adapter's."""
        digest = hashlib.sha256()
        files = self._source.base
        weights = [files.gguf] if files.gguf else weight_files(files.folder)
        adapter = [] if self._source.adapter is None else [self._source.adapter.weights]
        for file in [*weights, *adapter]:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def check(self, items: Sequence[Item], suite: Suite) -> None:
        """Raise UsageError where this kind of model cannot do the suite's task, or not in the suite's way."""
        labels = self.head_labels
        if labels and suite.task != "classify":
            self._refuse(f"has a classification head, and task {suite.task} asks for text", "judge a model that writes")
        if labels and set(labels) != set(suite.labels):
            self._refuse(
                f"knows the labels {', '.join(labels)}, and the suite {', '.join(suite.labels)}",
                "give the suite the labels that the model was trained with",
            )
        if self._family == "encoder" and not labels:
            self._refuse("is an encoder without a classification head, which cannot answer", "train it with a head")
        if self._family == "encoder-decoder" and suite.task == "perplexity":
            self._refuse("is an encoder-decoder, which has no perplexity of a text", "take a suite that summarizes")
        if suite.generation.temperature > 0 and suite.task in ("generate", "summarize"):
            self._refuse(
                "is answered greedily by Transformers here",
                "set generation.temperature to 0, or export the model and judge the GGUF",
            )

    def answers(self, items: Sequence[Item], suite: Suite) -> Iterator[Answer]:
        """The answers in the order of the items, some at a time. Raises ModelError when the model cannot be loaded.

        `seconds` is an equal share of the time that those answered together took.
        """
        model = self._load(suite)
        for start in range(0, len(items), ITEMS_AT_ONCE):
            part = items[start : start + ITEMS_AT_ONCE]
            began = perf_counter()
            answers = model.answer(part, suite)
            seconds = (perf_counter() - began) / len(part)
            yield from (replace(answer, seconds=seconds) for answer in answers)

    def close(self) -> None:
        """Let go of the model."""
        self._model = None

    @property
    def head_labels(self) -> tuple[str, ...]:
        """The labels of a classification head, in the order of its scores; empty for a model without one."""
        base, data = self._recipe.get("base"), self._recipe.get("data")
        if isinstance(base, dict) and isinstance(data, dict) and base.get("head") == "classification":
            return tuple(data["labels"])
        architectures = self._config.get("architectures") or []
        if not any(name.endswith("ForSequenceClassification") for name in architectures):
            return ()
        numbered: dict[str, str] = self._config.get("id2label") or {}
        return tuple(label for _, label in sorted(numbered.items(), key=lambda pair: int(pair[0])))

    def _load(self, suite: Suite) -> TorchModel:
        if self._model is None:
            from edgetune.judging.subjects.torch_model import TorchModel

            recorded: Any = self._recipe.get("base")
            self._model = TorchModel.load(
                self._source,
                self._family,
                settings=recorded if isinstance(recorded, dict) else {},
                head_labels=self.head_labels,
                longest_tokens=self._config.get("max_position_embeddings"),
            )
        return self._model

    def _refuse(self, what: str, remedy: str) -> None:
        raise UsageError(what, where=self.reference, remedy=remedy)


def recognizes(reference: str) -> bool:
    """True for a folder, and for what has the form of a hub id."""
    return Path(reference).expanduser().is_dir() or (reference.count("/") == 1 and not Path(reference).suffix)


def open_folder(reference: str) -> FolderSubject:
    """The model behind a run directory, a model or adapter folder, or a hub id. Raises ModelError or AdapterError."""
    return FolderSubject(resolve_source(reference), reference)
