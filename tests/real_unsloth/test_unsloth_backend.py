"""Training with the real Unsloth gives the numbers of plain Transformers. `make test-unsloth` runs this; see
docs/backends.md. Without a GPU it is Unsloth's CPU backend."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from edgetune.recipe.load import load_recipe
from edgetune.training.run import train
from edgetune.training.run_directory import RunDirectory
from edgetune.training.summary import Summary

pytestmark = pytest.mark.skipif(
    find_spec("unsloth_zoo") is None, reason="Unsloth is not installed in this environment (make test-unsloth)"
)

TEXTS = ["good", "bad news", "what a long and winding day", "fine by me", "never again", "so so", "yes", "no, thanks"]

Train = Callable[..., tuple[Summary, Path]]


@pytest.fixture
def run(tmp_path: Path, tiny_llama: Path) -> Train:
    """Trains the tiny Llama in float32 by plain SGD, four updates of two batches, with overrides."""
    rows = [{"text": text, "label": ("up", "down")[n % 2]} for n, text in enumerate(TEXTS)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    values = {
        "name": "tiny",
        "task": "classify",
        "base": {"model": str(tiny_llama), "dtype": "float32"},
        "data": {
            "train": [{"source": "rows.jsonl", "format": "text-label"}],
            "labels": ["up", "down"],
            "prompt": "Up or down? {text}",
        },
        "method": {"type": "lora", "rank": 4, "alpha": 8},
        "train": {
            "batch_size": 2,
            "accumulate": 2,
            "max_steps": 4,
            "learning_rate": 0.5,
            "optimizer": "sgd",
            "schedule": "constant",
        },
    }
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    made: list[Path] = []

    def work(backend: str, *overrides: str) -> tuple[Summary, Path]:
        folder = tmp_path / f"run-{len(made)}"
        made.append(folder)
        return train(load_recipe(str(file), [f"train.backend={backend}", *overrides]), folder), folder

    return work


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in RunDirectory(run).read_metrics() if "loss" in row]


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


VARIANTS = {
    "plain": (),
    "attention only": ("method.targets=[q_proj, v_proj]",),
    "rslora, ranks of their own": (
        "method.rslora=true",
        "method.rank_pattern={q_proj: 2}",
        "method.alpha_pattern={down_proj: 16}",
    ),
    "gradient checkpointing": ("train.gradient_checkpointing=true",),
    "nf4": ("base.quantize=nf4",),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_backends_give_the_same_loss_curve_and_adapter(run: Train, variant: str):
    plain, plain_run = run("transformers", *VARIANTS[variant])
    summary, unsloth_run = run("unsloth", *VARIANTS[variant])
    assert (plain.backend, summary.backend) == ("transformers", "unsloth")
    assert summary.trainable_parameters == plain.trainable_parameters
    assert summary.train_tokens == plain.train_tokens
    expected = losses(plain_run)
    assert losses(unsloth_run) == pytest.approx(expected, rel=1e-4)
    assert expected[-1] < 0.9 * expected[0], "nothing was learned, so that the curves could not differ"
    theirs, ours = adapter(unsloth_run), adapter(plain_run)
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-5)


def test_training_after_unsloth_was_imported_is_what_it_was_before(run: Train):
    """Unsloth rewrites Transformers' and TRL's trainers when it is imported; that must not outlive its loading."""
    from trl import SFTConfig

    from edgetune.training.trainer import LanguageModelTrainer

    before = losses(run("transformers", "train.optimizer=adamw_8bit")[1])
    run("unsloth")
    after = losses(run("transformers", "train.optimizer=adamw_8bit")[1])
    assert after == pytest.approx(before, rel=1e-6)
    for cls in (*LanguageModelTrainer.__mro__, *SFTConfig.__mro__):
        sources = {name: getattr(value, "__code__", None) for name, value in vars(cls).items()}
        changed = [name for name, code in sources.items() if code is not None and "unsloth" in code.co_filename]
        assert not changed, f"{cls.__name__} still has {', '.join(changed)} of Unsloth"


def test_unsloth_says_nothing_on_stdout(run: Train, capfd: pytest.CaptureFixture[str]):
    run("unsloth")
    assert capfd.readouterr().out == ""


def test_the_saved_adapter_is_one_that_peft_reads(run: Train, tiny_llama: Path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _, folder = run("unsloth")
    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(tiny_llama)
    ids = torch.tensor([[5, 6, 7]])
    plain = base(ids).logits
    adapted = PeftModel.from_pretrained(base, folder / "adapter")(ids).logits
    assert not torch.allclose(plain, adapted)


def test_a_module_that_is_not_there_is_refused(run: Train):
    from edgetune.errors import RecipeError

    with pytest.raises(RecipeError, match="nothing_proj"):
        run("unsloth", "method.targets=[q_proj, nothing_proj]")


def test_nf4_that_fails_is_refused_instead_of_trained_in_16_bits(run: Train, monkeypatch: pytest.MonkeyPatch):
    """Unsloth itself goes on without quantizing where bitsandbytes does not work."""
    from unsloth_zoo.cpu import loader

    from edgetune.errors import RecipeError

    monkeypatch.setattr(loader, "cpu_bnb_4bit_supported", lambda: False)
    with pytest.raises(RecipeError, match=r"base\.quantize is nf4, which unsloth cannot do for this base"):
        run("unsloth", "base.quantize=nf4")


def test_a_damaged_base_is_one_line(run: Train, tiny_llama: Path, tmp_path: Path):
    import shutil

    from edgetune.errors import ModelError

    damaged = Path(shutil.copytree(tiny_llama, tmp_path / "damaged"))
    (damaged / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be loaded by unsloth"):
        run("unsloth", f"base.model={damaged}")
