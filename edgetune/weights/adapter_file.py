"""An adapter's tensors under PEFT's own keys, for files of any tool.

torch.compile, DDP, FSDP and activation checkpointing add the names of their wrappers to the keys. A state dict that was
saved by hand has the adapter's name in them, and some tools omit PEFT's prefix or write it twice.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from edgetune.errors import AdapterError
from edgetune.models.families import TEXT_PREFIX
from edgetune.models.safetensors_file import SafetensorsFile
from edgetune.models.weight_names import name_with_images
from edgetune.weights.source import Adapter

if TYPE_CHECKING:
    import numpy as np

MODEL_PREFIX = "base_model.model."
"""PEFT's name for the base inside the adapter's keys."""

PEFT_PREFIX = "base_model."
"""A key with only this prefix belongs to all modules (VeRA's projections)."""

_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)|^module(?=\.)")
_ADAPTER_NAME = re.compile(
    r"(?<=\.lora_[AB]\.)[^.]+\.(?=(weight|bias)$)"
    r"|(?<=\.modules_to_save\.)[^.]+\.(?=(weight|bias)$)"
    r"|(?<=\.modules_to_save\.)default\."
    r"|(?<=\.lora_embedding_[AB])\.[^.]+$"
    r"|(?<=\.trainable_tokens_delta)\.[^.]+$"
    r"|(?<=\.lora_magnitude_vector)(?!\.weight$)\.[^.]+(?=(\.weight)?$)"
    r"|\.default(?=(\.[^.]+)?$)"
)
"""The places of an adapter's name in PEFT's keys in memory; in files, they have none."""

_BF16_WITHOUT_SIGN = 0x7FFF


class AdapterFile:
    """An adapter's open file. `tensors` is by PEFT's key, sorted; `base` are the names of the base's tensors.

    A key whose module the base lacks keeps its name. Raises ModelError for a damaged file, and AdapterError when two
    tensors have the same key.
    """

    def __init__(self, adapter: Adapter, base: Collection[str]) -> None:
        self._file = SafetensorsFile(adapter.weights)
        self.path = self._file.path
        modules = {name.rpartition(".")[0] for name in base}
        self._stored: dict[str, str] = {}
        for name in sorted(self._file.tensors):
            key = _as_in_peft(name, modules)
            if key in self._stored:
                raise AdapterError(
                    f"both {self._stored[key]} and {name} are {key}",
                    where=self.path,
                    remedy="it holds more than one adapter; save one of them with PEFT's save_pretrained",
                )
            self._stored[key] = name
        self.tensors = {key: self._file.tensors[self._stored[key]] for key in sorted(self._stored)}

    def name_in_file(self, key: str) -> str:
        """The tensor's name in the file."""
        return self._stored[key]

    def rows(self, key: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows [start, stop) of a tensor, all of them by default, as SafetensorsFile gives them."""
        return self._file.rows(self._stored[key], start, stop)

    def is_zero(self, key: str) -> bool:
        """True when every value of the tensor is zero."""
        rows = self.rows(key)
        if self.tensors[key].dtype == "BF16":
            rows = rows & _BF16_WITHOUT_SIGN
        return not rows.any()

    def release(self, key: str, start: int = 0, stop: int | None = None) -> None:
        """Release the memory of these rows."""
        self._file.release(self._stored[key], start, stop)


def split_key(name: str, modules: Collection[str]) -> tuple[str | None, str]:
    """model.layers.0.q_proj.lora_A.weight -> (model.layers.0.q_proj, lora_A.weight); None when no module fits."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        path = ".".join(parts[:length])
        if path in modules:
            return path, ".".join(parts[length:])
    return None, name


def _as_in_peft(name: str, modules: Collection[str]) -> str:
    key = _ADAPTER_NAME.sub("", _WRAPPERS.sub("", name).removeprefix("."))
    if key.endswith("lora_magnitude_vector.weight"):  # a module in memory, a parameter in PEFT's files
        key = key.removesuffix(".weight")
    inner = key
    while inner.startswith(MODEL_PREFIX):
        inner = inner.removeprefix(MODEL_PREFIX)
    inner = inner.removeprefix(PEFT_PREFIX)
    meant = next((spelled for spelled in _spellings(inner) if split_key(spelled, modules)[0] is not None), None)
    return key if meant is None else MODEL_PREFIX + meant


def _spellings(name: str) -> Iterator[str]:
    """A key may belong to the model without its output layer, to a wrapper around it, or to the text model alone."""
    yield name
    yield f"model.{name}"
    yield name_with_images(name)
    while name.startswith("model."):
        name = name.removeprefix("model.")
        yield name
    yield TEXT_PREFIX + name
