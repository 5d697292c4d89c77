"""AdaLoRA: its schedule and its term of the loss are PEFT's, driven by real steps, and a training can go on later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from support.tiny_adapted import build, inputs, logits_of, loss_of, section  # noqa: E402

from edgetune.errors import RecipeError  # noqa: E402
from edgetune.models.adapters import add_adapter, save_adapter  # noqa: E402
from edgetune.models.methods.adalora import (  # noqa: E402
    after_update,
    orthogonality,
    restore_schedule,
    save_schedule,
    whole_ranks,
)

STEPS = 12
FIELDS = {"init_rank": 4, "target_rank": 2, "targets": ["q_proj", "v_proj"]}


def adapt(steps: int | None = STEPS, **fields: Any) -> Any:
    return add_adapter(build("llama"), section("adalora", **{**FIELDS, **fields}), base="x", total_steps=steps, seed=1)


def optimizer_of(model: Any) -> Any:
    return torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)


def train(model: Any, optimizer: Any, steps: range) -> None:
    """As the training loop does: the model is not given labels, so the term is added here."""
    model.train()
    batch = inputs("llama")
    targets = batch["input_ids"][:, 1:].reshape(-1)
    for step in steps:
        logits = model(**batch).logits[:, :-1].flatten(0, 1)
        term = orthogonality(model)
        assert term is not None
        (torch.nn.functional.cross_entropy(logits, targets) + term).backward()
        optimizer.step()
        after_update(model, step)
        optimizer.zero_grad()


def ranks(model: Any) -> int:
    """Singular values that are not cut."""
    values = [weight for name, weight in model.named_parameters() if ".lora_E." in name]
    return sum(int((value != 0).sum()) for value in values)


def test_the_term_of_the_loss_is_the_one_that_peft_adds_where_it_computes_the_loss() -> None:
    adapted = adapt(orth_reg_weight=0.3)
    inside = loss_of(adapted, "llama")
    adapted.disable_adapter_layers()
    adapted.enable_adapter_layers()
    plain = loss_of(adapted.get_base_model(), "llama")
    ours = orthogonality(adapted)
    assert float(inside - plain) == pytest.approx(float(ours), rel=1e-5)
    ours.backward()
    gradients = {n: w.grad.clone() for n, w in adapted.named_parameters() if w.grad is not None}
    adapted.zero_grad()
    (loss_of(adapted, "llama") - loss_of(adapted.get_base_model(), "llama")).backward()
    for name, weight in adapted.named_parameters():
        if name in gradients:
            assert torch.allclose(weight.grad, gradients[name], atol=1e-5), name


def test_other_methods_have_no_such_term_and_no_schedule(tmp_path: Path) -> None:
    lora = add_adapter(build("llama"), section("lora"), base="x")
    assert orthogonality(lora) is None
    after_update(lora, 1)
    save_schedule(lora, tmp_path)
    restore_schedule(lora, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_schedule_is_a_tenth_and_three_tenths_of_the_real_steps() -> None:
    config = adapt(1000).active_peft_config
    assert (config.total_step, config.tinit, config.tfinal, config.deltaT) == (1000, 100, 300, 1)
    config = adapt(1000, tinit=5, tfinal=7, delta_t=3).active_peft_config
    assert (config.tinit, config.tfinal, config.deltaT) == (5, 7, 3)


def test_ranks_are_cut_from_the_first_budget_to_the_last() -> None:
    adapted = adapt(tinit=2, tfinal=3)
    optimizer, seen = optimizer_of(adapted), []
    for step in range(1, STEPS + 1):
        train(adapted, optimizer, range(step, step + 1))
        seen.append(ranks(adapted))
    modules = 4
    assert seen[:2] == [4 * modules] * 2
    assert seen == sorted(seen, reverse=True)
    assert seen[STEPS - 3 - 1 :] == [2 * modules] * 4


def test_without_a_last_phase_the_last_step_still_cuts_to_the_target() -> None:
    adapted = adapt(6, tinit=1, tfinal=0)
    train(adapted, optimizer_of(adapted), range(1, 7))
    assert ranks(adapted) == 2 * 4
    assert adapted.active_peft_config.rank_pattern


@pytest.mark.parametrize(("fields", "steps"), [({"tinit": 6, "tfinal": 6}, 12), ({"tinit": 12}, 12)])
def test_a_schedule_without_room_for_cutting_is_refused(fields: dict[str, int], steps: int) -> None:
    with pytest.raises(RecipeError, match=r"leave none of the 12 updates to cut ranks; lower them, or train longer"):
        adapt(steps, **fields)


def test_a_target_that_is_no_cut_is_refused_by_the_schema() -> None:
    with pytest.raises(ValidationError, match="target_rank must be below init_rank, which is 4"):
        section("adalora", init_rank=4, target_rank=4)


def test_the_number_of_steps_must_be_known() -> None:
    with pytest.raises(RecipeError, match="needs the number of updates"):
        adapt(None)


def test_the_finished_adapter_holds_the_ranks_that_are_left(tmp_path: Path) -> None:
    adapted = adapt()
    train(adapted, optimizer_of(adapted), range(1, STEPS + 1))
    save_adapter(adapted, tmp_path)
    again = peft.PeftModel.from_pretrained(build("llama"), tmp_path)
    assert torch.allclose(logits_of(again, "llama"), logits_of(adapted, "llama"), atol=1e-6)
    sizes = [weight.numel() for name, weight in again.named_parameters() if ".lora_E." in name]
    assert sum(sizes) == 2 * 4


@pytest.mark.parametrize("stop", [1, 5, 9, 11])
def test_a_training_taken_up_again_is_the_uninterrupted_one(stop: int, tmp_path: Path) -> None:
    whole = adapt()
    train(whole, optimizer_of(whole), range(1, STEPS + 1))

    first = adapt()
    optimizer = optimizer_of(first)
    train(first, optimizer, range(1, stop + 1))
    with whole_ranks(first):
        first.save_pretrained(tmp_path, save_embedding_layers=False)
    save_schedule(first, tmp_path)

    second = adapt()
    second.load_adapter(tmp_path, "default", is_trainable=True)
    restore_schedule(second, tmp_path)
    resumed = optimizer_of(second)
    resumed.load_state_dict(optimizer.state_dict())
    train(second, resumed, range(stop + 1, STEPS + 1))
    for (name, weight), (_, expected) in zip(second.named_parameters(), whole.named_parameters(), strict=True):
        assert torch.equal(weight, expected), name
    assert second.active_peft_config.rank_pattern == whole.active_peft_config.rank_pattern
