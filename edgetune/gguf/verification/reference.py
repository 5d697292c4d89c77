"""The Transformers model that a GGUF file is measured against: the base with its adapter beside it, not folded in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgetune.errors import AdapterError
from edgetune.models.load import load_model, quiet_libraries
from edgetune.weights.source import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgetune.gguf.verification.divergence import LogProbabilities


def open_reference(source: Source) -> LogProbabilities:
    """Load the model in float32 and return what gives its predictions. Raises ModelError, AdapterError."""
    import torch

    quiet_libraries()
    model = load_model(source.base, dtype=torch.float32)
    if source.adapter is not None:
        from peft import PeftModel

        try:
            model = PeftModel.from_pretrained(model, source.adapter.folder)
        except (RuntimeError, ValueError, KeyError) as problem:
            reason = str(problem).strip().split("\n")[0]
            raise AdapterError(f"does not fit its base ({reason})", where=source.adapter.folder) from problem
    model.eval()

    @torch.no_grad()
    def log_probabilities(ids: Sequence[int]) -> NDArray[np.float32]:
        logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0]
        return logits.float().log_softmax(-1).cpu().numpy()

    return log_probabilities
