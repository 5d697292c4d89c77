"""A GGUF file's tensors with Hugging Face's names, dequantized to float32 as Transformers dequantizes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgetune.errors import ModelError
from edgetune.models.gguf_file import GgufFile
from edgetune.models.gguf_llama import LlamaTensors, dequantize_rows

if TYPE_CHECKING:
    import numpy as np
    from transformers import PretrainedConfig

_VOCABULARY_MATRICES = ("token_embd.weight", "output.weight")
"""The largest tensors, which no processor changes."""


def open_gguf_tensors(file: GgufFile, config: Callable[[], PretrainedConfig]) -> LlamaTensors | GgufTensors:
    """The tensors of a file. `config` makes Transformers' configuration, where Transformers is needed.

    Raises ModelError as the classes do.
    """
    if file.metadata.get("general.architecture") == "llama":
        return LlamaTensors(file)
    return GgufTensors(file, config())


class GgufTensors:
    """In Hugging Face's row order: Transformers' own processors undo the permutations, as its `gguf_file=` does.

    `shapes` is by name, in the file's order. Raises ModelError for a tensor that Transformers does not know, and for
    one that is missing.
    """

    def __init__(self, file: GgufFile, config: PretrainedConfig) -> None:
        from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

        self._file = file
        self._architecture = str(file.metadata.get("general.architecture"))
        self._processor = TENSOR_PROCESSORS.get(self._architecture, TensorProcessor)(config=config.to_dict())
        self._stored = self._stored_names(config)
        self.shapes = {name: file.tensors[stored].shape for name, stored in self._stored.items()}

    def by_rows(self, name: str) -> bool:
        """True when rows of this tensor can be dequantized alone."""
        return self._stored[name] in _VOCABULARY_MATRICES

    def load(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """One tensor in float32, or rows [start, stop) of one that is read `by_rows`."""
        import numpy as np

        stored = self._stored[name]
        weights = dequantize_rows(self._file, stored, start, stop)
        if self.by_rows(name):
            return weights
        return np.array(self._processor.process(weights=weights, name=stored).weights, dtype=np.float32, order="C")

    def _stored_names(self, config: PretrainedConfig) -> dict[str, str]:
        """Hugging Face's name -> the file's, in the file's order."""
        from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
        from transformers import AutoModelForCausalLM

        from edgetune.models.load import without_weights

        expected = without_weights(AutoModelForCausalLM.from_config, config).state_dict()
        arch = next((arch for arch, name in MODEL_ARCH_NAMES.items() if name == self._architecture), None)
        if arch is None:
            raise ModelError(f"its architecture {self._architecture} is unknown", where=self._file.path)
        table = get_tensor_name_map(arch, config.num_hidden_layers)
        suffixes = (".weight", ".bias")
        known = {table.get_name(self._processor.preprocess_name(name), suffixes): name for name in expected}
        strays = [name for name in self._file.tensors if name not in known]
        if strays:
            raise ModelError(f"Transformers does not know the tensor {strays[0]}", where=self._file.path)
        found = {known[name]: name for name in self._file.tensors}
        lost = [name for name in expected if name not in found and name != "lm_head.weight"]
        if lost:
            raise ModelError(f"lacks the tensor {lost[0]}", where=self._file.path, remedy="download or export it again")
        return found
