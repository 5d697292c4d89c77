"""Plain LoRA folded by rows has the bits of PEFT's merge, whatever the rows, types and threads, and needs no PEFT."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from peft.tuners.tuners_utils import check_target_module_exists  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from support.folding import folded_tensor, folded_tensors, make_adapter, untied_copy  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from edgetune.errors import AdapterError, NumericalError  # noqa: E402
from edgetune.weights.lora import is_plain_lora, lora_rank, lora_scaling  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402
from edgetune.weights.stream import open_folded  # noqa: E402
from edgetune.weights.targets import is_targeted, targets_all  # noqa: E402

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Layers(torch.nn.Module):
    """A model of nothing but linear layers, for adapters on shapes of real models."""

    def __init__(self, shapes, dtype) -> None:
        super().__init__()
        with torch.device("meta"):
            layers = [torch.nn.Linear(columns, rows, bias=False, dtype=dtype) for rows, columns in shapes]
        self.layers = torch.nn.ModuleList(layer.to_empty(device="cpu") for layer in layers)


def base_and_adapter(folder: Path, shapes, config, dtype=torch.float32, adapter_dtype=None):
    """Files of both, and the weights after PEFT's own merge of the adapter as it is loaded from its file."""
    torch.manual_seed(3)
    base = Layers(shapes, dtype)
    weights = {name: (torch.rand(tensor.shape) - 0.5).to(dtype) for name, tensor in base.state_dict().items()}
    (folder / "base").mkdir()
    save_file(weights, folder / "base" / "model.safetensors")
    (folder / "base" / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": False}))
    make_adapter(folder, folder / "adapter", config, model=base, adapter_dtype=adapter_dtype)
    fresh = Layers(shapes, dtype)
    fresh.load_state_dict(weights)
    merged = peft.PeftModel.from_pretrained(fresh, folder / "adapter").merge_and_unload()
    return resolve_source(str(folder / "adapter"), base=str(folder / "base")), merged.state_dict()


def lora(rank: int, **options):
    return peft.LoraConfig(r=rank, lora_alpha=24, target_modules=r"layers\.\d+", **options)


@pytest.mark.parametrize("rank", [1, 2, 8, 17, 64])
def test_folding_by_rows_gives_pefts_bits_for_every_rank(rank: int, tmp_path: Path) -> None:
    shapes = [(576, 576), (192, 576), (577, 130), (1001, 331), (65, 130), (40, 96)]
    source, expected = base_and_adapter(tmp_path, shapes, lora(rank))
    folded = open_folded(source)
    for name, rows in zip(folded.tensors, (577, 7, 64, 333, 64, 39), strict=True):
        assert torch.equal(folded_tensor(folded, name, rows=rows), expected[name]), (name, rows)


def test_folding_by_rows_gives_pefts_bits_for_the_shapes_of_real_models(tmp_path: Path) -> None:
    shapes = [(2048, 2048), (512, 2048), (1024, 8192)]
    source, expected = base_and_adapter(tmp_path, shapes, lora(16), torch.bfloat16)
    folded = open_folded(source)
    for name, rows in zip(folded.tensors, (256, 500, 36), strict=True):
        assert torch.equal(folded_tensor(folded, name, rows=rows), expected[name]), (name, rows)


@pytest.mark.parametrize("adapter_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_folding_rounds_as_peft_does_for_every_type_of_base_and_adapter(dtype, adapter_dtype, tmp_path: Path) -> None:
    source, expected = base_and_adapter(
        tmp_path, [(320, 256), (256, 512)], lora(16, use_rslora=True), DTYPES[dtype], DTYPES[adapter_dtype]
    )
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {DTYPES[adapter_dtype]}
    for name, tensor in folded_tensors(source, rows=100):
        assert tensor.dtype == DTYPES[dtype]
        assert torch.equal(tensor, expected[name])


def test_any_rows_asked_for_at_once_by_several_threads_are_the_same(tmp_path: Path) -> None:
    source, expected = base_and_adapter(tmp_path, [(1000, 640)], lora(8), torch.float16)
    folded = open_folded(source)
    (name,) = folded.tensors
    chance = random.Random(0)
    cuts = sorted(chance.sample(range(1, 1000), 60))
    spans = list(zip([0, *cuts], [*cuts, 1000], strict=True))
    chance.shuffle(spans)
    with ThreadPoolExecutor(4) as pool:
        parts = dict(zip(spans, pool.map(lambda span: folded.rows(name, *span), spans), strict=True))
    for (start, stop), part in parts.items():
        assert (part == expected[name][start:stop].numpy()).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_bits_do_not_depend_on_torchs_threads(threads: int, tmp_path: Path) -> None:
    source, expected = base_and_adapter(tmp_path, [(512, 2048), (300, 77)], lora(16))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert all(torch.equal(tensor, expected[name]) for name, tensor in folded_tensors(source, rows=130))
    finally:
        torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore:The following alpha_pattern keys")
def test_rank_and_alpha_of_each_module_are_pefts(tmp_path: Path) -> None:
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=True,
        target_modules=r"layers\.\d+",
        rank_pattern={"layers.1": 8, r"layers\.[23]": 2, "^layers.4": 16},
        alpha_pattern={"3": 32, "ayers.5": 7},
    )
    model = peft.get_peft_model(Layers([(16, 16)] * 6, torch.float32), config)
    model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    for number, layer in enumerate(model.base_model.model.layers):
        assert lora_rank(settings, f"layers.{number}") == layer.r["default"]
        assert lora_scaling(settings, f"layers.{number}") == layer.scaling["default"]


TARGETS = [
    {"target_modules": ["q_proj", "lm_head", "model.layers.1.mlp.up_proj"]},
    {"target_modules": ["proj", "1.mlp.up_proj"]},
    {"target_modules": r".*\.1\..*(q|up)_proj"},
    {"target_modules": r"q_proj"},
    {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1, 11]},
    {"target_modules": ["q_proj", "lm_head"], "layers_to_transform": 1},
    {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["blocks", "layers"]},
    {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["blocks"]},
    {"target_modules": ["q_proj"], "layers_to_transform": []},
    {"target_modules": ["q_proj", "up_proj"], "exclude_modules": ["up_proj", "model.layers.1.self_attn.q_proj"]},
    {"target_modules": ["q_proj", "up_proj"], "exclude_modules": r".*\.1\..*"},
    {"target_modules": ["q_proj", "lm_head", "dense"], "modules_to_save": ["lm_head", "mlp"]},
]
PATHS = [
    *("lm_head", "q_proj", "model.layers.1.self_attn.q_proj", "model.layers.11.self_attn.q_proj"),
    *("model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj", "model.layers.1.experts.0.q_proj"),
    *("blocks.1.q_proj", "encoder.layers.1.dense", "mlp.dense"),
]


@pytest.mark.parametrize("options", TARGETS)
def test_the_modules_that_a_configuration_means_are_pefts(options) -> None:
    config = peft.LoraConfig(**options)
    assert not targets_all(options)
    for path in PATHS:
        assert is_targeted(options, path) == bool(check_target_module_exists(config, path)), path


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({}, True),
        ({"use_rslora": True, "rank_pattern": {"a": 1}, "lora_dropout": 0.1}, True),
        ({"modules_to_save": ["lm_head"]}, True),
        ({"init_lora_weights": "gaussian"}, True),
        ({"use_dora": True}, False),
        ({"bias": "lora_only"}, False),
        ({"lora_bias": True}, False),
        ({"fan_in_fan_out": True}, False),
        ({"init_lora_weights": "pissa"}, False),
        ({"init_lora_weights": "olora"}, False),
    ],
)
def test_anything_but_plain_lora_is_left_to_peft(options, plain: bool, tmp_path: Path) -> None:
    peft.LoraConfig(target_modules=["q_proj"], **options).save_pretrained(tmp_path)
    assert is_plain_lora(json.loads((tmp_path / "adapter_config.json").read_text())) is plain


def test_an_option_of_a_newer_peft_is_left_to_peft() -> None:
    assert is_plain_lora({"peft_type": "LORA", "use_something_new": False})
    assert not is_plain_lora({"peft_type": "LORA", "use_something_new": True})
    assert not is_plain_lora({"peft_type": "ADALORA"})


@pytest.fixture(scope="module")
def base(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untied_copy(tiny_llama, tmp_path_factory.mktemp("base") / "base", torch.bfloat16)


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    config = peft.LoraConfig(r=8, target_modules="all-linear", modules_to_save=["lm_head"])
    return make_adapter(base, tmp_path / "adapter", config, dtype=torch.bfloat16)


def edit(adapter: Path, change) -> None:
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    change(tensors)
    save_file(tensors, weights)


def test_plain_lora_is_folded_without_importing_peft_or_transformers(adapter: Path, run_python) -> None:
    program = f"""
import sys
from edgetune.weights.source import resolve_source
from edgetune.weights.stream import open_folded
folded = open_folded(resolve_source({str(adapter)!r}))
for name, info in folded.tensors.items():
    folded.rows(name, 0, info.shape[0])
print([name for name in ("transformers", "peft", "accelerate") if name in sys.modules])
"""
    assert run_python(program) == "[]"


def test_only_what_the_adapter_changes_is_touched(adapter: Path) -> None:
    folded = open_folded(resolve_source(str(adapter)))
    touched = {name for name in folded.tensors if folded.touches(name)}
    linear = {name for name in folded.tensors if name.endswith("proj.weight")}
    assert touched == {*linear, "lm_head.weight"}


def test_a_missing_half_is_refused_before_anything_is_folded(adapter: Path) -> None:
    edit(adapter, lambda tensors: tensors.pop(next(key for key in tensors if "lora_A" in key)))
    with pytest.raises(AdapterError, match=r"lacks the tensor .*lora_A\.weight"):
        open_folded(resolve_source(str(adapter)))


def test_a_rank_that_the_tensors_do_not_have_is_refused_before_anything_is_folded(adapter: Path) -> None:
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "r": 4}))
    with pytest.raises(AdapterError, match=r"lora_A\.weight has the shape \[8, \d+\].*rank 4.*do not belong"):
        open_folded(resolve_source(str(adapter)))


def test_a_tensor_of_a_module_that_is_not_targeted_is_refused(adapter: Path) -> None:
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "exclude_modules": ["q_proj"]}))
    with pytest.raises(AdapterError, match=r"has .*q_proj.*does not use"):
        open_folded(resolve_source(str(adapter)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_blamed_on_the_adapter(adapter: Path, value: float) -> None:
    def break_one(tensors) -> None:
        tensors["base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"][300, 0] = value

    edit(adapter, break_one)
    folded = open_folded(resolve_source(str(adapter)))
    name = "model.layers.1.mlp.up_proj.weight"
    assert folded.rows(name, 0, 300).shape == (300, 256)
    with pytest.raises(NumericalError, match=r"folding the adapter into model\.layers\.1\.mlp\.up_proj\.weight"):
        folded.rows(name, 300, 400)


def test_a_base_that_is_not_finite_is_blamed_on_the_base(adapter: Path, base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((base / "config.json").read_text())
    weights = load_file(base / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][3, 3] = float("-inf")
    save_file(weights, broken / "model.safetensors")
    folded = open_folded(resolve_source(str(adapter), base=str(broken)))
    with pytest.raises(NumericalError, match=r"layers\.0\.mlp\.up_proj\.weight of the base"):
        folded.rows("model.layers.0.mlp.up_proj.weight", 0, 64)


def test_lora_on_an_embedding_and_on_linear_layers_gives_pefts_weights(base: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"])
    adapter = make_adapter(base, tmp_path / "adapter", config, dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    expected = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()
    for name, tensor in folded_tensors(resolve_source(str(adapter)), rows=33):
        assert torch.equal(tensor, expected[name]), name
