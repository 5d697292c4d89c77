"""AdamW for weights of 16 bits, which keeps a copy of them and its own state in 32.

An update is often too small to change a bfloat16 weight. Here it is added to a copy in float32, and the weight is that
copy, rounded (Micikevicius et al. 2018, section 3.1, https://arxiv.org/abs/1710.03740).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim._functional import adamw


class PreciseAdamW(torch.optim.AdamW):
    """torch's AdamW, computed on float32 copies of the parameters and of their gradients."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """One update. A closure, which would compute the loss again, is not supported."""
        assert closure is None
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self._state_of(parameter) for parameter in trained]
            beta1, beta2 = group["betas"]
            adamw(
                [state["weight"] for state in states],
                [parameter.grad.float() for parameter in trained],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
            for parameter, state in zip(trained, states, strict=True):
                parameter.copy_(state["weight"])

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            weight = parameter.detach().float().clone()
            state |= {"weight": weight, "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
            state["step"] = torch.tensor(0.0)
        return state

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a saved state as it is. torch would round it to the parameters' 16 bits."""
        super().load_state_dict(state_dict)
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            for parameter, number in zip(group["params"], saved["params"], strict=True):
                if number in state_dict["state"]:
                    self.state[parameter] = {
                        name: value.to(parameter.device if name != "step" else "cpu", copy=True)
                        for name, value in state_dict["state"][number].items()
                    }
