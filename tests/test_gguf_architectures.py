"""Every family's tensors and hyperparameters are those of llama.cpp's own converter, bit for bit."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from support.converter import Conversion, convert, train_sentencepiece  # noqa: E402
from support.hub_configs import HUB_CONFIGS  # noqa: E402
from support.tiny_models import TINY_DECODERS, VOCABULARY, TinyModel  # noqa: E402

from edgetune.errors import ModelError  # noqa: E402
from edgetune.gguf.architectures import ARCHITECTURES, find_architecture  # noqa: E402
from edgetune.gguf.architectures.decoder import Decoder  # noqa: E402
from edgetune.gguf.architectures.outtype import resolve_outtype  # noqa: E402
from edgetune.gguf.architectures.plan import OutputTensor  # noqa: E402
from edgetune.gguf.architectures.rope import frequency_divisors  # noqa: E402
from edgetune.gguf.tensor_types import plain_types  # noqa: E402
from edgetune.models.config import ModelConfig  # noqa: E402
from edgetune.weights.base import TensorInfo  # noqa: E402


@dataclass(frozen=True)
class Case:
    """A model stored in `dtype` and written with --outtype `outtype`."""

    model: TinyModel
    dtype: str
    outtype: str

    @property
    def folder(self) -> str:
        return f"{self.model.name}-{self.dtype}"

    def __str__(self) -> str:
        return f"{self.folder}-to-{self.outtype}"


MODELS = {model.name: model for model in TINY_DECODERS}
CASES = [
    *(Case(model, "bfloat16", "auto") for model in TINY_DECODERS),
    *(
        Case(MODELS[name], dtype, outtype)
        for name, dtype, outtype in product(("llama-3.2", "gemma-2"), ("float32", "float16"), ("auto", "f32", "bf16"))
    ),
    Case(MODELS["llama-3.2"], "bfloat16", "f16"),
    Case(MODELS["gemma-3"], "float16", "f32"),
]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every model, and the file that llama.cpp's converter makes of it: CASE.gguf, CONFIG.gguf."""
    root = tmp_path_factory.mktemp("architectures")
    train_sentencepiece(
        root, vocab_size=VOCABULARY, sentences=[f"the {n} words of sentence {n * n}" for n in range(99)]
    )
    for case in CASES:
        if not (root / case.folder).exists():
            case.model.save(root / case.folder, case.dtype)
            (root / case.folder / "tokenizer.model").write_bytes((root / "tokenizer.model").read_bytes())
    jobs = [Conversion(root / case.folder, root / f"{case}.gguf", case.outtype) for case in CASES]
    for name, settings in HUB_CONFIGS.items():
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps({"vocab_size": VOCABULARY, **settings}))
        (root / name / "tokenizer.model").write_bytes((root / "tokenizer.model").read_bytes())
        jobs.append(Conversion(root / name, root / f"{name}.gguf", metadata_only=True))
    convert(jobs)
    return root


def read_settings(folder: Path) -> ModelConfig:
    return ModelConfig(json.loads((folder / "config.json").read_text()), where=folder.name)


def read_model(folder: Path) -> tuple[ModelConfig, dict[str, TensorInfo]]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        infos = {n: TensorInfo(n, tuple(s.get_shape()), s.get_dtype()) for n, s in slices.items()}
    return read_settings(folder), infos


def bytes_of(tensor: OutputTensor, weights: Mapping[str, Any], kind: GGMLQuantizationType) -> bytes:
    """The tensor as the pass makes it: float32 rows, transformed block by block, rounded to `kind`."""
    values = torch.from_numpy(tensor.computed) if tensor.source is None else weights[tensor.source].float()
    if tensor.transform is not None:
        step = 3 * tensor.rows_together if values.ndim > 1 else len(values)
        values = torch.cat([torch.from_numpy(tensor.transform(block.numpy())) for block in values.split(step)])
    assert tuple(values.shape) == tensor.shape
    values = values.to({"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind.name])
    return values.contiguous().view(torch.uint8).numpy().tobytes()


def hyperparameters(reader: GGUFReader, architecture: str) -> dict[str, Any]:
    return {
        name: (field.types, field.contents())
        for name, field in reader.fields.items()
        if name.startswith(f"{architecture}.") or name == "general.architecture"
    }


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_family_has_the_tensors_of_llama_cpps_converter(converted: Path, case: Case) -> None:
    config, infos = read_model(converted / case.folder)
    weights = load_file(converted / case.folder / "model.safetensors")
    plan = find_architecture(config, where="").plan(config, infos)
    types = plain_types(plan, GGMLQuantizationType[resolve_outtype(case.outtype, infos)])
    reference = {tensor.name: tensor for tensor in GGUFReader(converted / f"{case}.gguf").tensors}
    assert sorted(tensor.name for tensor in plan) == sorted(reference)
    for tensor in plan:
        expected = reference[tensor.name]
        assert types[tensor.name] == expected.tensor_type, tensor.name
        assert tensor.shape == tuple(int(length) for length in reversed(expected.shape)), tensor.name
        assert bytes_of(tensor, weights, types[tensor.name]) == expected.data.tobytes(), tensor.name


@pytest.mark.parametrize("name", [*(f"{m.name}-bfloat16-to-auto" for m in TINY_DECODERS), *HUB_CONFIGS])
def test_a_family_has_the_hyperparameters_of_llama_cpps_converter(converted: Path, name: str, tmp_path: Path) -> None:
    config = read_settings(converted / name.removesuffix("-to-auto"))
    architecture = find_architecture(config, where="")
    writer = GGUFWriter(tmp_path / "described.gguf", architecture.gguf_name)
    architecture.describe(config, writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    ours = hyperparameters(GGUFReader(tmp_path / "described.gguf"), architecture.gguf_name)
    assert ours == hyperparameters(GGUFReader(converted / f"{name}.gguf"), architecture.gguf_name)


@pytest.mark.parametrize("name", [name for name, family in ARCHITECTURES.items() if isinstance(family, Decoder)])
def test_a_familys_defaults_are_those_of_its_transformers_class(name: str) -> None:
    theirs = getattr(transformers, name).config_class
    defaults = {"rope_theta": 10000.0, **ARCHITECTURES[name].defaults}
    if name == "Gemma3ForCausalLM":
        assert theirs.default_theta == {"global": 1000000.0, "local": defaults.pop("rope_theta")}
    for field, value in defaults.items():
        assert value == getattr(theirs, "default_theta" if field == "rope_theta" else field), field


def llama3_scaled(base: float, size: int, factor: float) -> ModelConfig:
    """One head of width `size`, scaled as Llama 3.1 is."""
    rope = {"rope_type": "llama3", "rope_theta": base, "factor": factor, "original_max_position_embeddings": 8192}
    shape = {"hidden_size": size, "num_attention_heads": 1, "max_position_embeddings": 131072}
    scaling = {**rope, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return ModelConfig({**shape, "rope_parameters": scaling}, where="")


@pytest.mark.parametrize("base", [10000.0, 130000.0, 500000.0, 5e6])
@pytest.mark.parametrize("size", [64, 80, 96, 128])
@pytest.mark.parametrize("factor", [2.0, 8.0, 32.0])
def test_frequency_divisors_are_what_transformers_divides_by(base: float, size: int, factor: float) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = llama3_scaled(base, size, factor)
    divisors = frequency_divisors(config)
    assert divisors is not None
    assert divisors.dtype == np.float32
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](transformers.LlamaConfig(**config.settings), "cpu")
    plain = 1 / base ** (torch.arange(0, size, 2).float() / size)
    assert np.allclose(plain.numpy() / divisors, scaled.numpy(), rtol=1e-6)


def test_frequency_divisors_need_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    config = llama3_scaled(500000.0, 64, 32.0)
    expected = frequency_divisors(config)
    monkeypatch.setitem(sys.modules, "torch", None)
    divisors = frequency_divisors(config)
    assert divisors is not None
    assert np.allclose(divisors, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("spelling", ["older", "newer"])
def test_older_and_newer_spellings_of_rotary_embeddings_are_one_model(spelling: str, tmp_path: Path) -> None:
    """Gemma 3's config.json on the hub says rope_theta and rope_scaling, Transformers 5 writes rope_parameters."""
    older = {
        "rope_theta": 1000000,
        "rope_local_base_freq": 10000,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 6,
    }
    common = MODELS["gemma-3"].config().to_dict()
    common.pop("rope_parameters")
    settings = {**common, **older}
    if spelling == "newer":
        settings = transformers.Gemma3TextConfig.from_dict(settings).to_dict()
    writer = GGUFWriter(tmp_path / "x.gguf", "gemma3")
    ARCHITECTURES["Gemma3ForCausalLM"].describe(ModelConfig(settings, where=""), writer)
    said = {key.removeprefix("gemma3.rope."): value.value for key, value in writer.kv_data[0].items() if "rope" in key}
    assert said == {"freq_base": 1e6, "freq_base_swa": 1e4, "scaling.type": "linear", "scaling.factor": 8.0}
    writer.close()


def infos_of(**stored: str) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, (4,) if name.startswith("norm") else (4, 4), kind) for name, kind in stored.items()}


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"a": "BF16", "b": "F16"}, "BF16"),
        ({"b": "BF16", "a": "F16"}, "F16"),
        ({"a": "F32", "b": "BF16"}, "BF16"),
        ({"a": "F32", "norm": "BF16"}, "F16"),
        ({"a": "F64"}, "F16"),
    ],
)
def test_auto_is_the_type_of_the_first_matrix_in_16_bits(stored: dict[str, str], expected: str) -> None:
    assert resolve_outtype("auto", infos_of(**stored)) == expected
    assert resolve_outtype("f32", infos_of(**stored)) == "F32"


def planned(model: TinyModel, tmp_path: Path, **changes: Any) -> list[OutputTensor]:
    """The plan of a model's own tensors under a configuration that says something else."""
    config, infos = read_model(model.save(tmp_path / model.name))
    return find_architecture(config, where="").plan(config.replace(**changes), infos)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("llama-2", "hidden_act", "gelu"),
        ("gemma-2", "hidden_activation", "gelu"),
        ("gemma-2", "final_logit_softcapping", None),
        ("gemma-2", "layer_types", ["full_attention"] * 2),
        ("gemma-2", "tie_word_embeddings", False),
        ("gemma-3", "attn_logit_softcapping", 50.0),
        ("gemma-3", "sliding_window_pattern", 4),
        ("gemma-3", "use_bidirectional_attention", True),
        ("granite", "head_dim", 32),
        ("smollm3", "no_rope_layers", [1, 1, 1, 1, 1]),
        ("llama-2", "num_hidden_layers", 1),
        ("llama-2", "vocab_size", VOCABULARY + 8),
    ],
)
def test_a_configuration_that_llama_cpp_cannot_compute_is_refused(
    name: str, field: str, value: Any, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=field):
        planned(MODELS[name], tmp_path, **{field: value})


@pytest.mark.parametrize(
    ("name", "rope", "named"),
    [
        ("llama-2", {"rope_type": "longrope"}, "longrope"),
        ("llama-2", {"rope_type": "linear"}, "factor"),
        ("llama-2", {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16}, "beta_fast"),
        ("llama-2", {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 1.0}, "attention_factor"),
        ("qwen2", {"rope_type": "llama3", "factor": 4.0}, "llama3"),
        ("smollm3", {"rope_type": "llama3", "factor": 4.0}, "llama3"),
        ("gemma-2", {"rope_type": "linear", "factor": 4.0}, "linear"),
        ("gemma-2", {"rope_theta": 500000.0}, "rope_theta"),
        ("gemma-3", {"sliding_attention": {"rope_type": "linear", "factor": 8.0}}, "linear"),
        ("phi-3", {"rope_type": "linear", "factor": 4.0}, "linear"),
        ("phi-3", {"rope_type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}, "long_factor"),
    ],
)
def test_a_rotary_embedding_that_llama_cpp_cannot_compute_is_refused(
    name: str, rope: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=named):
        planned(MODELS[name], tmp_path, rope_parameters=rope)


def test_a_bias_without_a_place_is_refused_by_name(tmp_path: Path) -> None:
    biased = replace(MODELS["qwen3"], name="qwen3-biased", settings={"attention_bias": True})
    with pytest.raises(ModelError, match=r"o_proj\.bias"):
        planned(biased, tmp_path)


def test_a_model_that_lacks_a_tensor_is_refused_by_its_name(tmp_path: Path) -> None:
    config, infos = read_model(MODELS["llama-2"].save(tmp_path / "model"))
    del infos["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(ModelError, match=r"lacks the tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        find_architecture(config, where="").plan(config, infos)


def test_an_unknown_architecture_is_refused_with_the_way_out() -> None:
    config = ModelConfig({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}, where="m")
    with pytest.raises(ModelError, match=r"MixtralForCausalLM.*LlamaForCausalLM.*--converter PATH"):
        find_architecture(config, where="m")


def test_what_llama_cpp_computes_differently_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned(MODELS["mistral"], tmp_path, sliding_window=128)
    planned(MODELS["gemma-2"], tmp_path, query_pre_attn_scalar=224)
    said = capsys.readouterr().err
    assert "sliding window of 128 tokens" in said
    assert "query_pre_attn_scalar 224" in said
