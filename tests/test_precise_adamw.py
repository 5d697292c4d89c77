"""AdamW of 16-bit weights: it is AdamW on float32 copies of them, also across a checkpoint."""

from __future__ import annotations

import io

import torch

from edgetune.training.precise_adamw import PreciseAdamW

SETTINGS = {"lr": 1e-4, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}


def gradients(steps: int) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(40, 3).bfloat16() for _ in range(steps)]


def take_steps(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, grads: list[torch.Tensor]) -> None:
    for gradient in grads:
        parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()


def test_its_copies_take_the_course_of_float32_weights():
    torch.manual_seed(0)
    narrow = torch.nn.Parameter(torch.randn(40, 3).bfloat16())
    wide = torch.nn.Parameter(narrow.detach().float())
    reference = torch.optim.AdamW([wide], **SETTINGS)
    take_steps(PreciseAdamW([narrow], **SETTINGS), narrow, gradients(30))
    take_steps(reference, wide, gradients(30))
    assert torch.equal(narrow, wide.bfloat16())


def test_updates_too_small_for_16_bits_add_up():
    narrow = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    take_steps(PreciseAdamW([narrow], lr=1e-4, weight_decay=0.0), narrow, [torch.ones(4)] * 100)
    torch.testing.assert_close(narrow.float(), torch.full((4,), 0.99), atol=2e-3, rtol=0)
    plain = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    take_steps(torch.optim.AdamW([plain], lr=1e-4, weight_decay=0.0), plain, [torch.ones(4)] * 100)
    assert torch.equal(plain, torch.ones_like(plain))


def test_a_saved_and_loaded_state_goes_on_exactly():
    torch.manual_seed(0)
    start = torch.randn(40, 3).bfloat16()
    whole, first = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    take_steps(PreciseAdamW([whole], **SETTINGS), whole, gradients(20))
    optimizer = PreciseAdamW([first], **SETTINGS)
    take_steps(optimizer, first, gradients(20)[:7])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    second = torch.nn.Parameter(first.detach().clone())
    resumed = PreciseAdamW([second], **SETTINGS)
    resumed.load_state_dict(torch.load(file))
    take_steps(resumed, second, gradients(20)[7:])
    assert torch.equal(second, whole)
