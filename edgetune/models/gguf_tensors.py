"""A GGUF file's tensors in Hugging Face's layout, dequantized to float32 as Transformers dequantizes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from edgetune.errors import ModelError
from edgetune.models.gguf_file import GgufFile
from edgetune.models.gguf_llama import llama_names, llama_order, llama_settings

if TYPE_CHECKING:
    import numpy as np
    from transformers import PretrainedConfig

_VOCABULARY_MATRICES = ("token_embd.weight", "output.weight")
"""The largest tensors, which no processor changes."""


class GgufTensors:
    """Tensors by Hugging Face's names, in the file's order; `stored` has the file's names.

    `order(name)` puts the rows of the file's tensor into Hugging Face's order; None where the order is the same.
    """

    def __init__(
        self,
        file: GgufFile,
        stored: Mapping[str, str],
        order: Callable[[str], Callable[[np.ndarray], np.ndarray] | None],
    ) -> None:
        self._file, self._stored, self._order = file, stored, order
        self.shapes = {name: file.tensors[own].shape for name, own in stored.items()}

    def by_rows(self, name: str) -> bool:
        """True when rows of this tensor can be dequantized alone."""
        return self._order(self._stored[name]) is None

    def load(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """One tensor in float32, or rows [start, stop) of one that is read `by_rows`."""
        order = self._order(self._stored[name])
        rows = _dequantize(self._file, self._stored[name], start, stop)
        return rows if order is None else order(rows)


def open_gguf_tensors(file: GgufFile, config: Callable[[], PretrainedConfig]) -> GgufTensors:
    """The tensors of a file. `config` makes Transformers' configuration, where Transformers is needed.

    Then its own processors undo the permutations, as with `gguf_file=`. Raises ModelError for a tensor that is unknown,
    and for one that is missing.
    """
    architecture = str(file.metadata.get("general.architecture"))
    if architecture == "llama":
        said = llama_settings(file)
        return GgufTensors(file, llama_names(file, said), partial(llama_order, said))
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

    settings = config()
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=settings.to_dict())

    def order(stored: str) -> Callable[[np.ndarray], np.ndarray] | None:
        return None if stored in _VOCABULARY_MATRICES else lambda rows: _processed(processor, stored, rows)

    return GgufTensors(file, _transformers_names(file, architecture, settings, processor), order)


def _processed(processor: Any, stored: str, rows: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.array(processor.process(weights=rows, name=stored).weights, dtype=np.float32, order="C")


def _transformers_names(file: GgufFile, architecture: str, config: PretrainedConfig, processor: Any) -> dict[str, str]:
    """Hugging Face's name -> the file's, in the file's order."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
    from transformers import AutoModelForCausalLM

    from edgetune.models.load import without_weights

    expected = without_weights(AutoModelForCausalLM.from_config, config).state_dict()
    arch = next((arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture), None)
    if arch is None:
        raise ModelError(f"its architecture {architecture} is unknown", where=file.path)
    table = get_tensor_name_map(arch, config.num_hidden_layers)
    known = {table.get_name(processor.preprocess_name(name), (".weight", ".bias")): name for name in expected}
    strays = [name for name in file.tensors if name not in known]
    if strays:
        raise ModelError(f"Transformers does not know the tensor {strays[0]}", where=file.path)
    found = {known[name]: name for name in file.tensors}
    lost = [name for name in expected if name not in found and name != "lm_head.weight"]
    if lost:
        raise ModelError(f"lacks the tensor {lost[0]}", where=file.path, remedy="download or export it again")
    return found


def _dequantize(file: GgufFile, name: str, start: int, stop: int | None) -> np.ndarray:
    """Rows [start, stop) of a tensor, or a whole one-dimensional tensor, dequantized to float32."""
    import numpy as np
    from gguf import GGMLQuantizationType, dequantize

    kind = GGMLQuantizationType(file.tensors[name].kind)
    data = file.data(name)
    if data.ndim > 1:
        data = data[start:stop]
    if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        data = data.view(np.float32 if kind is GGMLQuantizationType.F32 else np.float16)
    rows = np.array(dequantize(data, kind), dtype=np.float32, order="C")
    file.release(name)
    return rows
