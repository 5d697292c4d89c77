"""A training stops at the first update that is not finite, and says what the cause may be."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgetune.errors import NumericalError
from edgetune.training.finite import OVERFLOWS_ENDURED, FiniteGuard


def make_guard(dtype: torch.dtype = torch.float32, *, scales_gradients: bool = False) -> FiniteGuard:
    return FiniteGuard(nn.Linear(2, 2).to(dtype), learning_rate=5e-3, scales_gradients=scales_gradients)


def check(guard: FiniteGuard, *losses: float, norm: float = 1.0, trained: bool = True) -> None:
    for loss in losses:
        guard.note(torch.tensor(loss))
    guard.check(norm, step=7, trained=trained)


def test_a_healthy_update_passes():
    guard = make_guard()
    check(guard, 2.0, 3.0)
    check(guard, 1e30)  # large, but a number


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_loss_of_an_update_that_is_not_finite_stops_it(value: float):
    with pytest.raises(NumericalError, match=r"the loss is (nan|inf) at step 7; training stopped before that step"):
        check(make_guard(), 2.0, value, 3.0)


def test_the_losses_of_one_update_do_not_count_for_the_next():
    guard = make_guard()
    with pytest.raises(NumericalError):
        check(guard, math.nan)
    check(guard, 1.0)


def test_a_gradient_that_is_not_finite_stops_it():
    with pytest.raises(NumericalError, match="the gradient's norm is inf at step 7"):
        check(make_guard(), 2.0, norm=math.inf)


def test_after_some_updates_the_learning_rate_is_the_likely_cause():
    with pytest.raises(NumericalError, match=r"lower train.learning_rate \(now 0.005\) or add train.warmup_steps$"):
        check(make_guard(), math.nan)


def test_before_any_update_it_cannot_be_the_learning_rate():
    with pytest.raises(
        NumericalError, match=r"the weights of base.model are damaged or overflow in bfloat16"
    ) as caught:
        check(make_guard(torch.bfloat16), math.nan, trained=False)
    assert "train.learning_rate" not in str(caught.value)


def test_float16_overflows():
    with pytest.raises(NumericalError, match=r"set base.dtype to bfloat16 or float32, or lower train.learning_rate"):
        check(make_guard(torch.float16), math.inf)


def test_scaled_gradients_may_overflow_for_a_while():
    guard = make_guard(torch.float16, scales_gradients=True)
    for _ in range(OVERFLOWS_ENDURED):
        check(guard, 2.0, norm=math.inf)
    check(guard, 2.0)  # a scale that fits was found, and the count begins anew
    for _ in range(OVERFLOWS_ENDURED):
        check(guard, 2.0, norm=math.nan)
    with pytest.raises(NumericalError, match="the gradient's norm is nan"):
        check(guard, 2.0, norm=math.nan)


def test_scaled_gradients_excuse_no_loss():
    with pytest.raises(NumericalError, match="the loss is nan"):
        check(make_guard(torch.float16, scales_gradients=True), math.nan)
