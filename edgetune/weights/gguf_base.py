"""A GGUF as base model: its tensors under Hugging Face's names, dequantized to float32 one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.errors import ModelError
from edgetune.models.locate import ModelFiles
from edgetune.weights.base import TensorInfo
from edgetune.weights.gguf_file import GgufFile

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


class GgufBase:
    """In Hugging Face's row order: Transformers' own processors undo the permutations, as its `gguf_file=` does.

    Raises ModelError for a damaged file, a tensor that Transformers has no name for, or rope scaling, which it does not
    read from a GGUF.
    """

    def __init__(self, files: ModelFiles, config: PretrainedConfig) -> None:
        import torch
        from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

        assert files.gguf is not None
        self._file = GgufFile(files.gguf)
        architecture = str(self._file.metadata.get("general.architecture"))
        self._refuse_rope_scaling(architecture)
        self._processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=config.to_dict())
        self._stored = self._stored_names(architecture, config)
        self.tensors = {
            name: TensorInfo(name, self._file.tensors[stored].shape, torch.float32)
            for name, stored in self._stored.items()
        }

    def load(self, name: str) -> torch.Tensor:
        """One tensor in float32."""
        import numpy as np
        import torch
        from gguf import GGMLQuantizationType, dequantize

        stored = self._stored[name]
        kind = GGMLQuantizationType(self._file.tensors[stored].kind)
        data = self._file.data(stored)
        if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
            data = data.view(np.float32 if kind is GGMLQuantizationType.F32 else np.float16)
        weights = self._processor.process(weights=dequantize(data, kind), name=stored).weights
        return torch.from_numpy(np.array(weights, dtype=np.float32, order="C"))

    def _stored_names(self, architecture: str, config: Any) -> dict[str, str]:
        """Hugging Face's name -> the file's, in the file's order."""
        import torch
        from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            expected = AutoModelForCausalLM.from_config(config).state_dict()
        arch = next((arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture), None)
        if arch is None:
            raise ModelError(f"its architecture {architecture} is unknown", where=self._file.path)
        table = get_tensor_name_map(arch, config.num_hidden_layers)
        suffixes = (".weight", ".bias")
        known = {table.get_name(self._processor.preprocess_name(name), suffixes): name for name in expected}
        strays = [name for name in self._file.tensors if name not in known]
        if strays:
            raise ModelError(f"Transformers has no place for the tensor {strays[0]}", where=self._file.path)
        lost = [name for name in expected if table.get_name(name, suffixes) not in self._file.tensors]
        if [name for name in lost if name != "lm_head.weight"]:
            raise ModelError(f"lacks the tensor {lost[0]}", where=self._file.path, remedy="copy or download it again")
        return {known[name]: name for name in self._file.tensors}

    def _refuse_rope_scaling(self, architecture: str) -> None:
        by_key = self._file.metadata.get(f"{architecture}.rope.scaling.type", "none") != "none"
        if by_key or any(name.startswith("rope_") for name in self._file.tensors):
            raise ModelError(
                "this GGUF stretches its context by rope scaling, which Transformers does not read from a GGUF",
                where=self._file.path,
                remedy="use the Hugging Face model that it was made from (--base MODEL)",
            )
