"""Stops a training at the first update whose loss or gradient is not finite, before it damages the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgetune.errors import NumericalError

OVERFLOWS_ENDURED = 20
"""Gradients of float16 are scaled by 65,536 at first and by half after each overflow, so the first updates of a healthy
run may overflow. After this many in a row no smaller scale is left."""


class FiniteGuard:
    """Checks every update, whether it is logged or not."""

    def __init__(self, model: nn.Module, *, learning_rate: float, scales_gradients: bool) -> None:
        self._model, self._learning_rate, self._scales_gradients = model, learning_rate, scales_gradients
        self._losses: list[Tensor] = []
        self._overflows = 0

    def note(self, loss: Tensor) -> None:
        """Remember the loss of one batch of the current update. It stays on its device until the update is checked."""
        self._losses.append(loss.detach())

    def check(self, grad_norm: Tensor | float, *, step: int, trained: bool) -> None:
        """Raise NumericalError when the loss or gradient of the next step, `step`, is not finite.

        `trained` says whether any step was taken before it.
        """
        loss, norm = float(torch.stack(self._losses).sum()), float(grad_norm)
        self._losses.clear()
        self._overflows = 0 if math.isfinite(norm) else self._overflows + 1
        endured = self._scales_gradients and self._overflows <= OVERFLOWS_ENDURED
        if math.isfinite(loss) and (math.isfinite(norm) or endured):
            return
        what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient's norm is {norm}"
        raise NumericalError(
            f"the {what} at step {step}; training stopped before that step, and earlier checkpoints are kept",
            remedy=self._remedy(trained=trained),
        )

    def _remedy(self, *, trained: bool) -> str:
        dtypes = {parameter.dtype for parameter in self._model.parameters() if parameter.is_floating_point()}
        gentler = f"lower train.learning_rate (now {self._learning_rate:g}) or add train.warmup_steps"
        if torch.float16 in dtypes or self._scales_gradients:
            other = f", or {gentler}" if trained else ""
            return f"float16 overflows beyond 65,504: set base.dtype to bfloat16 or float32{other}"
        if trained:
            return gentler
        types = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        return (
            "no step was taken yet, so the learning rate is not the cause: the weights of base.model are damaged or "
            f"overflow in {types}; download them again, or set base.dtype to float32"
        )
