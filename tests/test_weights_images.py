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

from safetensors.torch import load_file, save_file  # noqa: E402
from support.folding import make_adapter  # noqa: E402

from edgetune.errors import ModelError  # noqa: E402
from edgetune.gguf.tensor_plan import ExportOptions, plan_tensors  # noqa: E402
from edgetune.gguf.write import write_tensors  # noqa: E402
from edgetune.models.gguf_file import GgufFile  # noqa: E402
from edgetune.weights.merge import merge  # noqa: E402
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
        text = transformers.Gemma3TextConfig(**_TEXT, sliding_window=64, query_pre_attn_scalar=_TEXT["head_dim"])
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


def add_tokenizer(folder: Path) -> None:
    """A tokenizer of words, which is all that a merge needs."""
    import tokenizers

    words = {f"w{number}": number for number in range(90)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="w0", pad_token="w0", eos_token="w1"
    ).save_pretrained(folder)


def test_a_merged_folder_has_the_bases_names_and_the_live_adapters_logits(base: Path, tmp_path: Path) -> None:
    add_tokenizer(base)
    (base / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    adapter = make_adapter(base, tmp_path / "adapter", lora(target_modules="all-linear"), model=load(base))
    live = logits(peft.PeftModel.from_pretrained(load(base), adapter))
    merge(resolve_source(str(adapter)), tmp_path / "merged")
    assert torch.allclose(logits(load(tmp_path / "merged")), live, atol=1e-5)
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert merged.keys() == load_file(base / "model.safetensors").keys()
    peft.PeftModel.from_pretrained(load(base), adapter).merge_and_unload().save_pretrained(tmp_path / "pefts")
    for name, tensor in load_file(tmp_path / "pefts" / "model.safetensors").items():
        torch.testing.assert_close(merged[name], tensor, atol=1e-6, rtol=1e-5)
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert "vocab_size" not in config
    assert config["text_config"]["vocab_size"] == _TEXT["vocab_size"]
    assert (tmp_path / "merged" / "preprocessor_config.json").is_file()


@pytest.mark.parametrize("spelled", ["language_model.model.", "model."])
def test_an_adapter_of_an_older_transformers_or_of_the_text_model_alone_folds_the_same(
    spelled: str, base: Path, tmp_path: Path
) -> None:
    targets = ["q_proj", "down_proj"] if spelled == "model." else r".*language_model.*\.(q_proj|down_proj)"
    only_text = r".*language_model.*\.(q_proj|down_proj)"
    adapter = make_adapter(base, tmp_path / "adapter", lora(target_modules=only_text), model=load(base))
    expected = {name: open_folded(resolve_source(str(adapter))).load(name) for name in _CHANGED}
    weights = adapter / "adapter_model.safetensors"
    tensors = {key.replace("model.language_model.", spelled): value for key, value in load_file(weights).items()}
    assert all(f"base_model.model.{spelled}layers." in key for key in tensors)
    save_file(tensors, weights, {"format": "pt"})
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**settings, "target_modules": targets}))
    folded = open_folded(resolve_source(str(adapter)))
    assert folded.folded_modules == 4
    assert all(np.array_equal(folded.load(name), rows) for name, rows in expected.items())


def test_a_vocabulary_that_was_enlarged_is_the_text_models(base: Path, tmp_path: Path) -> None:
    add_tokenizer(base)

    def enlarged() -> Any:
        model = load(base)
        model.resize_token_embeddings(104, mean_resizing=False)
        return model

    config = lora(target_modules=r".*language_model.*\.q_proj", modules_to_save=["embed_tokens", "lm_head"])
    adapter = make_adapter(base, tmp_path / "adapter", config, model=enlarged())
    live = logits(peft.PeftModel.from_pretrained(enlarged(), adapter))
    merge(resolve_source(str(adapter)), tmp_path / "merged")
    found = load(tmp_path / "merged")
    assert found.config.text_config.vocab_size == live.shape[-1] == 104
    assert torch.allclose(logits(found), live, atol=1e-5)
    assert gguf_tensors(adapter, tmp_path / "model.gguf")["token_embd.weight"].shape == (104, _TEXT["hidden_size"])


_CHANGED = [
    f"model.language_model.layers.{layer}.{module}.weight"
    for layer in (0, 1)
    for module in ("self_attn.q_proj", "mlp.down_proj")
]


def test_names_of_the_vision_tower_as_the_hub_has_them_are_the_same_modules(tmp_path: Path) -> None:
    build("gemma3").save_pretrained(tmp_path / "base")
    add_tokenizer(tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    hub = {name.replace("vision_tower.", "vision_tower.vision_model."): t for name, t in load_file(file).items()}
    save_file(hub, file, {"format": "pt"})
    model = load(tmp_path / "base")
    adapter = make_adapter(tmp_path / "base", tmp_path / "adapter", lora(target_modules="all-linear"), model=model)
    merge(resolve_source(str(adapter)), tmp_path / "merged")
    expected = peft.PeftModel.from_pretrained(load(tmp_path / "base"), adapter).merge_and_unload().state_dict()
    assert load_file(tmp_path / "merged" / "model.safetensors").keys() == hub.keys()
    for name, tensor in load(tmp_path / "merged").state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5)


def test_what_an_adapter_learned_of_images_is_told_to_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build("gemma3").save_pretrained(tmp_path / "base")
    targets = r".*(vision_tower|language_model).*\.v_proj"
    adapter = make_adapter(
        tmp_path / "base", tmp_path / "adapter", lora(target_modules=targets), model=load(tmp_path / "base")
    )
    plan_tensors(resolve_source(str(adapter)), ExportOptions(preset="f32"))
    said = " ".join(capsys.readouterr().err.split())
    assert "also changes 1 tensors that are not in the file" in said
    assert "the file contains only the text model" in said


def test_methods_that_peft_folds_itself_fold_in_the_text_part_too(base: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, use_dora=True, target_modules=r".*language_model.*\.(q_proj|down_proj)")
    adapter = make_adapter(base, tmp_path / "adapter", config, model=load(base))
    merged = peft.PeftModel.from_pretrained(load(base), adapter).merge_and_unload().state_dict()
    folded = open_folded(resolve_source(str(adapter)))
    for name in folded.tensors:
        torch.testing.assert_close(torch.from_numpy(folded.load(name).copy()), merged[name], atol=1e-6, rtol=1e-5)


def test_a_network_stored_without_its_prefix_is_folded_and_merged_under_its_own_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    transformers.GPT2Model(config).save_pretrained(tmp_path / "base")
    add_tokenizer(tmp_path / "base")
    stored = load_file(tmp_path / "base" / "model.safetensors").keys()
    assert "h.0.attn.c_attn.weight" in stored
    lora_config = peft.LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True)
    adapter = make_adapter(tmp_path / "base", tmp_path / "adapter", lora_config)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    live = logits(peft.PeftModel.from_pretrained(model, adapter))
    merge(resolve_source(str(adapter)), tmp_path / "merged")
    assert load_file(tmp_path / "merged" / "model.safetensors").keys() == stored
    found = logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    assert torch.allclose(found, live, atol=1e-5)
