"""The model that a method adapts, and its surroundings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgetune.errors import RecipeError
from edgetune.models.families import ModelKind, kind_of, task_type
from edgetune.models.locate import ModelFiles
from edgetune.models.targets import Targets, check_targets, default_targets

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

TextIds = Callable[[str], list[int]]
"""A text -> its token ids, without special tokens."""


@dataclass(frozen=True)
class AdaptedModel:
    """A model, and the parts of its training that methods need.

    `head` names the modules of a new classification head. `files` are those of the unquantized base.
    """

    model: PreTrainedModel
    head: tuple[str, ...] = ()
    total_steps: int | None = None
    text_ids: TextIds | None = None
    batches: Iterable[dict[str, Tensor]] | None = None
    files: ModelFiles | None = None

    @property
    def name(self) -> str:
        """The model's class, for errors."""
        return type(self.model).__name__

    @property
    def family(self) -> str:
        """Transformers' model_type."""
        return str(self.model.config.model_type)

    @property
    def kind(self) -> ModelKind:
        """Decoder, encoder or both."""
        return kind_of(self.family)

    @property
    def is_real(self) -> bool:
        """False for a model without values (on the meta device, or in torch's FakeTensorMode)."""
        from torch._subclasses.fake_tensor import FakeTensor

        weight = next(self.model.parameters())
        return not (weight.is_meta or isinstance(weight, FakeTensor))

    @property
    def common(self) -> dict[str, Any]:
        """The fields of every PEFT configuration: the task, and the head as modules that are trained whole."""
        from peft.utils.constants import SEQ_CLS_HEAD_NAMES

        # PEFT itself adds the names that it knows.
        unknown = [name for name in self.head if name not in SEQ_CLS_HEAD_NAMES]
        return {
            "task_type": task_type(self.kind, classifies=bool(self.head)),
            "modules_to_save": unknown or None,
        }

    def targets(self, wanted: Targets | None) -> Targets:
        """The recipe's targets, or the family's. Raises RecipeError for targets that the model lacks."""
        check_targets(self.model, wanted, self.head)
        return default_targets(self.family) if wanted is None else wanted

    def cannot(self, what: str, remedy: str | None = None) -> RecipeError:
        """The error for a method that does not work with this model."""
        return RecipeError(what, where=self.name, remedy=remedy)
