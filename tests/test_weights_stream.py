"""The folded model by rows: which tensors there are, what they cost, and what is said when they cannot be right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file, save_file  # noqa: E402
from support.folding import folded_tensor, folded_tensors, make_adapter, untied_copy  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from edgetune.errors import AdapterError, ModelError, NumericalError  # noqa: E402
from edgetune.models.safetensors_file import SafetensorsFile  # noqa: E402
from edgetune.weights.merge import transformers_config  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402
from edgetune.weights.stream import open_folded  # noqa: E402


@pytest.fixture(scope="module")
def base(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untied_copy(tiny_llama, tmp_path_factory.mktemp("base") / "base", torch.bfloat16)


def test_a_base_without_an_adapter_is_read_without_torch(base: Path, run_python) -> None:
    program = f"""
import sys
from edgetune.weights.source import resolve_source
from edgetune.weights.stream import open_folded
folded = open_folded(resolve_source({str(base)!r}))
for name, info in folded.tensors.items():
    folded.rows(name, 0, info.shape[0])
    folded.release(name, 0, info.shape[0])
print([name for name in ("torch", "transformers", "peft") if name in sys.modules])
"""
    assert run_python(program) == "[]"


def test_rows_of_an_untouched_tensor_are_the_file_itself(base: Path) -> None:
    folded = open_folded(resolve_source(str(base)))
    assert folded.folded_modules == 0
    for name, tensor in load_file(base / "model.safetensors").items():
        assert not folded.touches(name)
        rows = folded.rows(name, 1, 3)
        assert not rows.flags.owndata
        assert np.array_equal(rows, tensor[1:3].view(torch.uint16).numpy())
        assert folded.tensors[name].dtype == "BF16"


def test_the_configuration_is_the_one_that_is_true_of_the_folded_model(base: Path, tmp_path: Path) -> None:
    config = open_folded(resolve_source(str(base))).config
    assert (config.get("vocab_size"), config.ties_embeddings, config.get("dtype")) == (320, False, "bfloat16")


def test_a_module_that_is_folded_whole_is_folded_once_and_forgotten_when_it_is_let_go(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgetune.weights.peft_module import PeftFolder

    config = peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[])
    adapter = make_adapter(base, tmp_path / "adapter", config)
    calls = []
    fold = PeftFolder.fold

    def counted(*given):
        calls.append(given)
        return fold(*given)

    monkeypatch.setattr(PeftFolder, "fold", counted)
    folded = open_folded(resolve_source(str(adapter)))
    name = "model.layers.0.self_attn.k_proj.weight"
    rows = folded.tensors[name].shape[0]
    for start in range(0, rows, 32):
        folded.rows(name, start, start + 32)
    folded.rows("model.layers.0.self_attn.k_proj.bias", 0, rows)
    assert len(calls) == 1
    for start in range(0, rows, 32):
        folded.release(name, start, start + 32)
    folded.rows(name, 0, 32)
    assert len(calls) == 2


def test_a_diverged_adapter_of_any_method_is_blamed_and_a_broken_base_too(base: Path, tmp_path: Path) -> None:
    config = peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[])
    adapter = make_adapter(base, tmp_path / "adapter", config, dtype=torch.bfloat16)
    name = "model.layers.1.self_attn.k_proj.weight"
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((base / "config.json").read_text())
    weights = load_file(base / "model.safetensors")
    weights[name][0, 0] = float("nan")
    save_file(weights, broken / "model.safetensors")
    with pytest.raises(NumericalError, match=r"k_proj\.weight of the base has NaN"):
        open_folded(resolve_source(str(adapter), base=str(broken))).load(name)
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors["base_model.model.model.layers.1.self_attn.k_proj.ia3_l"][0] = float("inf")
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(NumericalError, match=r"folding the adapter into .*layers\.1.*k_proj"):
        open_folded(resolve_source(str(adapter))).load(name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_value_that_is_not_finite_is_found_and_no_other(dtype, value: float, base: Path, tmp_path: Path) -> None:
    largest = torch.finfo(dtype).max
    weights = {"model.norm.weight": torch.tensor([largest, -largest, 0.0, -0.0, torch.finfo(dtype).tiny], dtype=dtype)}
    (tmp_path / "config.json").write_text((base / "config.json").read_text())
    save_file(weights, tmp_path / "model.safetensors")
    open_folded(resolve_source(str(tmp_path))).load("model.norm.weight")
    weights["model.norm.weight"][3] = value
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(NumericalError, match=r"model\.norm\.weight of the base"):
        open_folded(resolve_source(str(tmp_path))).load("model.norm.weight")


def test_a_head_that_repeats_the_tied_embedding_is_left_out_and_one_that_differs_is_kept(
    tiny_llama: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text((tiny_llama / "config.json").read_text())
    weights = load_file(tiny_llama / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors")
    folded = open_folded(resolve_source(str(tmp_path)))
    assert "lm_head.weight" not in folded.tensors
    assert folded.config.ties_embeddings
    weights["lm_head.weight"][-1, -1] += 1
    save_file(weights, tmp_path / "model.safetensors")
    folded = open_folded(resolve_source(str(tmp_path)))
    assert "lm_head.weight" in folded.tensors
    assert not folded.config.ties_embeddings


def test_a_tied_model_without_its_embedding_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny_llama / "config.json").read_text())
    save_file({"model.norm.weight": torch.ones(256)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"has no model\.embed_tokens\.weight"):
        open_folded(resolve_source(str(tmp_path)))


def t5() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    return T5ForConditionalGeneration(T5Config(**sizes))


def encoder(kind, config_kind, **sizes):
    torch.manual_seed(0)
    return kind(config_kind(vocab_size=96, **sizes))


BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
FAMILIES = {
    "t5": t5,
    "bert": lambda: encoder(BertModel, BertConfig, **BERT),
    "bert classifier": lambda: encoder(BertForSequenceClassification, BertConfig, **BERT),
    "bert masked": lambda: encoder(BertForMaskedLM, BertConfig, **BERT),
    "distilbert masked": lambda: encoder(DistilBertForMaskedLM, DistilBertConfig, **DISTILBERT),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_encoders_and_encoder_decoders_are_read_as_they_are_stored(family: str, tmp_path: Path) -> None:
    FAMILIES[family]().save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    folded = open_folded(resolve_source(str(tmp_path)))
    assert folded.tensors.keys() == stored.keys()
    assert all(torch.equal(folded_tensor(folded, name), tensor) for name, tensor in stored.items())
    assert folded.config.get("vocab_size") == 96
    assert folded.config.ties_embeddings


def test_a_family_without_a_record_ties_its_embeddings_as_transformers_does(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=32, n_layer=1, n_head=2, n_positions=32)).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    settings = json.loads(config.read_text())
    del settings["tie_word_embeddings"]  # as in openai-community/gpt2
    config.write_text(json.dumps(settings))
    folded = open_folded(resolve_source(str(tmp_path)))
    assert folded.config.ties_embeddings
    assert transformers_config(folded).tie_word_embeddings


def test_an_encoder_decoder_with_an_output_layer_of_its_own_keeps_it(tmp_path: Path) -> None:
    t5().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "tie_word_embeddings": False}))
    stored = load_file(tmp_path / "model.safetensors")
    save_file({**stored, "lm_head.weight": torch.randn(96, 32)}, tmp_path / "model.safetensors")
    folded = open_folded(resolve_source(str(tmp_path)))
    assert folded.tensors.keys() == {*stored, "lm_head.weight"}
    assert not folded.config.ties_embeddings


def test_names_under_which_a_checkpoint_repeats_t5s_embedding_are_left_out(tmp_path: Path) -> None:
    model = t5()
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    repeated = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    copies = {name: stored["shared.weight"].clone() for name in repeated}
    save_file({**stored, **copies}, tmp_path / "model.safetensors")
    assert open_folded(resolve_source(str(tmp_path))).tensors.keys() == stored.keys()


def test_an_adapter_of_an_encoder_decoder_gives_pefts_weights(tmp_path: Path) -> None:
    model = t5()
    model.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=4, target_modules=["q", "v", "wo"], task_type="SEQ_2_SEQ_LM")
    adapter = make_adapter(tmp_path / "base", tmp_path / "adapter", config, model=model)
    fresh = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base")
    expected = peft.PeftModel.from_pretrained(fresh, adapter).merge_and_unload().state_dict()
    folded = dict(folded_tensors(resolve_source(str(adapter), base=str(tmp_path / "base")), rows=10))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in folded.items())
    assert not torch.equal(
        folded["encoder.block.0.layer.0.SelfAttention.q.weight"],
        load_file(tmp_path / "base" / "model.safetensors")["encoder.block.0.layer.0.SelfAttention.q.weight"],
    )


def test_a_family_that_is_not_known_is_asked_of_transformers(tmp_path: Path) -> None:
    from transformers import OlmoConfig, OlmoForCausalLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    OlmoForCausalLM(OlmoConfig(vocab_size=96, tie_word_embeddings=True, **sizes)).save_pretrained(tmp_path)
    folded = open_folded(resolve_source(str(tmp_path)))
    assert folded.config.ties_embeddings
    assert "lm_head.weight" not in folded.tensors


def test_trained_rows_of_tokens_that_the_base_does_not_have_are_refused(base: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[3, 319])
    adapter = make_adapter(base, tmp_path / "adapter", config)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    indices = {"embed_tokens": [3, 321]}
    (adapter / "adapter_config.json").write_text(json.dumps({**settings, "trainable_token_indices": indices}))
    with pytest.raises(AdapterError, match=r"tokens up to 321, and neither .* model\.embed_tokens\.weight from 320 on"):
        open_folded(resolve_source(str(adapter)))


def test_a_saved_embedding_without_its_output_layer_is_refused(base: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    adapter = make_adapter(base, tmp_path / "adapter", config, dtype=torch.bfloat16)
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    key = next(key for key in tensors if "embed_tokens" in key)
    save_file({**tensors, key: torch.zeros(323, 256)}, weights)
    assert SafetensorsFile(weights).tensors[key].shape == (323, 256)
    with pytest.raises(AdapterError, match=r"different numbers of rows \(\[320, 323\]\).*modules_to_save"):
        open_folded(resolve_source(str(adapter)))


@pytest.mark.parametrize(
    "config",
    [
        peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    ],
)
def test_methods_without_weights_to_fold_are_refused_with_what_to_do_instead(
    config, base: Path, tmp_path: Path
) -> None:
    config.save_pretrained(tmp_path)
    save_file({"prompt_embeddings": torch.zeros(4, 256)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=r"cannot be folded in.*use the adapter with PEFT, or train one with method"):
        open_folded(resolve_source(str(tmp_path), base=str(base)))
