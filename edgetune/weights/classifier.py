"""The base of an adapter with a classification head, with the names of the model that has this head.

Training adds the head to a model that writes text, or to an encoder. The folded model is the family's
…ForSequenceClassification: it has the head's tensors, and no output layer over the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgetune.errors import AdapterError, ModelError
from edgetune.models.config import ModelConfig
from edgetune.models.load import load_config, quiet_libraries, without_weights
from edgetune.recipe.yaml_input import read_mapping
from edgetune.weights.adapter_file import MODEL_PREFIX, AdapterFile
from edgetune.weights.adapter_keys import other_base
from edgetune.weights.base import BaseTensors, TensorInfo, widest_dtype
from edgetune.weights.fold import refuse_unmergeable
from edgetune.weights.source import Adapter, ModelSource

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

_CLASS_SUFFIX = "ForSequenceClassification"
_WRAPPERS = ("modules_to_save", "base_layer", "original_module", "token_adapter")
"""Parts that PEFT adds to the names of tensors that it saves whole."""
_OLD_PARAMETERS = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
"""The names of a norm's parameters in early checkpoints, from TensorFlow's BERT."""
_ARRAY_TYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "u2"}


def trains_head(adapter: Adapter) -> bool:
    """True for an adapter that was trained with a classification head."""
    return str(adapter.settings.get("task_type")).removeprefix("TaskType.") == "SEQ_CLS"


def ends_in_head(config: ModelConfig) -> bool:
    """True for the configuration of a model with a classification head."""
    return any(name.endswith(_CLASS_SUFFIX) for name in config.architectures)


class ClassifierBase:
    """`base` with the tensors of its family's classification model, and `config`, that model's configuration.

    Tensors that only the adapter has are zeros of their shape here; the adapter's replace them. Several threads may
    read at once.

    Raises AdapterError when the adapter cannot be folded, has no complete head, or scores another number of classes
    than the run's recipe names; ModelError when the base lacks anything else.
    """

    def __init__(self, source: ModelSource, base: BaseTensors, config: ModelConfig) -> None:
        assert source.adapter is not None
        refuse_unmergeable(source.adapter)
        self._base = base
        held = {_plain_name(key): info.shape for key, info in AdapterFile(source.adapter, base.tensors).tensors.items()}
        skeleton = _skeleton(source)
        output = skeleton.output
        stored = {name: skeleton.find(name, base.tensors) for name in skeleton.shapes}
        own = stored[output]
        shape = held.get(output) or (None if own is None else base.tensors[own].shape)
        if shape is None:
            raise _no_head(source.adapter, output)
        if len(shape) != 2:
            raise other_base(source.adapter, f"{output} has the shape {list(shape)}, and a head has two dimensions")
        classes = shape[0]
        shapes = skeleton.shapes_for(classes)
        dtype = widest_dtype(base.tensors.values())
        self.tensors: dict[str, TensorInfo] = {}
        self._stored: dict[str, str] = {}
        for name, found in stored.items():
            in_head = skeleton.in_head(name)
            if found is not None and not (in_head and base.tensors[found].shape != shapes[name]):
                self._stored[name] = found
                self.tensors[name] = replace(base.tensors[found], name=name)
            elif name in held:
                self.tensors[name] = TensorInfo(name, shapes[name], dtype)
            elif in_head:
                raise _no_head(source.adapter, name)
            else:
                raise ModelError(
                    f"lacks the tensor {name}, which a {skeleton.class_name} needs",
                    where=source.base.reference,
                    remedy="name the base that the adapter was trained on with --base MODEL",
                )
        labels = _labels(source, classes, config, has_head=output in self._stored)
        self.config = config.replace(
            architectures=[skeleton.class_name],
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of the base, BF16 as uint16; zeros for what only the adapter has."""
        import numpy as np

        if name in self._stored:
            return self._base.rows(self._stored[name], start, stop)
        info = self.tensors[name]
        return np.zeros(info.shape, _ARRAY_TYPES[info.dtype])[start:stop]

    def release(self, name: str, start: int, stop: int) -> None:
        """Release the memory of these rows."""
        if name in self._stored:
            self._base.release(self._stored[name], start, stop)


@dataclass(frozen=True)
class _Skeleton:
    """A classification model without its weights: the shapes by name, each tied weight once, under its first name.

    `aliases` are the other names of tied weights. `inner` is the prefix of the network below the head, such as bert.
    """

    class_name: str
    inner: str
    shapes: Mapping[str, tuple[int, ...]]
    aliases: Mapping[str, list[str]]

    @property
    def output(self) -> str:
        """The weight that gives the scores, (classes, width): the last one in Transformers' classification models."""
        return [name for name in self.shapes if self.in_head(name) and name.endswith(".weight")][-1]

    def in_head(self, name: str) -> bool:
        return not name.startswith(self.inner)

    def shapes_for(self, classes: int) -> dict[str, tuple[int, ...]]:
        """The shapes with this number of classes."""
        last = self.output.removesuffix("weight")
        return {name: (classes, *shape[1:]) if name.startswith(last) else shape for name, shape in self.shapes.items()}

    def find(self, name: str, tensors: Mapping[str, TensorInfo]) -> str | None:
        """The base's name for this tensor; None when the base lacks it."""
        return next((spelled for spelled in self._spellings(name) if spelled in tensors), None)

    def _spellings(self, name: str) -> Iterator[str]:
        for alias in (name, *self.aliases[name]):
            for inside in dict.fromkeys((alias, alias.removeprefix(self.inner))):
                yield inside
                for today, once in _OLD_PARAMETERS.items():
                    if inside.endswith(today):
                        yield inside.removesuffix(today) + once


def _skeleton(source: ModelSource) -> _Skeleton:
    model = _model_without_weights(source)
    first: dict[int, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    aliases: dict[str, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        known = first.setdefault(id(tensor), name)
        if known == name:
            shapes[name], aliases[name] = tuple(tensor.shape), []
        else:
            aliases[known].append(name)
    return _Skeleton(type(model).__name__, f"{model.base_model_prefix}.", shapes, aliases)


def _model_without_weights(source: ModelSource) -> PreTrainedModel:
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    quiet_libraries()
    config = load_config(source.base)
    model_class = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if model_class is None:
        raise ModelError(
            f"Transformers has no classification model of the family {config.model_type}, and the adapter was trained "
            "with a classification head",
            where=source.base.reference,
            remedy="name the base that the adapter was trained on with --base MODEL",
        )
    return without_weights(model_class, config)


def _plain_name(key: str) -> str:
    """base_model.model.classifier.modules_to_save.weight -> classifier.weight"""
    return ".".join(part for part in key.removeprefix(MODEL_PREFIX).split(".") if part not in _WRAPPERS)


def _labels(source: ModelSource, classes: int, config: ModelConfig, *, has_head: bool) -> list[str]:
    """The names of the classes: the recipe's, or those of a base with such a head, or Transformers' defaults."""
    data = {} if source.recipe is None else read_mapping(source.recipe).get("data")
    named = data.get("labels") if isinstance(data, dict) else None
    if named:
        if len(named) != classes:
            raise AdapterError(
                f"its classification head scores {classes} classes, and data.labels in {source.recipe} names "
                f"{len(named)}",
                where=None if source.adapter is None else source.adapter.folder,
                remedy="recipe and adapter belong to different runs",
            )
        return [str(label) for label in named]
    recorded = config.get("id2label", {}) if has_head else {}
    if len(recorded) == classes:
        return [str(name) for _, name in sorted((int(number), name) for number, name in recorded.items())]
    return [f"LABEL_{number}" for number in range(classes)]


def _no_head(adapter: Adapter, name: str) -> AdapterError:
    return AdapterError(
        f"was trained with a classification head, and neither it nor its base has {name}",
        where=adapter.folder,
        remedy="train again with the whole head in modules_to_save, or name a base that has it with --base MODEL",
    )
