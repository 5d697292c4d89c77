"""Which backend trains a recipe, and what is said about it. Here Unsloth is not imported; tests/unsloth does that."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgetune.errors import MissingComponent, RecipeError
from edgetune.recipe.schema import Recipe
from edgetune.training.backends import choose_backend, unsloth

LORA = {"type": "lora", "rank": 4, "alpha": 8}


def recipe(
    folder: Path, *, backend: str = "auto", base: Any = None, method: Any = None, task: str = "chat", **train: Any
) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "task": task,
            "base": {"model": str(folder), "dtype": "float32", **(base or {})},
            "data": {
                "train": [{"source": "rows.jsonl", "format": "text-label" if task == "classify" else "messages"}],
                **({"labels": ["up", "down"], "prompt": "{text}"} if task == "classify" else {}),
            },
            "method": method or LORA,
            "train": {"backend": backend, **train},
        }
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model folder as far as the choice looks at it."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    return tmp_path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsloth as if it were installed and could be imported."""
    monkeypatch.setattr(unsloth, "find_spec", lambda name: object())
    monkeypatch.setattr(unsloth, "_import_problem", lambda: None)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsloth, "find_spec", lambda name: None)


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.usefixtures("installed", "with_gpu")
def test_auto_takes_unsloth_on_a_gpu_and_says_so(base: Path, capsys: pytest.CaptureFixture[str]):
    assert choose_backend(recipe(base), "llama").name == "unsloth"
    assert capsys.readouterr().err.startswith("backend: unsloth, which is installed")


@pytest.mark.usefixtures("installed")
def test_auto_takes_transformers_without_a_gpu_and_says_why(base: Path, capsys: pytest.CaptureFixture[str]):
    assert choose_backend(recipe(base), "llama").name == "transformers"
    said = capsys.readouterr().err
    assert said.startswith("backend: transformers; not unsloth: without a GPU")
    assert said.count("\n") == 1


@pytest.mark.usefixtures("missing", "with_gpu")
def test_auto_takes_transformers_where_unsloth_is_not_installed(base: Path, capsys: pytest.CaptureFixture[str]):
    assert choose_backend(recipe(base), "llama").name == "transformers"
    assert "not unsloth: it is not installed" in capsys.readouterr().err


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An Unsloth that is installed and whose import fails."""
    import edgetune.training.trainer  # noqa: F401  Transformers' trainer could not be imported with a GPU made up

    for name in ("unsloth", "unsloth_zoo"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "__init__.py").write_text("raise ImportError('Triton is too old\\nupgrade it')")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path / "broken")
    unsloth._import_problem.cache_clear()
    yield
    unsloth._import_problem.cache_clear()


@pytest.mark.usefixtures("broken", "with_gpu")
def test_auto_takes_transformers_where_unsloth_cannot_be_imported(base: Path, capsys: pytest.CaptureFixture[str]):
    assert choose_backend(recipe(base), "llama").name == "transformers"
    assert "not unsloth: it cannot be imported (Triton is too old)" in capsys.readouterr().err


@pytest.mark.usefixtures("broken")
def test_asking_for_an_unsloth_that_cannot_be_imported_says_why(base: Path):
    with pytest.raises(MissingComponent, match=r"it cannot be imported \(Triton is too old\); run: pip install"):
        choose_backend(recipe(base, backend="unsloth"), "llama")


@pytest.mark.usefixtures("installed", "with_gpu")
def test_auto_takes_transformers_for_what_unsloth_cannot_do(base: Path, capsys: pytest.CaptureFixture[str]):
    asked = recipe(base, method={"type": "ia3"})
    assert choose_backend(asked, "llama").name == "transformers"
    assert "not unsloth: method.type is ia3" in capsys.readouterr().err


@pytest.mark.usefixtures("installed", "with_gpu")
def test_transformers_is_taken_when_asked_for_without_a_word(base: Path, capsys: pytest.CaptureFixture[str]):
    assert choose_backend(recipe(base, backend="transformers"), "llama").name == "transformers"
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("missing")
def test_asking_for_unsloth_where_it_is_missing_gives_the_command_that_installs_it(base: Path):
    with pytest.raises(MissingComponent, match="it is not installed; run: pip install --no-deps unsloth==") as caught:
        choose_backend(recipe(base, backend="unsloth"), "llama")
    assert caught.value.exit_code == 5


@pytest.mark.usefixtures("installed")
def test_asking_for_unsloth_is_obeyed_without_a_gpu_too(base: Path):
    assert choose_backend(recipe(base, backend="unsloth"), "llama").name == "unsloth"


CANNOT: dict[str, dict[str, Any]] = {
    "base.quantize is int8": {"base": {"quantize": "int8"}},
    "base.double_quantization is false": {"base": {"quantize": "nf4", "double_quantization": False}},
    "base.dtype is float16": {"base": {"dtype": "float16"}},
    "base.head is classification": {"base": {"head": "classification"}, "task": "classify"},
    "method.type is full": {"method": {"type": "full"}},
    "method.type is prompt": {"method": {"type": "prompt"}},
    "method.dora is true": {"method": {**LORA, "dora": True}},
    "method.bias is all": {"method": {**LORA, "bias": "all"}},
    "method.init is pissa": {"method": {**LORA, "init": "pissa"}},
    "method.targets names lm_head": {"method": {**LORA, "targets": ["q_proj", "lm_head"]}},
    "train.compile is true": {"compile": True},
    "train.packing is true": {"packing": True},
    "train.adapter_dtype is bfloat16": {"adapter_dtype": "bfloat16"},
}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("reason", CANNOT)
def test_asking_for_unsloth_refuses_what_it_cannot_do_naming_the_field(base: Path, reason: str):
    asked = recipe(base, backend="unsloth", **CANNOT[reason])
    with pytest.raises(RecipeError, match="tiny: train.backend is unsloth, which cannot do this: " + reason):
        choose_backend(asked, "llama")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("family", ["t5", "gpt2", "granite"])
def test_asking_for_unsloth_refuses_families_that_it_has_no_layers_for(base: Path, family: str):
    with pytest.raises(RecipeError, match=f"base.model is of the family {family}; it has layers for gemma"):
        choose_backend(recipe(base, backend="unsloth"), family)


@pytest.mark.usefixtures("installed")
def test_asking_for_unsloth_refuses_a_gguf(tmp_path: Path):
    (tmp_path / "base.gguf").touch()
    with pytest.raises(RecipeError, match=r"base\.model is a GGUF; it reads safetensors"):
        choose_backend(recipe(tmp_path / "base.gguf", backend="unsloth"), "llama")


@pytest.mark.usefixtures("installed")
def test_asking_for_unsloth_refuses_several_processes(base: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="--processes is above 1"):
        choose_backend(recipe(base, backend="unsloth"), "llama")


def test_the_command_names_the_field_and_leaves_no_run_behind(
    tmp_path: Path, tiny_llama: Path, missing: None, edgetune_command
):
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": "up"}\n{"text": "b", "label": "down"}')
    asked = recipe(tiny_llama, backend="unsloth", task="classify")
    file = tmp_path / "tiny.yaml"
    file.write_text(asked.model_dump_json(exclude_defaults=True), encoding="utf-8")
    result = edgetune_command("train", file, "--out", tmp_path / "run")
    assert result.exit_code == 5
    assert "train.backend is unsloth, and it is not installed; run: pip install" in result.stderr
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_layers_that_a_backend_has_replaced_are_not_given_packed_rows(monkeypatch: pytest.MonkeyPatch):
    """On a GPU Unsloth puts a forward of its own on the class, which would ignore who may see whom."""
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

    from edgetune.training.objectives.packing import has_transformers_layers

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes))
    assert has_transformers_layers(model)

    def forward(self: LlamaModel, input_ids: Any = None, **kwargs: Any) -> None:
        """As Unsloth's."""

    monkeypatch.setattr(LlamaModel, "forward", forward)
    assert not has_transformers_layers(model)


def test_the_version_that_is_tested_is_the_one_that_the_docs_and_the_message_install():
    root = Path(__file__).resolve().parents[1]
    assert unsloth.INSTALL in (root / "docs" / "backends.md").read_text(encoding="utf-8")
    wanted = unsloth.INSTALL.removeprefix("pip install --no-deps ")
    assert f"UNSLOTH        = {wanted}\n" in (root / "Makefile").read_text(encoding="utf-8")
