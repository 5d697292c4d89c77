"""Chat formats taught to base models: new tokens, resized embeddings, trained rows, folded to the adapter's logits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file  # noqa: E402
from support.folding import folded_tensors  # noqa: E402
from transformers import (  # noqa: E402
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from edgetune.errors import AdapterError  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402
from edgetune.weights.stream import open_folded  # noqa: E402
from edgetune.weights.whole_model import load_adapted  # noqa: E402

ROWS = 96
SIZES = {"same": 96, "grown": 101, "padded": 128, "shrunk": 80}
"""Rows of the embedding that were trained on; shrunk is a base with more rows than its tokenizer has tokens."""
QV = ["q_proj", "v_proj"]


def lora(**settings: Any) -> Any:
    return peft.LoraConfig(r=4, lora_alpha=8, **{"target_modules": QV, **settings})


def new_tokens(rows: int) -> list[int]:
    """The last rows, the new ones where there are any, and one in the middle."""
    return [7, *range(rows - 5, rows)]


CONFIGS: dict[str, Callable[[int], Any]] = {
    "LoRA beside the embeddings": lambda rows: lora(),
    "both retrained": lambda rows: lora(modules_to_save=["embed_tokens", "lm_head"]),
    "both retrained as one": lambda rows: lora(modules_to_save=["embed_tokens", "lm_head"], ensure_weight_tying=True),
    "embedding retrained": lambda rows: lora(modules_to_save=["embed_tokens"]),
    "output layer retrained": lambda rows: lora(modules_to_save=["lm_head"]),
    "rows": lambda rows: lora(trainable_token_indices=new_tokens(rows)),
    "rows of the output layer": lambda rows: lora(trainable_token_indices={"lm_head": new_tokens(rows)}),
    "the same rows of both": lambda rows: lora(
        trainable_token_indices={"embed_tokens": new_tokens(rows), "lm_head": new_tokens(rows)}
    ),
    "other rows of each": lambda rows: lora(
        trainable_token_indices={"embed_tokens": new_tokens(rows), "lm_head": [3, rows - 1]}
    ),
    "rows as one": lambda rows: lora(trainable_token_indices=new_tokens(rows), ensure_weight_tying=True),
    "rows, output layer retrained": lambda rows: lora(
        trainable_token_indices={"embed_tokens": new_tokens(rows)}, modules_to_save=["lm_head"]
    ),
    "rows, LoRA on the output layer": lambda rows: lora(
        trainable_token_indices=new_tokens(rows), target_modules=[*QV, "lm_head"]
    ),
    "trainable tokens": lambda rows: peft.TrainableTokensConfig(token_indices=new_tokens(rows)),
    "trainable tokens of both": lambda rows: peft.TrainableTokensConfig(
        token_indices=new_tokens(rows), target_modules=["embed_tokens", "lm_head"]
    ),
    "LoRA on the embedding": lambda rows: lora(target_modules=[*QV, "embed_tokens"]),
    "LoRA on the output layer": lambda rows: lora(target_modules=[*QV, "lm_head"]),
    "LoRA on both": lambda rows: lora(target_modules=[*QV, "embed_tokens", "lm_head"]),
    "LoRA on both as one": lambda rows: lora(target_modules=[*QV, "embed_tokens", "lm_head"], ensure_weight_tying=True),
    "DoRA on both": lambda rows: lora(target_modules=[*QV, "embed_tokens", "lm_head"], use_dora=True),
    "LoHa on the output layer": lambda rows: peft.LoHaConfig(r=4, target_modules=[*QV, "lm_head"]),
}


@dataclass(frozen=True)
class Trained:
    """An adapter's folder, and what it makes of its base before it is merged: (rows, rows) logits after each token."""

    folder: Path
    logits: Any


@pytest.fixture(scope="module", params=["tied", "untied"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=ROWS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=request.param == "tied",
    )
    folder = tmp_path_factory.mktemp("bases") / request.param
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def logits_of(model: Any) -> Any:
    """After each single token of the vocabulary and the token before it."""
    ids = torch.arange(model.get_input_embeddings().weight.shape[0])
    with torch.no_grad():
        return model.eval()(torch.stack([ids.roll(1), ids], dim=1)).logits[:, -1]


def change_trained(adapted: Any) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)


def train(base: Path, folder: Path, rows: int, config: Any, **settings: Any) -> Trained:
    """As training does it: resize, wrap, change every trainable parameter, save."""
    model = LlamaForCausalLM.from_pretrained(base)
    torch.manual_seed(1)
    if rows != ROWS:
        model.resize_token_embeddings(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(model, config)
        change_trained(adapted)
        adapted.save_pretrained(folder, **settings)
    return Trained(folder, logits_of(adapted))


def folded_model(folder: Path, base: Path) -> Any:
    source = resolve_source(str(folder), base=str(base))
    model = LlamaForCausalLM(LlamaConfig(**open_folded(source).config.settings))
    missing = model.load_state_dict(dict(folded_tensors(source, rows=17)), strict=False).missing_keys
    assert missing in ([], ["lm_head.weight"] if model.config.tie_word_embeddings else [])
    model.tie_weights()
    return model


# With a target at only one of the two, PEFT saves the new rows of this one alone.
LOST = {
    *(
        ("untied", config, size)
        for config in ("trainable tokens", *(f"{kind} on the output layer" for kind in ("LoRA", "LoHa")))
        for size in ("grown", "padded")
    ),
    *(("untied", "LoRA on the embedding", size) for size in ("grown", "padded")),
    *((tied, "rows, LoRA on the output layer", "padded") for tied in ("tied", "untied")),
    ("tied", "rows, LoRA on the output layer", "shrunk"),
}
# PEFT saves these two and cannot compute with them.
IMPOSSIBLE = {("tied", "rows, output layer retrained"), ("tied", "trainable tokens of both")}


CASES = [
    *((config, size) for config in CONFIGS for size in ("grown", "shrunk")),
    *((config, "same") for config in CONFIGS if config.startswith(("LoRA on", "rows", "trainable"))),
    *((config, "padded") for config in ("both retrained", "rows", "LoRA on both", "rows, LoRA on the output layer")),
]


@pytest.mark.parametrize(("config", "size"), CASES)
def test_a_vocabulary_that_was_changed_and_trained_folds_to_the_logits_of_the_adapter(
    config: str, size: str, base: Path, tmp_path: Path
) -> None:
    if (base.name, config) in IMPOSSIBLE:
        pytest.skip("PEFT cannot compute with such an adapter")
    trained = train(base, tmp_path, SIZES[size], CONFIGS[config](SIZES[size]))
    if (base.name, config, size) in LOST:
        with pytest.raises(AdapterError, match=r"--base MODEL"):
            folded_model(tmp_path, base)
        return
    merged = folded_model(tmp_path, base)
    assert merged.config.vocab_size == SIZES[size]
    assert (logits_of(merged) - trained.logits).abs().max() < 1e-4


def test_new_tokens_whose_rows_were_all_trained_need_no_saved_embedding(base: Path, tmp_path: Path) -> None:
    """As PEFT saves it where the base's configuration cannot be found, offline for instance."""
    both = {"embed_tokens": list(range(ROWS, ROWS + 5)), "lm_head": list(range(ROWS, ROWS + 5))}
    trained = train(base, tmp_path, ROWS + 5, lora(trainable_token_indices=both), save_embedding_layers=False)
    assert not any("base_layer" in key for key in load_file(tmp_path / "adapter_model.safetensors"))
    assert (logits_of(folded_model(tmp_path, base)) - trained.logits).abs().max() < 1e-4


def test_new_tokens_of_which_some_were_not_trained_are_refused_with_the_way_out(base: Path, tmp_path: Path) -> None:
    some = lora(trainable_token_indices=[ROWS + 1, ROWS + 2])
    train(base, tmp_path, ROWS + 5, some, save_embedding_layers=False)
    with pytest.raises(AdapterError, match=rf"tokens up to {ROWS + 2}, and neither .* from {ROWS} on; .*--base MODEL"):
        folded_model(tmp_path, base)


@pytest.mark.parametrize("base", ["tied"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lora_on_both_halves_of_a_tied_16_bit_vocabulary_is_rounded_once(
    dtype: Any, base: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half"
    LlamaForCausalLM.from_pretrained(base, dtype=dtype).save_pretrained(half)
    train(half, tmp_path / "adapter", SIZES["grown"], CONFIGS["LoRA on the output layer"](0))
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    weight, a, b = (
        saved[f"base_model.model.lm_head.{part}.weight"].float() for part in ("base_layer", "lora_A", "lora_B")
    )
    folded = dict(folded_tensors(resolve_source(str(tmp_path / "adapter"), base=str(half)), rows=17))
    assert torch.equal(folded["lm_head.weight"], (weight.to(dtype).float() + b @ a * 2).to(dtype))
    assert torch.equal(folded["model.embed_tokens.weight"], weight.to(dtype))


@pytest.mark.parametrize("config", ["both retrained", "rows", "LoRA on both", "other rows of each"])
def test_the_adapter_that_a_file_is_verified_against_gets_a_base_of_its_size(
    config: str, base: Path, tmp_path: Path
) -> None:
    trained = train(base, tmp_path, SIZES["padded"], CONFIGS[config](SIZES["padded"]))
    live = load_adapted(resolve_source(str(tmp_path), base=str(base)), dtype=torch.float32)
    assert torch.equal(logits_of(live), trained.logits)


@pytest.mark.parametrize("trains_rows", [False, True])
def test_an_encoder_decoder_with_new_tokens_folds_to_the_logits_of_the_adapter(
    trains_rows: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    T5ForConditionalGeneration(T5Config(vocab_size=ROWS, **sizes)).save_pretrained(tmp_path / "base")
    model = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    model.resize_token_embeddings(ROWS + 5)
    rows = list(range(ROWS, ROWS + 5)) if trains_rows else None
    adapted = peft.get_peft_model(model, lora(target_modules=["q", "v"], trainable_token_indices=rows))
    change_trained(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    source = resolve_source(str(tmp_path / "adapter"), base=str(tmp_path / "base"))
    merged = T5ForConditionalGeneration(T5Config(**open_folded(source).config.settings))
    merged.load_state_dict(dict(folded_tensors(source)), strict=False)
    merged.tie_weights()
    ids = torch.arange(ROWS + 5)[None]
    with torch.no_grad():
        expected, found = (
            kind.eval()(input_ids=ids, decoder_input_ids=ids.flip(1)).logits for kind in (adapted, merged)
        )
    assert (found - expected).abs().max() < 1e-4


def test_a_classifier_whose_base_got_a_padding_token_folds_to_the_scores_of_the_adapter(
    base: Path, tmp_path: Path
) -> None:
    model = LlamaForSequenceClassification.from_pretrained(base, num_labels=3)
    model.resize_token_embeddings(ROWS + 1)
    model.config.pad_token_id = ROWS
    adapted = peft.get_peft_model(model, lora(task_type="SEQ_CLS"))
    change_trained(adapted)
    adapted.save_pretrained(tmp_path)
    source = resolve_source(str(tmp_path), base=str(base))
    config = LlamaConfig(**{**open_folded(source).config.settings, "pad_token_id": ROWS})
    merged = LlamaForSequenceClassification(config)
    assert not merged.load_state_dict(dict(folded_tensors(source)), strict=False).missing_keys
    ids = torch.tensor([[3, 5, 8, ROWS - 1, ROWS, ROWS]])
    with torch.no_grad():
        assert (merged.eval()(ids).logits - adapted.eval()(ids).logits).abs().max() < 1e-4
