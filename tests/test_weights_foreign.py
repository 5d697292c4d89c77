"""Adapters as other tools write them: the same keys in other words, other folders, and what cannot be folded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file, save_file  # noqa: E402
from support.folding import folded_tensor, folded_tensors, make_adapter, untied_copy  # noqa: E402

from edgetune.errors import AdapterError  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402
from edgetune.weights.stream import open_folded  # noqa: E402
from edgetune.weights.whole_model import load_adapted  # noqa: E402

PREFIX = "base_model.model."
CONFIGS = {
    "lora": lambda: peft.LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"], modules_to_save=["lm_head"]),
    "dora": lambda: peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj"], use_dora=True),
    "ia3": lambda: peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "tokens": lambda: peft.LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[3, 5]),
}
SPELLINGS: dict[str, Callable[[str], str]] = {
    "torch.compile": lambda key: key.replace(PREFIX, f"{PREFIX}_orig_mod."),
    "torch.compile around PEFT": lambda key: f"_orig_mod.{key}",
    "compiled layers": lambda key: key.replace(".layers.1.", ".layers.1._orig_mod."),
    "FSDP": lambda key: key.replace(".self_attn.", "._fsdp_wrapped_module.self_attn."),
    "checkpointed layers": lambda key: key.replace(".self_attn.", "._checkpoint_wrapped_module.self_attn."),
    "DDP": lambda key: f"module.{key}",
    "no prefix": lambda key: key.removeprefix(PREFIX),
    "half of the prefix": lambda key: key.replace(PREFIX, "base_model."),
    "a doubled prefix": lambda key: PREFIX + key,
    "the model without its head": lambda key: key.replace(f"{PREFIX}model.", PREFIX),
    "a doubled model": lambda key: key.replace(f"{PREFIX}model.", f"{PREFIX}model.model."),
}


@pytest.fixture(scope="module")
def base(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untied_copy(tiny_llama, tmp_path_factory.mktemp("base") / "base")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return make_adapter(base, tmp_path / "adapter", peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))


def rename(adapter: Path, spell: Callable[[str], str]) -> None:
    weights = adapter / "adapter_model.safetensors"
    renamed = {spell(key): tensor for key, tensor in load_file(weights).items()}
    assert renamed.keys() != load_file(weights).keys()
    save_file(renamed, weights)


def assert_same_fold(adapter: Path, change: Callable[[], None]) -> None:
    before = dict(folded_tensors(resolve_source(str(adapter))))
    change()
    after = dict(folded_tensors(resolve_source(str(adapter))))
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("config", CONFIGS)
def test_keys_in_other_words_fold_to_the_same_weights(config: str, spelling: str, base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "adapter", CONFIGS[config]())
    assert_same_fold(adapter, lambda: rename(adapter, SPELLINGS[spelling]))


@pytest.mark.parametrize("spelling", ["torch.compile", "no prefix", "the model without its head"])
def test_an_adapter_with_keys_in_other_words_is_judged_and_verified_as_it_was_trained(
    spelling: str, base: Path, tmp_path: Path
) -> None:
    adapter = make_adapter(base, tmp_path / "adapter", CONFIGS["lora"]())

    def logits():
        with torch.no_grad():
            return load_adapted(resolve_source(str(adapter)), dtype=torch.float32)(torch.tensor([[3, 5, 8]])).logits

    expected = logits()
    rename(adapter, SPELLINGS[spelling])
    assert torch.equal(logits(), expected)


@pytest.mark.parametrize("name", ["default", "policy"])
@pytest.mark.parametrize("config", CONFIGS)
def test_a_state_that_was_saved_with_the_adapters_name_in_its_keys_folds_to_the_same_weights(
    config: str, name: str, base: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    if (config, name) == ("ia3", "policy"):
        pytest.skip("where LoRA and its kin have a name is known, where the other methods have one is not")
    adapter = make_adapter(base, tmp_path / "adapter", CONFIGS[config]())
    live = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter, adapter_name=name)
    trained = ("lora_", "ia3_", "modules_to_save", "trainable_tokens_delta")
    state = {key: tensor for key, tensor in live.state_dict().items() if any(word in key for word in trained)}
    assert all(f".{name}" in key for key in state)
    assert_same_fold(
        adapter, lambda: save_file({k: t.clone() for k, t in state.items()}, adapter / "adapter_model.safetensors")
    )


def test_two_adapters_in_one_file_are_refused_with_both_keys(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    other = {key.replace(".weight", ".other.weight"): tensor.clone() for key, tensor in tensors.items()}
    save_file({**tensors, **other}, weights)
    with pytest.raises(
        AdapterError, match=r"q_proj\.lora_A\.other\.weight and .*q_proj\.lora_A\.weight.*more than one"
    ):
        open_folded(resolve_source(str(adapter)))


def test_a_key_of_a_module_that_the_base_lacks_is_still_refused(adapter: Path) -> None:
    rename(adapter, lambda key: key.replace("layers.1.", "layers.7."))
    with pytest.raises(AdapterError, match=r"has no module for base_model\.model\.model\.layers\.7"):
        open_folded(resolve_source(str(adapter)))


def test_the_folder_above_several_adapters_names_them(base: Path, tmp_path: Path) -> None:
    for name in ("default", "reference"):
        make_adapter(base, tmp_path / "out" / name, peft.LoraConfig(r=4, target_modules=["q_proj"]))
    with pytest.raises(
        AdapterError, match=r"is no adapter, and has adapters in default, reference; give .*out/default"
    ):
        resolve_source(str(tmp_path / "out"))


def test_an_adapter_of_mlx_is_refused_with_the_way_to_fold_it(tmp_path: Path) -> None:
    settings = {"fine_tune_type": "lora", "model": "mlx-community/some-model", "lora_parameters": {"rank": 8}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    save_file({"model.layers.0.self_attn.q_proj.lora_a": torch.zeros(4, 8)}, tmp_path / "adapters.safetensors")
    with pytest.raises(AdapterError, match=r"MLX's format.*mlx_lm\.fuse"):
        resolve_source(str(tmp_path))


def test_alora_is_sent_to_adapter_only(base: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], alora_invocation_tokens=[5, 9], task_type="CAUSAL_LM")
    adapter = make_adapter(base, tmp_path / "adapter", config)
    with pytest.raises(AdapterError, match=r"is an aLoRA.*--adapter-only"):
        open_folded(resolve_source(str(adapter)))


def test_biases_of_lora_are_folded_where_the_base_has_some_and_refused_by_name_where_not(
    base: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    folds = make_adapter(base, tmp_path / "folds", peft.LoraConfig(r=4, target_modules=["q_proj"], lora_bias=True))
    live = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folds)
    expected = live.merge_and_unload().state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in folded_tensors(resolve_source(str(folds))))
    config = peft.LoraConfig(r=4, target_modules=["up_proj"], lora_bias=True)
    refused = make_adapter(base, tmp_path / "refused", config)
    with pytest.raises(AdapterError, match=r"lora_bias, and model\.layers\.0\.mlp\.up_proj of its base has no bias"):
        open_folded(resolve_source(str(refused)))


def test_an_adapter_that_changes_nothing_is_said(base: Path, tmp_path: Path, capsys) -> None:
    from transformers import AutoModelForCausalLM

    config = peft.LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"])
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(
        tmp_path / "untrained", save_embedding_layers=False
    )
    open_folded(resolve_source(str(tmp_path / "untrained")))
    assert "does not change the base" in capsys.readouterr().err
    make_adapter(base, tmp_path / "trained", config)
    open_folded(resolve_source(str(tmp_path / "trained")))
    assert "does not change the base" not in capsys.readouterr().err


def test_experts_that_were_trained_as_parameters_are_merged_by_peft_itself(tmp_path: Path, capsys) -> None:
    from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

    sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    torch.manual_seed(0)
    config = MixtralConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, num_local_experts=4)
    MixtralForCausalLM(config).save_pretrained(tmp_path / "base")
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    lora = peft.LoraConfig(r=4, target_modules=["q_proj"], target_parameters=parameters)
    adapter = make_adapter(tmp_path / "base", tmp_path / "adapter", lora)
    folded = open_folded(resolve_source(str(adapter)))
    assert "whole model in memory" in capsys.readouterr().err
    assert len(folded.tensors) == len(load_file(tmp_path / "base" / "model.safetensors"))
    q_proj = "model.layers.1.self_attn.q_proj.weight"
    ids = torch.arange(96)[None]
    merged = AutoModelForCausalLM.from_pretrained(folded.source.base.folder)
    assert torch.equal(folded_tensor(folded, q_proj), merged.get_parameter(q_proj))
    with torch.no_grad():
        live = load_adapted(resolve_source(str(adapter)), dtype=torch.float32)(ids).logits
        assert (merged(ids).logits - live).abs().max() < 1e-5
        assert (AutoModelForCausalLM.from_pretrained(tmp_path / "base")(ids).logits - live).abs().max() > 0.01


def test_a_whole_merge_that_would_change_a_tied_weight_twice_is_refused(base: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_pretrained(base)
    config.tie_word_embeddings = True
    LlamaForCausalLM(config).save_pretrained(tmp_path / "tied")
    lora = peft.LoraConfig(r=4, target_modules=["lm_head"], target_parameters=["q_proj.weight"])
    adapter = make_adapter(tmp_path / "tied", tmp_path / "adapter", lora)
    with pytest.raises(AdapterError, match="with tied embeddings, and PEFT would change both"):
        open_folded(resolve_source(str(adapter)))
