"""A model in torch with its adapter around it, not folded in: what training left, as Transformers and PEFT run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.errors import AdapterError
from edgetune.models.load import load_model, quiet_libraries
from edgetune.weights.source import Source

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def load_adapted(source: Source, **settings: Any) -> PreTrainedModel | PeftModel:
    """The base, loaded with the settings of `load_model`, and the adapter on it where there is one; ready to be asked.

    Raises ModelError, and AdapterError when the adapter does not fit its base.
    """
    quiet_libraries()
    model: PreTrainedModel | PeftModel = load_model(source.base, **settings)
    if source.adapter is not None:
        from peft import PeftModel

        try:
            model = PeftModel.from_pretrained(model, source.adapter.folder)
        except (RuntimeError, ValueError, KeyError) as problem:
            reason = str(problem).strip().split("\n")[0]
            raise AdapterError(f"does not fit its base ({reason})", where=source.adapter.folder) from problem
    return model.eval()
