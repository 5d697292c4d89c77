"""`base_as="trained"` gives the base that a QLoRA run trained on: bitsandbytes' own layers, dequantized."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
bnb = pytest.importorskip("bitsandbytes")

from support.folding import folded_tensor, make_adapter, untied_copy  # noqa: E402

from edgetune.errors import UsageError  # noqa: E402
from edgetune.models.load import load_model  # noqa: E402
from edgetune.models.locate import locate_model  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402
from edgetune.weights.stream import open_folded  # noqa: E402


@pytest.fixture(scope="module")
def base(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untied_copy(tiny_llama, tmp_path_factory.mktemp("base") / "base", torch.bfloat16)


def run_directory(folder: Path, base: Path, **recorded) -> Path:
    """A run whose adapter touches the query projections only."""
    make_adapter(base, folder / "adapter", peft.LoraConfig(r=4, target_modules=["q_proj"]))
    settings = {"model": str(base), "quantize": "nf4", **recorded}
    lines = [f"  {key}: {json.dumps(value)}\n" for key, value in settings.items()]
    (folder / "recipe.yaml").write_text("name: mood\nbase:\n" + "".join(lines))
    return folder


def dequantized(base: Path, *, dtype, quantize: str, double_quantization: bool = True) -> dict[str, torch.Tensor]:
    """The weights of the layers that Transformers really hands to bitsandbytes."""
    model = load_model(locate_model(str(base)), dtype=dtype, quantize=quantize, double_quantization=double_quantization)
    weights = {}
    for path, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weights[f"{path}.weight"] = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
        elif isinstance(module, bnb.nn.Linear8bitLt):
            weights[f"{path}.weight"] = bnb.functional.int8_vectorwise_dequant(module.weight.data, module.weight.SCB)
    return weights


@pytest.mark.parametrize(
    ("dtype", "quantize", "double_quantization"),
    [
        ("float32", "nf4", True),
        ("bfloat16", "nf4", True),
        ("bfloat16", "nf4", False),
        ("float16", "nf4", True),
        ("float32", "int8", True),
    ],
)
def test_the_base_is_the_one_that_training_saw(
    dtype: str, quantize: str, double_quantization: bool, base: Path, tmp_path: Path
) -> None:
    run = run_directory(tmp_path, base, quantize=quantize, dtype=dtype, double_quantization=double_quantization)
    folded = open_folded(resolve_source(str(run)), base_as="trained")
    torch_dtype = getattr(torch, dtype)
    expected = dequantized(base, dtype=torch_dtype, quantize=quantize, double_quantization=double_quantization)
    assert len(expected) == 14
    for name, weight in expected.items():
        assert folded.touches(name)
        if "q_proj" not in name:
            tensor = folded_tensor(folded, name, rows=50)
            assert tensor.dtype == torch_dtype
            assert torch.equal(tensor, weight.to(torch_dtype)), name
    assert {name for name in folded.tensors if folded.touches(name)} == expected.keys()


def test_the_adapter_is_folded_into_the_rounded_weight(base: Path, tmp_path: Path) -> None:
    run = run_directory(tmp_path, base, dtype="bfloat16")
    name = "model.layers.0.self_attn.q_proj.weight"
    trained, stored = (
        folded_tensor(open_folded(resolve_source(str(run)), base_as=base_as), name) for base_as in ("trained", "16bit")
    )
    layer = torch.nn.Linear(256, 256, bias=False)
    layer.weight.data = dequantized(base, dtype=torch.bfloat16, quantize="nf4")[name]
    root = torch.nn.Module()
    root.q_proj = layer
    model = peft.get_peft_model(root, peft.LoraConfig(r=4, target_modules=["q_proj"]))
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    own = {key.replace("model.layers.0.self_attn.", ""): tensors[key] for key in tensors if "layers.0" in key}
    peft.set_peft_model_state_dict(model, own)
    assert torch.equal(trained, model.merge_and_unload().q_proj.weight)
    assert not torch.equal(trained, stored)


def test_auto_is_the_type_that_the_run_wrote_down(base: Path, tmp_path: Path) -> None:
    run = run_directory(tmp_path, base, dtype="auto")
    (run / "summary.json").write_text(json.dumps({"dtype": "float16"}))
    folded = open_folded(resolve_source(str(run)), base_as="trained")
    assert folded.tensors["model.layers.0.mlp.up_proj.weight"].dtype == "F16"
    assert folded.tensors["model.norm.weight"].dtype == "BF16"


def test_a_run_whose_base_was_not_quantized_is_refused_with_the_way_out(base: Path, tmp_path: Path) -> None:
    run = run_directory(tmp_path, base, quantize="none")
    with pytest.raises(UsageError, match=r"base\.quantize is none; leave out --base-as"):
        open_folded(resolve_source(str(run)), base_as="trained")


def test_an_adapter_without_a_recipe_is_refused_with_the_way_out(base: Path, tmp_path: Path) -> None:
    run = run_directory(tmp_path, base)
    with pytest.raises(UsageError, match=r"needs a run directory.*leave out --base-as"):
        open_folded(resolve_source(str(run / "adapter")), base_as="trained")
