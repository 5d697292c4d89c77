"""Models that read images too: their text part is folded and exported, whatever its tensors are called on the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from folding import make_adapter  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from edgetune.errors import ModelError  # noqa: E402
from edgetune.gguf.tensor_plan import ExportOptions, plan_tensors  # noqa: E402
from edgetune.gguf.write import write_tensors  # noqa: E402
from edgetune.models.gguf_file import GgufFile  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402
from edgetune.weights.stream import open_folded  # noqa: E402

_TEXT: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_IDS = torch.tensor([[2, 17, 33, 5, 80, 41]])


def build(name: str) -> Any:
    """A model of two random text layers and one of images, as Transformers makes it."""
    torch.manual_seed(0)
    if name == "gemma3":
        text = transformers.Gemma3TextConfig(**_TEXT, sliding_window=64, query_pre_attn_scalar=32)
        vision = transformers.SiglipVisionConfig(**_VISION)
        config = transformers.Gemma3Config(
            text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=95
        )
        model = transformers.Gemma3ForConditionalGeneration(config)
    else:
        text = transformers.MistralConfig(**_TEXT, sliding_window=None)
        vision = transformers.PixtralVisionConfig(**_VISION)
        config = transformers.Mistral3Config(
            text_config=text, vision_config=vision, image_token_index=95, tie_word_embeddings=name == "mistral3-tied"
        )
        model = transformers.Mistral3ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=_IDS).logits


@pytest.fixture(params=["gemma3", "mistral3", "mistral3-tied"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def base(family: str, tmp_path: Path) -> Path:
    build(family).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def lora(**settings: Any) -> Any:
    return peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], **settings})


def text_of(folder: Path) -> Any:
    """The text model of a folder as a model of its own, in Transformers."""
    whole = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    alone = {"Gemma3Config": "Gemma3ForCausalLM", "Mistral3Config": "MistralForCausalLM"}[type(whole.config).__name__]
    text = whole.config.text_config
    text.tie_word_embeddings = whole.config.tie_word_embeddings
    model = getattr(transformers, alone)(text)
    state = {
        name.replace("model.language_model.", "model."): tensor
        for name, tensor in whole.state_dict().items()
        if name.startswith(("model.language_model.", "lm_head."))
    }
    model.load_state_dict(state)
    return model.eval()


def gguf_tensors(folder: Path, file: Path, **options: Any) -> dict[str, np.ndarray]:
    """Every tensor of the folder's export, as stored."""
    plan = plan_tensors(resolve_source(str(folder), **options), ExportOptions(preset="f32", outtype="f32"))
    write_tensors(plan, lambda _writer: None, file, threads=1)
    opened = GgufFile(file)
    return {name: opened.data(name).view(np.float32).copy() for name in opened.tensors}


def test_the_base_alone_is_exported_as_its_text_model_would_be(base: Path, tmp_path: Path) -> None:
    text_of(base).save_pretrained(tmp_path / "text")
    found = gguf_tensors(base, tmp_path / "whole.gguf")
    expected = gguf_tensors(tmp_path / "text", tmp_path / "text.gguf")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    said, wanted = GgufFile(tmp_path / "whole.gguf").metadata, GgufFile(tmp_path / "text.gguf").metadata
    assert said == wanted


def test_names_as_they_are_in_memory_are_read_the_same(base: Path, tmp_path: Path) -> None:
    before = gguf_tensors(base, tmp_path / "before.gguf")
    model = transformers.AutoModelForImageTextToText.from_pretrained(base)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    assert state.keys() != load_file(base / "model.safetensors").keys()
    save_file(state, base / "model.safetensors", {"format": "pt"})
    after = gguf_tensors(base, tmp_path / "after.gguf")
    assert after.keys() == before.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], r".*language_model.*\.(k_proj|up_proj)"])
def test_an_adapter_gives_its_live_logits_merged(targets: Any, base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "adapter", lora(target_modules=targets), model=load(base))
    live = logits(peft.PeftModel.from_pretrained(load(base), adapter))
    folded = open_folded(resolve_source(str(adapter)))
    model = load(base)
    state = {name: torch.from_numpy(folded.load(name).copy()) for name in folded.tensors}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [name for name in missing if name != "lm_head.weight"]
    model.tie_weights()
    assert torch.allclose(logits(model), live, atol=1e-5)
    assert not torch.allclose(live, logits(load(base)), atol=1e-2)


def load(folder: Path) -> Any:
    return transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


def test_an_adapters_export_is_that_of_the_merged_text_model(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "adapter", lora(), model=load(base))
    merged = peft.PeftModel.from_pretrained(load(base), adapter).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    found = gguf_tensors(adapter, tmp_path / "found.gguf")
    expected = gguf_tensors(tmp_path / "merged", tmp_path / "expected.gguf")
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)


def test_a_text_model_that_llama_cpp_does_not_run_as_a_known_family_is_refused(tmp_path: Path) -> None:
    build("mistral3").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["model_type"] = "ministral3"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"text model is a ministral3.*mistral only.*--converter"):
        plan_tensors(resolve_source(str(tmp_path)), ExportOptions(preset="f32"))
