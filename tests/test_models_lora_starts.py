"""How LoRA's matrices begin: PiSSA and OLoRA leave the model as it is and save for the published base; EVA, LoftQ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from support.tiny_adapted import VOCABULARY, build, classifies, logits_of, loss_of, section, stir, train_some  # noqa: E402

from edgetune.errors import RecipeError  # noqa: E402
from edgetune.models.adapters import add_adapter, save_adapter  # noqa: E402
from edgetune.models.load import load_model  # noqa: E402
from edgetune.models.locate import ModelFiles  # noqa: E402


def adapt(kind: str, model: Any = None, *, batches: Any = None, files: ModelFiles | None = None, **fields: Any) -> Any:
    method = section("lora", **{"rank": 4, "alpha": 8, **fields})
    model = build(kind) if model is None else model
    return add_adapter(model, method, base="x", classifies=classifies(kind), batches=batches, files=files, seed=1)


CONVERTED = {
    "pissa": ("llama", {"init": "pissa"}),
    "olora": ("llama", {"init": "olora"}),
    "pissa with patterns": (
        "llama",
        {"init": "pissa", "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 7}},
    ),
    "pissa and rslora with patterns": (
        "llama",
        {"init": "pissa", "rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 7}},
    ),
    "olora and dora": ("llama", {"init": "olora", "dora": True}),
    "pissa with a head": ("llama with head", {"init": "pissa"}),
    "pissa with biases": ("bert with head", {"init": "pissa", "bias": "lora_only"}),
    "olora of an encoder-decoder": ("t5", {"init": "olora"}),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_what_begins_inside_the_base_starts_as_the_base_and_is_saved_for_it(name: str, tmp_path: Path) -> None:
    kind, fields = CONVERTED[name]
    adapted = adapt(kind, **fields)
    start = logits_of(adapted, kind)
    assert torch.allclose(start, logits_of(build(kind), kind), atol=1e-5)
    train_some(adapted, kind)
    stir(adapted)
    trained = logits_of(adapted, kind)
    assert not torch.allclose(trained, start, atol=1e-3)
    save_adapter(adapted, tmp_path)
    again = peft.PeftModel.from_pretrained(build(kind), tmp_path)
    assert torch.allclose(logits_of(again, kind), trained, atol=1e-5)
    assert again.active_peft_config.r == 8
    assert torch.equal(logits_of(adapted, kind), trained)


def test_the_saved_adapter_of_pissa_is_the_one_that_peft_itself_converts(tmp_path: Path) -> None:
    first = adapt("llama", init="pissa")
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights="pissa"
    )
    theirs = peft.get_peft_model(build("llama"), config)
    theirs.peft_config["default"].init_lora_weights = True
    theirs.save_pretrained(tmp_path / "first")
    for model in (first, theirs):
        train_some(model, "llama")
    save_adapter(first, tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs", path_initial_model_for_weight_conversion=str(tmp_path / "first"))
    one, other = (
        logits_of(peft.PeftModel.from_pretrained(build("llama"), tmp_path / folder), "llama")
        for folder in ("ours", "theirs")
    )
    assert torch.allclose(one, other, atol=1e-6)


def batches(count: int = 3, rows: int = 8) -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(5)
    ids = torch.randint(3, VOCABULARY, (count, rows, 16), generator=draw)
    return [{"input_ids": each, "attention_mask": torch.ones_like(each)} for each in ids]


@pytest.mark.parametrize("kind", ["llama", "llama with head", "bert with head"])
def test_eva_begins_along_the_inputs_and_shares_out_the_same_ranks(kind: str, tmp_path: Path) -> None:
    adapted, plain = adapt(kind, batches=batches(), init="eva"), adapt(kind)
    assert torch.allclose(logits_of(adapted, kind), logits_of(build(kind), kind), atol=1e-6)

    def ranks(model: Any) -> int:
        return sum(weight.shape[0] for name, weight in model.named_parameters() if "lora_A" in name)

    assert ranks(adapted) == ranks(plain)
    rows = next(weight for name, weight in adapted.named_parameters() if "lora_A" in name)
    assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-4)
    stir(adapted)
    save_adapter(adapted, tmp_path)
    again = peft.PeftModel.from_pretrained(build(kind), tmp_path)
    assert torch.equal(logits_of(again, kind), logits_of(adapted, kind))


def test_eva_finds_the_directions_that_the_first_layers_inputs_have() -> None:
    model, data = build("llama"), batches()
    adapted = adapt("llama", build("llama"), batches=data, init="eva", targets=["q_proj"])
    with torch.no_grad():
        seen = torch.cat([model.model.embed_tokens(batch["input_ids"]).flatten(0, 1) for batch in data])
        seen = model.model.layers[0].input_layernorm(seen)
    _, _, expected = torch.linalg.svd(seen - seen.mean(0), full_matrices=False)
    layer = adapted.get_base_model().model.layers[0].self_attn.q_proj
    ours = layer.lora_A["default"].weight.detach()
    # The same leading direction up to its sign; PEFT computes it batch by batch.
    assert abs(float(torch.nn.functional.cosine_similarity(ours[0], expected[0], dim=0))) > 0.9


@pytest.mark.parametrize(
    ("fields", "given", "says"),
    [
        ({"init": "eva"}, [], "init eva needs training data, and there is none"),
        ({"init": "eva", "rank": 16}, batches(1, rows=1), "batches of at least 32 tokens for rank 16.*longest has 16"),
        ({"init": "loftq"}, None, "init loftq needs a base that is quantized to nf4"),
        (
            {"init": "pissa", "rank": 20},
            None,
            r"rank is 20, and method\.init pissa has at most 16 for .*k_proj; use 16",
        ),
        ({"rank_pattern": {"q_prj": 2}}, None, r"rank_pattern names q_prj, which matches none .*q_proj"),
        ({"alpha_pattern": {"embed": 2}}, None, r"alpha_pattern names embed, which matches none of the adapted"),
    ],
)
def test_what_cannot_begin_is_refused_in_one_line(fields: dict[str, Any], given: Any, says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        adapt("llama", batches=given, **fields)
    assert "\n" not in str(caught.value)


def test_eva_is_refused_for_an_encoder_decoder() -> None:
    with pytest.raises(RecipeError, match="init eva reads the inputs of all layers"):
        adapt("t5", batches=batches(), init="eva")


def test_on_the_meta_device_a_start_that_computes_changes_no_count() -> None:
    counts = {
        adapt("llama", build("llama", meta=True), init=init).get_nb_trainable_parameters()
        for init in ("default", "pissa", "olora", "loftq", "eva")
    }
    assert len(counts) == 1


@pytest.fixture(scope="module")
def nf4_files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    pytest.importorskip("bitsandbytes")
    folder = tmp_path_factory.mktemp("base")
    build("llama", hidden_size=64, intermediate_size=128).save_pretrained(folder)
    return ModelFiles("x", folder)


@pytest.mark.parametrize("alpha", [4, 16])
def test_loftq_makes_up_for_what_nf4_loses(alpha: int, nf4_files: ModelFiles) -> None:
    import bitsandbytes as bnb

    original = build("llama", hidden_size=64, intermediate_size=128)
    model = load_model(nf4_files, dtype=torch.float32, quantize="nf4")
    rounded = logits_of(model, "llama")
    adapted = adapt("llama", model, files=nf4_files, init="loftq", rank=8, alpha=alpha)
    expected = logits_of(original, "llama")
    assert (logits_of(adapted, "llama") - expected).norm() < 0.8 * (rounded - expected).norm()

    layer = adapted.get_base_model().model.layers[1].mlp.up_proj
    quantized = layer.base_layer.weight
    lost = original.model.layers[1].mlp.up_proj.weight - bnb.functional.dequantize_4bit(
        quantized.data, quantized.quant_state
    )
    left, values, right = torch.linalg.svd(lost.detach(), full_matrices=False)
    best = left[:, :8] * values[:8] @ right[:8]
    assert torch.allclose(layer.get_delta_weight("default"), best, atol=1e-5)


def test_loftq_reads_a_gguf_base_too(smollm2_gguf: Path) -> None:
    pytest.importorskip("bitsandbytes")
    files = ModelFiles("x", smollm2_gguf.parent, gguf=smollm2_gguf)
    model = load_model(files, dtype=torch.float32, quantize="nf4")
    adapted = adapt("llama", model, files=files, init="loftq", rank=64, targets=["model.layers.3.self_attn.k_proj"])
    layer = adapted.get_base_model().model.layers[3].self_attn.k_proj
    original = load_model(files, dtype=torch.float32).model.layers[3].self_attn.k_proj.weight
    import bitsandbytes as bnb

    rounded = bnb.functional.dequantize_4bit(layer.base_layer.weight.data, layer.base_layer.weight.quant_state)
    closer = rounded + layer.get_delta_weight("default")
    assert (original - closer).norm() < 0.95 * (original - rounded).norm()


def test_a_start_is_trained_from_like_any_other() -> None:
    adapted = adapt("llama", init="olora")
    before = float(loss_of(adapted, "llama"))
    train_some(adapted, "llama")
    assert float(loss_of(adapted, "llama")) < before
