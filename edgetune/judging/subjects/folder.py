"""Models under test that Transformers and PEFT run: a run directory, a model folder, an adapter folder, a hub id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from edgetune.errors import UsageError
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.subjects.folder_files import hash_adapter_folder, hash_model_folder
from edgetune.judging.suites.identity import hash_gguf, hash_value, versions_of
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.models.config import read_config
from edgetune.models.families import ModelKind, kind_of
from edgetune.models.load import device_name, resolve_dtype
from edgetune.recipe.schema import Base
from edgetune.recipe.yaml_input import read_mapping
from edgetune.weights.source import ModelSource, resolve_source

if TYPE_CHECKING:
    from edgetune.judging.subjects.torch_model import TorchModel

ITEMS_AT_ONCE = 32
"""How many items are answered before their answers are returned (and stored)."""

_BASE = Base.model_fields


class FolderSubject:
    """A base in torch, with its adapter where there is one; on the GPU where there is one."""

    size_bytes = None

    def __init__(self, source: ModelSource, reference: str) -> None:
        self.reference = reference
        self.kind = "folder" if source.recipe is None else "run"
        self._source = source
        self._config = read_config(source.base)
        self._family: ModelKind = kind_of(self._config.model_type)
        self._recipe = {} if source.recipe is None else read_mapping(source.recipe)
        self._model: TorchModel | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over what shapes the answers: the base's files, the adapter's, and how the recipe loads the base.

        A run and a copy of its adapter on the same base have the same one where the recipe asks for nothing special.
        Raises ModelError when a file cannot be read.
        """
        base, adapter = self._source.base, self._source.adapter
        return hash_value(
            {
                "base": hash_gguf(base.gguf) if base.gguf else hash_model_folder(base.folder),
                "adapter": None if adapter is None else hash_adapter_folder(adapter.folder),
                "recipe": self._special_settings(),
            }
        )

    @cached_property
    def runtime(self) -> Mapping[str, str]:
        """The libraries that render, read and compute, where, and in which type."""
        settings = self._base_settings
        packages = ["torch", "transformers", "tokenizers", "jinja2"]
        packages += ["peft"] if self._source.adapter is not None else []
        packages += ["gguf"] if self._source.base.gguf is not None else []
        packages += ["bitsandbytes"] if settings.get("quantize", "none") != "none" else []
        dtype = str(resolve_dtype(settings.get("dtype", "auto")))
        return {"device": device_name(), "dtype": dtype, **versions_of(*packages)}

    def check(self, items: Sequence[Item], suite: Suite) -> None:
        """Raise UsageError where this kind of model cannot do the suite's task, or not in the suite's way."""
        labels = self.head_labels
        if labels and suite.task != "classify":
            self._refuse(
                f"has a classification head, and task {suite.task} needs text", "judge a model that writes text"
            )
        if labels and set(labels) != set(suite.labels):
            self._refuse(
                f"has the labels {', '.join(labels)}, and the suite has {', '.join(suite.labels)}",
                "give the suite the labels that the model was trained with",
            )
        if self._family == "encoder" and not labels:
            self._refuse("is an encoder without a classification head, which cannot answer", "train it with a head")
        if self._family == "encoder-decoder" and suite.task == "perplexity":
            self._refuse("is an encoder-decoder, for which perplexity is not defined", "take a suite that summarizes")
        if suite.generation.temperature > 0 and suite.task in ("generate", "summarize"):
            self._refuse(
                "is decoded greedily here, and the suite sets a temperature",
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
        """Free the model."""
        self._model = None

    @property
    def head_labels(self) -> tuple[str, ...]:
        """The labels of a classification head, in the order of its scores; empty for a model without one."""
        data = self._recipe.get("data")
        if isinstance(data, dict) and self._base_settings.get("head") == "classification":
            return tuple(data["labels"])
        architectures = self._config.get("architectures") or []
        if not any(name.endswith("ForSequenceClassification") for name in architectures):
            return ()
        numbered: dict[str, str] = self._config.get("id2label") or {}
        return tuple(label for _, label in sorted(numbered.items(), key=lambda pair: int(pair[0])))

    @property
    def _base_settings(self) -> Mapping[str, Any]:
        """The recipe's base section; empty where there is none."""
        recorded = self._recipe.get("base")
        return recorded if isinstance(recorded, dict) else {}

    def _special_settings(self) -> dict[str, Any]:
        """The settings of the recipe that shape answers and are not defaults. The base is identified by its files."""
        special = {
            name: value
            for name, value in self._base_settings.items()
            if name not in ("model", "revision") and (name not in _BASE or value != _BASE[name].default)
        }
        data = self._recipe.get("data")
        asked = data if isinstance(data, dict) else {}
        if special.get("head") == "classification":
            special["labels"] = [str(label) for label in asked.get("labels") or ()]
        if asked.get("template", "chat") != "chat":
            special["template"] = str(asked["template"])
        return special

    def _load(self, suite: Suite) -> TorchModel:
        if self._model is None:
            from edgetune.judging.subjects.torch_model import TorchModel

            self._model = TorchModel.load(
                self._source,
                self._family,
                settings=self._base_settings,
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
