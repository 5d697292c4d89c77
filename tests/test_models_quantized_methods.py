"""On a quantized base every method that the schema lets through computes what it does on the same weights in full."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
bnb = pytest.importorskip("bitsandbytes")

from support.tiny_adapted import SECTIONS, build, logits_of, section, stir  # noqa: E402

from edgetune.models.adapters import add_adapter  # noqa: E402
from edgetune.models.load import load_model  # noqa: E402
from edgetune.models.locate import ModelFiles  # noqa: E402
from edgetune.recipe.methods import PEFT_METHODS, WHOLE_WEIGHTS_ONLY  # noqa: E402
from edgetune.recipe.schema import Recipe  # noqa: E402

WIDE = {"hidden_size": 64, "intermediate_size": 128}

FIELDS: dict[str, dict[str, Any]] = {
    **SECTIONS,
    "adaption_prompt": {"adapter_len": 4, "adapter_layers": 2},
    "c3a": {"block_size": 16},
    "cartridge": {"num_virtual_tokens": 4},
    "fourierft": {"n_frequency": 50},
    "miss": {"r": 8},
    "road": {"group_size": 16},
    "trainable_tokens": {"token_indices": [5, 6, 7]},
    "vblora": {"vector_length": 16, "num_vectors": 8},
    "waveft": {"n_frequency": 50},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    folder = tmp_path_factory.mktemp("base")
    build("llama", **WIDE).save_pretrained(folder)
    return ModelFiles("x", folder)


def dense_twin(quantized: Any) -> Any:
    """A model whose weights are what the quantized layers stand for."""
    twin = build("llama", **WIDE)
    weights = twin.state_dict()
    for path, layer in quantized.named_modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            state = layer.weight.quant_state
            weights[f"{path}.weight"].copy_(bnb.functional.dequantize_4bit(layer.weight.data, state))
        elif isinstance(layer, bnb.nn.Linear8bitLt):
            weights[f"{path}.weight"].copy_(bnb.functional.int8_vectorwise_dequant(layer.weight.data, layer.weight.SCB))
    return twin


ALLOWED = [
    (method, quantize)
    for quantize, refused in (("nf4", ()), ("int8", ("lora and dora",)))
    for method in (*SECTIONS, "lora and dora", *PEFT_METHODS)
    if method not in (*WHOLE_WEIGHTS_ONLY[quantize], *refused)
]
"""What the schema does not refuse."""


@pytest.mark.parametrize(("method", "quantize"), ALLOWED)
def test_an_adapter_computes_the_same_on_a_quantized_base(method: str, quantize: str, files: ModelFiles) -> None:
    if method == "lora and dora":
        spec = section("lora", rank=4, dora=True)
    else:
        spec = section(method, **FIELDS.get(method, {}))
    base = load_model(files, dtype=torch.float32, quantize=quantize)
    twin = dense_twin(base)
    models = [add_adapter(model, spec, base="x", total_steps=10, seed=1) for model in (base, twin)]
    start = logits_of(models[0], "llama")
    for model in models:
        stir(model)
    ours, expected = (logits_of(model, "llama") for model in models)
    # int8 layers round their inputs as well, to 1 part in 127.
    tolerance = 1e-5 if quantize == "nf4" else 0.03
    assert (ours - expected).abs().max() < tolerance
    assert (ours - start).abs().max() > 1e-3


def recipe(method: dict[str, Any], **base: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "x",
            "task": "chat",
            "base": {"model": "a/b", **base},
            "data": {"train": [{"source": "x.jsonl", "format": "messages"}]},
            "method": method,
        }
    )


@pytest.mark.parametrize(
    ("method", "quantize", "says"),
    [
        ({"type": "loha"}, "nf4", "method loha does not work on an nf4 base; set base.quantize to none"),
        ({"type": "hra"}, "int8", "method hra does not work on an int8 base"),
        ({"type": "lora", "init": "pissa"}, "nf4", "init pissa subtracts the first update from the base's weights"),
        ({"type": "lora", "init": "olora"}, "int8", "init olora subtracts the first update from the base's weights"),
        (
            {("type"): "lora", "init": "loftq"},
            "none",
            "init loftq corrects the rounding of NF4; set base.quantize to nf4",
        ),
    ],
)
def test_a_method_that_needs_whole_weights_is_refused_by_the_schema(
    method: dict[str, Any], quantize: str, says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        recipe(method, quantize=quantize)


def test_the_same_methods_are_taken_where_they_work() -> None:
    assert recipe({"type": "loha"}, quantize="int8").method.type == "loha"
    assert recipe({"type": "lora", "init": "loftq"}, quantize="nf4").base.quantize == "nf4"
    assert recipe({"type": "lora", "init": "pissa"}).base.quantize == "none"
