"""Folding one module at a time gives PEFT's whole-model merge, bit for bit, and refuses what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file, save_file  # noqa: E402
from support.folding import folded_tensor, folded_tensors, make_adapter, untied_copy  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM  # noqa: E402

from edgetune.errors import AdapterError, ModelError, NumericalError  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402
from edgetune.weights.stream import open_folded  # noqa: E402

QKVO = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]

METHODS = {
    "lora": lambda: peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"),
    "rslora": lambda: peft.LoraConfig(r=8, lora_alpha=16, use_rslora=True, target_modules=QKVO),
    "dora": lambda: peft.LoraConfig(r=4, use_dora=True, target_modules=[*QKVO, "down_proj"]),
    "rank and alpha patterns": lambda: peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=QKVO,
        rank_pattern={"^model.layers.1.self_attn.q_proj": 16, "v_proj": 2},
        alpha_pattern={"layers.0.self_attn.k_proj": 32},
    ),
    "regex, one layer": lambda: peft.LoraConfig(r=4, target_modules=r".*\.1\..*(q|up)_proj"),
    "layers_to_transform": lambda: peft.LoraConfig(r=4, target_modules=QKVO, layers_to_transform=[1]),
    "exclude_modules": lambda: peft.LoraConfig(
        r=4, target_modules=QKVO, exclude_modules=["model.layers.0.self_attn.q_proj"]
    ),
    "ia3": lambda: peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "ia3 six": lambda: peft.IA3Config(
        target_modules=["q_proj", "k_proj", "o_proj", *MLP], feedforward_modules=["down_proj"]
    ),
    "adalora": lambda: peft.AdaLoraConfig(init_r=6, target_r=4, total_step=10, target_modules=QKVO),
    "adalora, ranks cut": lambda: peft.AdaLoraConfig(
        init_r=6,
        target_r=4,
        total_step=10,
        target_modules=QKVO,
        rank_pattern={
            f"model.layers.{layer}.self_attn.{name}.lora_E": [
                name != "k_proj" and rank != place + layer for rank in range(6)
            ]
            for layer in range(2)
            for place, name in enumerate(QKVO)
        },
    ),
    "loha": lambda: peft.LoHaConfig(r=4, target_modules=QKVO),
    "lokr": lambda: peft.LoKrConfig(r=4, target_modules=QKVO),
    "vera": lambda: peft.VeraConfig(r=16, target_modules=["q_proj", "up_proj", "down_proj"]),
    "vera without its projections": lambda: peft.VeraConfig(
        r=16, target_modules=["q_proj", "up_proj", "down_proj"], save_projection=False
    ),
    "hira": lambda: peft.HiraConfig(r=8, target_modules=QKVO),
    "shira": lambda: peft.ShiraConfig(r=8, target_modules=QKVO),
    "fourierft": lambda: peft.FourierFTConfig(n_frequency=50, target_modules=QKVO),
    "oft": lambda: peft.OFTConfig(oft_block_size=32, target_modules=QKVO),
    "embedding": lambda: peft.LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"]),
    "output layer": lambda: peft.LoraConfig(r=4, target_modules=["lm_head", "q_proj"]),
    "modules_to_save": lambda: peft.LoraConfig(r=4, target_modules=QKVO, modules_to_save=["lm_head", "embed_tokens"]),
    "trained norms": lambda: peft.LoraConfig(r=4, target_modules=QKVO, modules_to_save=["input_layernorm"]),
    "trained token rows": lambda: peft.LoraConfig(r=4, target_modules=QKVO, trainable_token_indices=[3, 5, 8]),
}


def whole_model(base: Path, adapter: Path, dtype=torch.float32):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    return peft.PeftModel.from_pretrained(model, adapter)


@pytest.fixture(scope="module")
def untied(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untied_copy(tiny_llama, tmp_path_factory.mktemp("untied") / "base")


@pytest.fixture(scope="module")
def short_16_bit(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untied_copy(tiny_llama, tmp_path_factory.mktemp("short") / "base", torch.bfloat16)


@pytest.mark.parametrize("method", METHODS)
def test_folding_gives_the_weights_of_pefts_whole_model_merge(method: str, untied: Path, tmp_path: Path) -> None:
    adapter = make_adapter(untied, tmp_path / "adapter", METHODS[method]())
    expected = whole_model(untied, adapter).merge_and_unload().state_dict()
    folded = dict(folded_tensors(resolve_source(str(adapter)), rows=100))
    assert folded.keys() == expected.keys()
    different = [name for name, tensor in folded.items() if not torch.equal(tensor, expected[name])]
    assert not different
    base = load_file(untied / "model.safetensors")
    assert any(not torch.equal(tensor, base[name]) for name, tensor in folded.items())


@pytest.mark.parametrize("method", METHODS)
def test_a_16_bit_base_gets_the_bits_of_merge_and_unload(method: str, short_16_bit: Path, tmp_path: Path) -> None:
    adapter = make_adapter(short_16_bit, tmp_path / "adapter", METHODS[method](), dtype=torch.bfloat16)
    expected = whole_model(short_16_bit, adapter, torch.bfloat16).merge_and_unload().state_dict()
    for name, tensor in folded_tensors(resolve_source(str(adapter)), rows=100):
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, expected[name].to(torch.bfloat16)), name


def test_lora_is_added_in_float32_and_rounded_once(short_16_bit: Path, tmp_path: Path) -> None:
    adapter = make_adapter(short_16_bit, tmp_path / "adapter", METHODS["lora"](), dtype=torch.bfloat16)
    base, lora = load_file(short_16_bit / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    name = "model.layers.1.mlp.up_proj"
    a, b = (lora[f"base_model.model.{name}.lora_{factor}.weight"].float() for factor in "AB")
    exact = base[f"{name}.weight"].float() + b @ a * 2
    folded = folded_tensor(open_folded(resolve_source(str(adapter))), f"{name}.weight")
    assert torch.equal(folded, exact.to(torch.bfloat16))
    twice = base[f"{name}.weight"] + (b @ a * 2).to(torch.bfloat16)
    assert (folded != twice).float().mean() > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_folding_happens_in_the_stored_type_of_the_base(dtype, tiny_llama: Path, tmp_path: Path) -> None:
    base = untied_copy(tiny_llama, tmp_path / "base", dtype)
    config = peft.LoraConfig(r=8, target_modules="all-linear", bias="lora_only")
    adapter = make_adapter(base, tmp_path / "adapter", config, dtype=dtype)
    expected = whole_model(base, adapter, dtype).merge_and_unload().state_dict()
    for name, tensor in folded_tensors(resolve_source(str(adapter))):
        assert tensor.dtype == dtype
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("method", ["embedding", "output layer", "modules_to_save", "trained token rows"])
def test_a_tied_base_gives_the_logits_of_the_unmerged_adapter(method: str, tiny_llama: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_llama, tmp_path / "adapter", METHODS[method]())
    folded = open_folded(resolve_source(str(adapter)))
    config = LlamaConfig(**folded.config.settings)
    merged = LlamaForCausalLM(config)
    merged.load_state_dict({name: folded_tensor(folded, name) for name in folded.tensors}, strict=False)
    merged.tie_weights()
    ids = torch.tensor([[3, 5, 8, 200, 17, 4]])
    with torch.no_grad():
        expected = whole_model(tiny_llama, adapter)(ids).logits
        assert (merged.eval()(ids).logits - expected).abs().max() < 1e-4
    assert folded.config.ties_embeddings is (method == "trained token rows")


def test_an_added_vocabulary_is_merged_when_its_embeddings_were_saved(tiny_llama: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    rows = model.config.vocab_size + 3
    model.resize_token_embeddings(rows)
    adapted = peft.get_peft_model(model, METHODS["rslora"]())
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    folded = open_folded(resolve_source(str(tmp_path / "adapter")))
    assert folded.config.get("vocab_size") == rows
    assert folded.config.ties_embeddings
    assert torch.equal(folded_tensor(folded, "model.embed_tokens.weight"), model.get_input_embeddings().weight)


def edit_json(file: Path, **changes) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture
def lora(untied: Path, tmp_path: Path) -> Path:
    return make_adapter(untied, tmp_path / "lora", METHODS["rslora"]())


def smaller(base: Path, out: Path, **changes) -> Path:
    config = LlamaConfig.from_pretrained(base)
    for key, value in changes.items():
        setattr(config, key, value)
    LlamaForCausalLM(config).save_pretrained(out)
    return out


def test_an_adapter_of_a_wider_base_is_refused_with_both_shapes(lora: Path, untied: Path, tmp_path: Path) -> None:
    other = smaller(untied, tmp_path / "other", hidden_size=128, head_dim=32)
    with pytest.raises(AdapterError, match=r"k_proj.*\[8, 256\].*\[8, 128\]"):
        list(folded_tensors(resolve_source(str(lora), base=str(other))))


def test_an_adapter_of_a_deeper_base_is_refused_by_module_name(lora: Path, untied: Path, tmp_path: Path) -> None:
    other = smaller(untied, tmp_path / "other", num_hidden_layers=1)
    with pytest.raises(AdapterError, match=r"model\.layers\.1\.self_attn"):
        open_folded(resolve_source(str(lora), base=str(other)))


def test_an_adapter_of_a_shallower_base_is_refused(lora: Path, untied: Path, tmp_path: Path) -> None:
    other = smaller(untied, tmp_path / "other", num_hidden_layers=3)
    with pytest.raises(AdapterError, match=r"targets model\.layers\.2\.self_attn"):
        open_folded(resolve_source(str(lora), base=str(other)))


def test_a_saved_embedding_of_another_width_is_refused(untied: Path, tmp_path: Path) -> None:
    adapter = make_adapter(untied, tmp_path / "adapter", METHODS["modules_to_save"]())
    tensors = load_file(adapter / "adapter_model.safetensors")
    saved = {key: tensor for key, tensor in tensors.items() if "lora_" not in key}
    save_file(saved, adapter / "adapter_model.safetensors")
    edit_json(adapter / "adapter_config.json", target_modules=["nothing"])
    other = smaller(untied, tmp_path / "other", hidden_size=128, head_dim=32)
    with pytest.raises(AdapterError, match=r"lm_head.weight has the shape \[320, 256\].*\[320, 128\]"):
        open_folded(resolve_source(str(adapter), base=str(other)))


def test_an_adapter_that_lost_half_of_a_module_is_refused(lora: Path) -> None:
    tensors = load_file(lora / "adapter_model.safetensors")
    key = next(key for key in tensors if "lora_B" in key)
    del tensors[key]
    save_file(tensors, lora / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="lora_B"):
        list(folded_tensors(resolve_source(str(lora))))


def test_adapter_tensors_that_its_configuration_does_not_target_are_refused(lora: Path) -> None:
    edit_json(lora / "adapter_config.json", target_modules=["k_proj", "v_proj", "o_proj"])
    with pytest.raises(AdapterError, match="q_proj"):
        list(folded_tensors(resolve_source(str(lora))))


def test_an_adapter_of_a_classifier_head_is_refused_by_name(lora: Path) -> None:
    tensors = load_file(lora / "adapter_model.safetensors")
    save_file({**tensors, "base_model.model.score.weight": torch.ones(3, 256)}, lora / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=r"score\.weight"):
        open_folded(resolve_source(str(lora)))


def test_prompt_tuning_is_refused_with_a_way_out(tiny_llama: Path, tmp_path: Path) -> None:
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_llama), config)
    model.save_pretrained(tmp_path / "prompt")
    with pytest.raises(AdapterError, match=r"PROMPT_TUNING.*method lora"):
        open_folded(resolve_source(str(tmp_path / "prompt"), base=str(tiny_llama)))


def test_a_diverged_adapter_is_refused_naming_the_tensor(lora: Path) -> None:
    tensors = load_file(lora / "adapter_model.safetensors")
    key = next(key for key in tensors if "layers.1" in key and "lora_B" in key)
    tensors[key][0, 0] = float("nan")
    save_file(tensors, lora / "adapter_model.safetensors")
    with pytest.raises(NumericalError, match=r"model\.layers\.1"):
        list(folded_tensors(resolve_source(str(lora))))


def test_an_overflow_of_the_stored_type_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    base = untied_copy(tiny_llama, tmp_path / "base", torch.float16)
    adapter = make_adapter(base, tmp_path / "adapter", METHODS["lora"](), dtype=torch.float16, scale=1e4)
    with pytest.raises(NumericalError):
        list(folded_tensors(resolve_source(str(adapter))))


def test_a_truncated_adapter_is_refused_naming_the_file(lora: Path) -> None:
    weights = lora / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises((AdapterError, ModelError), match=r"adapter_model\.safetensors"):
        open_folded(resolve_source(str(lora)))
