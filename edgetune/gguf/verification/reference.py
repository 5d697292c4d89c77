"""The Transformers model that a GGUF file is compared with: the base with its unmerged adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgetune.weights.source import ModelSource
from edgetune.weights.whole_model import load_adapted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgetune.gguf.verification.divergence import LogProbabilities


def open_reference(source: ModelSource) -> LogProbabilities:
    """Load the model in float32 and return its prediction function. Raises ModelError, AdapterError."""
    import torch

    model = load_adapted(source, dtype=torch.float32)

    @torch.no_grad()
    def log_probabilities(ids: Sequence[int]) -> NDArray[np.float32]:
        logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0]
        return logits.float().log_softmax(-1).cpu().numpy()

    return log_probabilities
