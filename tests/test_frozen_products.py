"""How frozen layers multiply on a CPU: by oneDNN or in bfloat16, where that is quicker and allowed."""

from __future__ import annotations

import json
import mmap
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.children import rows, train_in_children
from support.tiny_adapted import SECTIONS, build, loss_of, section, stir

from edgetune.errors import RecipeError
from edgetune.models.adapters import add_adapter
from edgetune.planning.planning import plan_training
from edgetune.recipe.load import load_recipe
from edgetune.recipe.methods import LEAVES_WEIGHTS_ALONE
from edgetune.recipe.schema import Recipe
from edgetune.training import frozen_linear, products
from edgetune.training.frozen_layers import Products, bfloat16_layers, use_products
from edgetune.training.run import train
from edgetune.training.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("no_plots")

TEXTS = ["good", "bad news", "what a long and winding day", "fine by me", "never again", "so so", "yes", "no, thanks"]
BFLOAT16 = Products(bfloat16=True)
PRECISION = 2**-8
"""The largest relative error of a number that is rounded to bfloat16."""


@pytest.fixture
def write_recipe(tmp_path: Path, tiny_llama: Path):
    """Writes a small classification recipe on the tiny Llama, base.dtype auto, and loads it with overrides."""
    data = [{"text": text, "label": ("up", "down")[n % 2]} for n, text in enumerate(TEXTS)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, data)), encoding="utf-8")
    values = {
        "name": "tiny",
        "task": "classify",
        "base": {"model": str(tiny_llama)},
        "data": {
            "train": [{"source": "rows.jsonl", "format": "text-label"}],
            "labels": ["up", "down"],
            "prompt": "Up or down? {text}",
        },
        "method": {"type": "lora", "rank": 4, "alpha": 8},
        "train": {"batch_size": 2, "max_steps": 4, "learning_rate": 1e-2},
    }
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")

    def load(*overrides: str) -> Recipe:
        return load_recipe(str(file), overrides)

    return load


@pytest.fixture
def gains(monkeypatch: pytest.MonkeyPatch):
    """Sets what the measurements find: how much quicker oneDNN is, and bfloat16."""

    def find(*, onednn: float = 1.0, bfloat16: float = 1.0) -> None:
        monkeypatch.setattr(frozen_linear, "HAS_BFLOAT16", True)
        monkeypatch.setattr(frozen_linear, "_remembered_gain", lambda weight: onednn)
        monkeypatch.setattr(frozen_linear, "_remembered_bfloat16_gain", lambda weight: bfloat16)

    return find


def load_tiny(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in RunDirectory(run).read_metrics() if "loss" in row]


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The length of the difference, as a share of the length of what is expected."""
    return ((found - expected).norm() / expected.norm()).item()


def gradients(model: Any, kind: str) -> torch.Tensor:
    """Of everything that is trained, as one vector."""
    model.train()
    model.zero_grad()
    loss_of(model, kind).backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


# oneDNN


def test_quicker_frozen_layers_give_the_same_products(tiny_llama: Path):
    model = load_tiny(tiny_llama).requires_grad_(False)
    x = torch.randn(1, 11, 256)
    results = []
    for _ in range(2):
        hidden = x.clone().requires_grad_()
        output = model(inputs_embeds=hidden).logits
        output.sum().backward()
        results.append((output.detach(), hidden.grad))
        assert use_products(model, Products(onednn=True)) == "float32 by oneDNN"
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-4, atol=1e-4)


def test_layers_that_are_trained_keep_their_own_products(tiny_llama: Path, write_recipe, gains):
    gains(onednn=2.0, bfloat16=2.0)
    model = load_tiny(tiny_llama)
    assert frozen_linear.choose_products(model, write_recipe()) == Products()
    assert use_products(model, Products(onednn=True, bfloat16=True)) is None
    assert not any("forward" in vars(module) for module in model.modules())


def test_no_change_where_onednn_is_not_quicker(tiny_llama: Path, write_recipe, gains):
    gains(onednn=1.0)
    model = load_tiny(tiny_llama).requires_grad_(False)
    assert frozen_linear.choose_products(model, write_recipe()) == Products()


# bfloat16


@pytest.mark.parametrize("native", [True, False])
def test_a_product_in_bfloat16_is_that_of_rounded_numbers(native: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(products, "HAS_BFLOAT16", native)
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, 64), torch.randn(48, 64).bfloat16()
    exact = x.bfloat16().double() @ weight.double().T
    product = products.bfloat16_product(x, weight)
    assert product.dtype == torch.float32
    assert torch.equal(product, product.bfloat16().float())
    torch.testing.assert_close(product.double(), exact, rtol=PRECISION, atol=1e-3)


@pytest.mark.parametrize("kind", ["llama", "t5", "bert with head"])
@pytest.mark.parametrize("method", sorted(LEAVES_WEIGHTS_ALONE))
def test_gradients_of_every_method_are_those_of_float32(kind: str, method: str):
    if kind == "bert with head" and method == "prefix":
        pytest.skip("PEFT's prefix has no place in BERT")
    model = add_adapter(
        build(kind), section(method, **SECTIONS[method]), base="base", classifies="head" in kind, total_steps=9, seed=0
    )
    stir(model)
    expected = gradients(model, kind)
    assert use_products(model, BFLOAT16) == "bfloat16"
    assert any(weight.dtype == torch.bfloat16 for weight in model.parameters())
    assert 0 < distance(gradients(model, kind), expected) < 0.03
    assert all(weight.dtype == torch.float32 for weight in model.parameters() if weight.requires_grad)


def test_trained_biases_get_their_gradients():
    lora = section("lora", rank=4, bias="all")
    model = add_adapter(build("bert with head"), lora, base="base", classifies=True, seed=0)
    expected = gradients(model, "bert with head")
    use_products(model, BFLOAT16)
    assert distance(gradients(model, "bert with head"), expected) < 0.03


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("method.dora=true", "method.dora needs the norms"),
        ("method={type: hira}", "method hira reads the base's weights"),
        ("method={type: shira}", "method shira reads"),
        ("method={type: oft}", "method oft reads"),
        ("method={type: fourierft}", "method fourierft reads"),
        ("method={type: full}", "method full leaves no layer frozen"),
        ("base.quantize=nf4", "the layers of an nf4 base"),
        ("base.dtype=bfloat16", "with base.dtype bfloat16 every layer"),
    ],
)
def test_what_cannot_be_in_bfloat16_is_refused_by_name_and_never_taken(
    override: str, reason: str, write_recipe, tiny_llama: Path, gains
):
    with pytest.raises(RecipeError) as caught:
        write_recipe(override, "train.frozen_products=bfloat16")
    assert f"train.frozen_products cannot be bfloat16: {reason}" in str(caught.value)
    gains(bfloat16=9.0)
    assert not frozen_linear.takes_bfloat16(load_tiny(tiny_llama).requires_grad_(False), write_recipe(override))


@pytest.mark.parametrize(
    ("overrides", "gain", "taken"),
    [
        ([], 1.4, True),
        ([], 1.1, False),
        (["base.dtype=float32"], 9.0, False),
        (["train.frozen_products=float32"], 9.0, False),
        (["train.frozen_products=bfloat16"], 0.1, True),
        (["train.frozen_products=bfloat16", "base.dtype=float32"], 0.1, True),
    ],
)
def test_auto_takes_bfloat16_where_it_is_quicker_and_nobody_wrote_float32(
    overrides: list[str], gain: float, taken: bool, tiny_llama: Path, write_recipe, gains
):
    gains(onednn=2.0, bfloat16=gain)
    model = load_tiny(tiny_llama).requires_grad_(False)
    assert frozen_linear.choose_products(model, write_recipe(*overrides)) == Products(onednn=True, bfloat16=taken)


def test_auto_measures_nothing_on_a_processor_without_bfloat16(
    tiny_llama: Path, write_recipe, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(frozen_linear, "HAS_BFLOAT16", False)
    monkeypatch.setattr(frozen_linear, "_bfloat16_gain", lambda *_: pytest.fail("measured"))
    assert not frozen_linear.takes_bfloat16(load_tiny(tiny_llama).requires_grad_(False), write_recipe())


def test_embeddings_output_norms_and_adapter_stay_in_float32(tiny_llama: Path):
    model = add_adapter(load_tiny(tiny_llama), section("lora", rank=4), base="base")
    tied = model.get_output_embeddings().weight
    assert tied is model.get_input_embeddings().weight
    use_products(model, BFLOAT16)
    assert model.get_output_embeddings().weight is tied
    narrow = {name for name, weight in model.named_parameters() if weight.dtype == torch.bfloat16}
    assert narrow == {name for name, _ in model.named_parameters() if name.endswith("base_layer.weight")}
    assert len(narrow) == 14


def test_layers_whose_weights_the_model_reads_by_itself_stay_in_float32():
    from transformers import MambaConfig, MambaForCausalLM

    mamba = MambaForCausalLM(MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=64, state_size=4))
    t5 = build("t5")
    for model in (mamba, t5):
        model.requires_grad_(False)
    narrow = {path for path, module in mamba.named_modules() if module in bfloat16_layers(mamba)}
    assert narrow == {"backbone.layers.0.mixer.in_proj"}
    narrow = {path.rpartition(".")[2] for path, module in t5.named_modules() if module in bfloat16_layers(t5)}
    assert narrow == {"q", "k", "v", "o", "wi"}
    ids = torch.randint(64, (1, 7))
    expected = mamba(ids).logits
    use_products(mamba, BFLOAT16)
    assert distance(mamba(ids).logits, expected) < 0.03


def test_each_weight_is_held_once(tiny_llama: Path):
    model = load_tiny(tiny_llama).requires_grad_(False)
    layers = bfloat16_layers(model)
    gone = [weakref.ref(layer.weight.untyped_storage()) for layer in layers]

    def held() -> int:
        return sum({p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}.values())

    before = held()
    use_products(model, BFLOAT16)
    assert not any(storage() for storage in gone)
    assert held() == before - 2 * sum(layer.weight.numel() for layer in layers)


def test_a_step_keeps_no_wide_copy_of_a_weight(tiny_llama: Path):
    from edgetune.planning.live import LiveBytes

    torch.manual_seed(0)
    model = add_adapter(load_tiny(tiny_llama), section("lora", rank=4), base="base")
    ids = torch.randint(100, (1, 8))
    held = []
    for _ in range(2):
        with LiveBytes() as live:
            loss = model(ids).logits.sum()
            held.append(live.now_bytes)
            loss.backward()
        model.zero_grad()
        use_products(model, BFLOAT16)
    assert held[1] <= held[0]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says how much memory is resident")
def test_pages_of_a_file_are_let_go_and_its_other_tensors_stay(tmp_path: Path):
    from safetensors.torch import save_file

    from edgetune.training.pages import forget_mapped, mapped_spans

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    save_file({name: torch.full((2048, 2048), float(n)) for n, name in enumerate("abc")}, tmp_path / "x.safetensors")
    tensors = load_file(tmp_path / "x.safetensors")
    assert [tensor.max().item() for tensor in tensors.values()] == [0, 1, 2]
    before = resident_bytes()
    forget_mapped(tensors.pop("b"), mapped_spans())
    assert before - resident_bytes() > 0.9 * 4 * 2048**2
    assert [(tensor.min().item(), tensor.max().item()) for tensor in tensors.values()] == [(0, 0), (2, 2)]
    plain = torch.ones(512, 512)
    forget_mapped(plain, mapped_spans())
    assert plain.sum() == 512**2


# runs


def test_the_summary_says_which_it_was(write_recipe, tmp_path: Path, gains):
    gains(bfloat16=1.0)
    summary = train(write_recipe("train.max_steps=1"), tmp_path / "wide")
    assert summary.frozen_products == "float32"
    gains(bfloat16=2.0)
    summary = train(write_recipe("train.max_steps=1"), tmp_path / "narrow")
    assert summary.frozen_products == "bfloat16"
    assert summary.dtype == "float32"
    assert json.loads((tmp_path / "narrow" / "summary.json").read_text())["frozen_products"] == "bfloat16"


def test_a_run_in_bfloat16_learns_what_one_in_float32_learns_and_merges_as_usual(write_recipe, tmp_path: Path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from edgetune.weights.merge import merge
    from edgetune.weights.source import resolve_source

    recipe = write_recipe("train.max_steps=8", "train.optimizer=sgd", "train.learning_rate=0.5")
    for wanted in ("float32", "bfloat16"):
        changed = recipe.model_copy(update={"train": recipe.train.model_copy(update={"frozen_products": wanted})})
        train(changed, tmp_path / wanted)
    assert losses(tmp_path / "bfloat16") == pytest.approx(losses(tmp_path / "float32"), rel=5e-3)
    expected = adapter(tmp_path / "float32")
    assert adapter(tmp_path / "bfloat16").keys() == expected.keys()
    for name, tensor in adapter(tmp_path / "bfloat16").items():
        assert tensor.dtype == torch.float32
        assert distance(tensor, expected[name]) < 0.05, name
    merge(resolve_source(str(tmp_path / "bfloat16")), tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(load_tiny(Path(recipe.base.model)), tmp_path / "bfloat16" / "adapter")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("taken", [True, False])
def test_a_resumed_run_goes_on_with_the_products_it_began_with(
    write_recipe, tmp_path: Path, gains, taken: bool, monkeypatch: pytest.MonkeyPatch
):
    from edgetune.errors import Interrupted
    from edgetune.training.trainer import ObjectiveTrainer

    gains(bfloat16=2.0 if taken else 1.0)
    recipe = write_recipe("train.max_steps=4", "train.save_every=2")
    whole = train(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        compute, calls = ObjectiveTrainer.compute_loss, iter(range(9))

        def interrupted(*arguments: Any, **options: Any) -> Any:
            if next(calls) == 3:
                raise KeyboardInterrupt
            return compute(*arguments, **options)

        patch.setattr(ObjectiveTrainer, "compute_loss", interrupted)
        with pytest.raises(Interrupted):
            train(recipe, tmp_path / "parts")
    gains(bfloat16=1.0 if taken else 2.0)
    resumed = train(recipe, tmp_path / "parts", resume=True)
    assert resumed.frozen_products == whole.frozen_products == ("bfloat16" if taken else "float32")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for name, tensor in adapter(tmp_path / "whole").items():
        assert torch.equal(adapter(tmp_path / "parts")[name], tensor), name


@pytest.mark.parametrize("changes", ["gradient_checkpointing", "fsdp"])
def test_checkpointing_and_processes_change_nothing_about_bfloat16(write_recipe, tmp_path: Path, changes: str):
    settings = ["train.frozen_products=bfloat16", "train.optimizer=sgd", "train.learning_rate=0.5", "train.max_steps=3"]
    train(write_recipe(*settings), tmp_path / "one")
    if changes == "fsdp":
        recipe = write_recipe(*settings, "train.batch_size=1", "train.parallel=fsdp")
        file = tmp_path / "two.yaml"
        file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
        assert train_in_children(file, tmp_path / "other", processes=2) == [0, 0]
    else:
        train(write_recipe(*settings, "train.gradient_checkpointing=true"), tmp_path / "other")
    for row, expected in zip(rows(tmp_path / "other"), rows(tmp_path / "one"), strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=2e-3)
    for name, tensor in adapter(tmp_path / "one").items():
        assert distance(adapter(tmp_path / "other")[name], tensor) < 0.02, name


def test_bfloat16_is_refused_where_a_gpu_trains_or_no_layer_could_have_it(write_recipe, tiny_llama: Path):
    recipe = write_recipe("train.frozen_products=bfloat16")
    model = load_tiny(tiny_llama)
    with pytest.raises(RecipeError, match="are for CPUs, and this training runs on a GPU"):
        frozen_linear.check_products(model, recipe, on_gpu=True)
    with pytest.raises(RecipeError, match="no frozen linear layer"):
        frozen_linear.check_products(model, recipe, on_gpu=False)
    frozen_linear.check_products(model.requires_grad_(False), recipe, on_gpu=False)


# measuring and planning


def test_what_was_measured_is_remembered_and_a_broken_record_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EDGETUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(frozen_linear, "HAS_BFLOAT16", True)
    monkeypatch.setattr(frozen_linear, "_gain", lambda weight: 1.0)
    found = iter([2.0, 1.0, 1.3])
    monkeypatch.setattr(frozen_linear, "_bfloat16_gain", lambda weight, float32: next(found))
    weight = torch.empty(64, 32)
    assert [frozen_linear.bfloat16_is_quicker(weight) for _ in range(2)] == [True, True]
    assert not frozen_linear.bfloat16_is_quicker(torch.empty(64, 48))
    for record in (tmp_path / "frozen-linear-bfloat16").iterdir():
        record.write_text("{", encoding="utf-8")
    assert frozen_linear.bfloat16_is_quicker(weight)


def test_both_measurements_tell_a_ratio():
    weight = torch.randn(64, 32)
    assert frozen_linear._gain(weight) > 0
    assert frozen_linear._bfloat16_gain(weight, torch.nn.functional.linear) > 0


def test_a_plan_counts_rounded_weights_and_what_loading_takes_before(write_recipe):
    plain, narrow = (
        plan_training(write_recipe(f"train.frozen_products={wanted}"), device="cpu", flops="1T")
        for wanted in ("float32", "bfloat16")
    )
    rounded = 2 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512)
    assert plain.memory.weights - narrow.memory.weights == 2 * rounded
    assert plain.memory.loading == 0
    assert narrow.memory.loading <= 2 * rounded
    assert narrow.memory.total <= plain.memory.total
    assert any("bfloat16" in each for each in narrow.assumes)
    with pytest.raises(RecipeError, match="are for CPUs"):
        plan_training(write_recipe("train.frozen_products=bfloat16"), device_memory="8GB", flops="t4")
