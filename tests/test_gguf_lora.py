"""A LoRA written alone does in llama.cpp, beside its base, what it does in PEFT; what cannot be said is refused."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from gguf import GGUFReader, GGUFWriter  # noqa: E402
from peft import LoraConfig  # noqa: E402
from support.folding import make_adapter  # noqa: E402
from support.tiny_models import TINY_DECODERS, VOCABULARY, TinyModel  # noqa: E402

from edgetune.errors import AdapterError, NumericalError, OutputError, UsageError  # noqa: E402
from edgetune.gguf.architectures import find_architecture  # noqa: E402
from edgetune.gguf.encode import to_float32  # noqa: E402
from edgetune.gguf.lora import export_adapter  # noqa: E402
from edgetune.runtime import native  # noqa: E402
from edgetune.weights.source import ModelSource, resolve_source  # noqa: E402
from edgetune.weights.stream import open_folded  # noqa: E402

MODELS = {model.name: model for model in TINY_DECODERS}
UNTIED = replace(MODELS["llama-3.2"], name="llama-untied", settings={"tie_word_embeddings": False})
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = [1, *range(7, 400, 13)]

ADAPTERS = {
    "plain": {"r": 8, "lora_alpha": 16},
    "rslora": {"r": 8, "lora_alpha": 16, "use_rslora": True},
    "patterns": {
        "r": 8,
        "lora_alpha": 16,
        "rank_pattern": {"q_proj": 4, "layers.1.mlp.down_proj": 3},
        "alpha_pattern": {"k_proj": 5, "q_proj": 24},
    },
    "rslora-patterns": {"r": 6, "lora_alpha": 3, "use_rslora": True, "rank_pattern": {"v_proj": 2}},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> _Bases:
    return _Bases(tmp_path_factory.mktemp("bases"))


class _Bases:
    """Bases as Transformers folders and as float32 GGUF files, each made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def model(self, model: TinyModel) -> Path:
        out = self._folder / model.name
        return out if out.exists() else model.save(out, "float32")

    def gguf(self, model: TinyModel) -> Path:
        out = self._folder / f"{model.name}.gguf"
        if not out.exists():
            write_base(resolve_source(str(self.model(model))), out)
        return out


def write_base(source: ModelSource, out: Path) -> None:
    """The base in float32 without a vocabulary: llama.cpp is given ids."""
    folded = open_folded(source)
    architecture = find_architecture(folded.config, where=source.name)
    writer = GGUFWriter(out, architecture.gguf_name)
    architecture.describe(folded.config, writer)
    writer.add_tokenizer_model("no_vocab")
    if f"{architecture.gguf_name}.vocab_size" not in writer.kv_data[0]:
        writer.add_vocab_size(VOCABULARY)
    for tensor in architecture.plan(folded.config, folded.tensors):
        values = tensor.computed if tensor.source is None else to_float32(folded.load(tensor.source))
        writer.add_tensor(tensor.name, values if tensor.transform is None else tensor.transform(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama_logits(model_file: Path, adapter: Path | None) -> np.ndarray:
    """Logits of llama.cpp in float32 throughout, (ids, vocabulary)."""
    llama = native.open_library()
    model = native.load_model(model_file, extra_kernels=False)
    parameters = llama.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 128
    parameters.type_k = parameters.type_v = 0
    parameters.flash_attn_type = 0
    context = llama.llama_init_from_model(model, parameters)
    loaded = None
    if adapter is not None:
        loaded = llama.llama_adapter_lora_init(model, str(adapter).encode())
        assert loaded, native.last_error()
        adapters, scales = (llama.llama_adapter_lora_p_ctypes * 1)(loaded), (ctypes.c_float * 1)(1.0)
        assert llama.llama_set_adapters_lora(context, adapters, 1, scales) == 0
    batch = llama.llama_batch_init(len(IDS), 0, 1)
    batch.n_tokens = len(IDS)
    for position, token in enumerate(IDS):
        batch.token[position], batch.pos[position] = token, position
        batch.n_seq_id[position], batch.seq_id[position][0], batch.logits[position] = 1, 0, True
    assert llama.llama_decode(context, batch) == 0
    logits = np.ctypeslib.as_array(llama.llama_get_logits(context), (len(IDS), VOCABULARY)).copy()
    llama.llama_batch_free(batch)
    llama.llama_free(context)
    llama.llama_model_free(model)
    return logits


def peft_logits(base: Path, adapter: Path) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    adapted = peft.PeftModel.from_pretrained(model, adapter).eval()
    with torch.no_grad():
        return adapted(torch.tensor([IDS])).logits[0].numpy()


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference, relative to the spread of the logits."""
    return float(np.abs(one - other).max() / other.std())


def check_equal(
    bases: _Bases, model: TinyModel, config: LoraConfig, folder: Path, *, tolerance: float = 1e-4, **options
) -> Path:
    """Export an adapter of `config`; with it, llama.cpp must give PEFT's logits, and other ones without."""
    adapter = make_adapter(bases.model(model), folder / "adapter", config, scale=0.05)
    out = folder / "adapter.gguf"
    report = export_adapter(resolve_source(str(adapter), base=str(bases.model(model))), out, **options)
    assert report.bytes == out.stat().st_size
    expected = peft_logits(bases.model(model), adapter)
    assert distance(llama_logits(bases.gguf(model), out), expected) < tolerance
    assert distance(llama_logits(bases.gguf(model), None), expected) > 0.3
    return out


@pytest.mark.parametrize("settings", ADAPTERS.values(), ids=list(ADAPTERS))
def test_an_adapter_beside_its_base_gives_the_logits_of_peft(bases, settings, tmp_path) -> None:
    config = LoraConfig(target_modules=LINEAR, **settings)
    out = check_equal(bases, MODELS["llama-3.2"], config, tmp_path)
    fields = GGUFReader(out).fields
    assert fields["general.type"].contents() == "adapter"
    assert fields["adapter.type"].contents() == "lora"
    assert fields["adapter.lora.alpha"].contents() == settings["lora_alpha"]
    assert len(fields["edgetune.adapter.sha256"].contents()) == 64


@pytest.mark.parametrize("name", ["llama-narrow", "qwen2", "phi-3", "gemma-2", "mistral"])
def test_every_linear_layer_of_a_family_can_be_adapted(bases, name, tmp_path) -> None:
    config = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=4, lora_alpha=8)
    table = 5e-3 if name.startswith("gemma") else 1e-4  # llama.cpp looks GELU up in a table of float16 values
    check_equal(bases, MODELS[name], config, tmp_path, tolerance=table)


def test_an_untied_embedding_and_output_layer_can_be_adapted(bases, tmp_path) -> None:
    config = LoraConfig(target_modules=["embed_tokens", "lm_head", "k_proj"], r=4, lora_alpha=8, use_rslora=True)
    out = check_equal(bases, UNTIED, config, tmp_path)
    names = {tensor.name.removesuffix(".lora_a") for tensor in GGUFReader(out).tensors if tensor.name.endswith("a")}
    assert names == {"token_embd.weight", "output.weight", "blk.0.attn_k.weight", "blk.1.attn_k.weight"}


def test_an_activated_lora_is_written_with_its_invocation_tokens(bases, tmp_path) -> None:
    invocation = IDS[:2]  # PEFT's adapter acts from the first of them on, so here on the whole text
    config = LoraConfig(
        target_modules=LINEAR, r=8, lora_alpha=16, alora_invocation_tokens=invocation, task_type="CAUSAL_LM"
    )
    out = check_equal(bases, MODELS["llama-3.2"], config, tmp_path)
    assert GGUFReader(out).fields["adapter.alora.invocation_tokens"].contents() == invocation
    llama = native.open_library()
    model = native.load_model(bases.gguf(MODELS["llama-3.2"]), extra_kernels=False)
    loaded = llama.llama_adapter_lora_init(model, str(out).encode())
    count = llama.llama_adapter_get_alora_n_invocation_tokens(loaded)
    assert llama.llama_adapter_get_alora_invocation_tokens(loaded)[:count] == invocation
    llama.llama_model_free(model)


def test_biases_that_neither_file_nor_fold_can_hold_get_one_refusal_with_a_way_out(bases, tmp_path) -> None:
    source = _source(bases, tmp_path, LoraConfig(target_modules=["q_proj"], lora_bias=True))
    with pytest.raises(AdapterError, match=r"lora_bias, and \S+q_proj .* has no bias.*use the adapter with PEFT"):
        export_adapter(source, tmp_path / "adapter.gguf")


def test_float16_halves_the_file_and_stays_close(bases, tmp_path) -> None:
    config = LoraConfig(target_modules=LINEAR, r=8, lora_alpha=16)
    out = check_equal(bases, MODELS["llama-3.2"], config, tmp_path, tolerance=1e-2, outtype="f16")
    single = tmp_path / "single.gguf"
    source = resolve_source(str(tmp_path / "adapter"), base=str(bases.model(MODELS["llama-3.2"])))
    export_adapter(source, single)
    assert out.stat().st_size < 0.6 * single.stat().st_size


def test_a_scale_of_zero_does_nothing(bases, tmp_path) -> None:
    model = MODELS["llama-3.2"]
    config = LoraConfig(target_modules=LINEAR, r=8, lora_alpha=0)
    adapter = make_adapter(bases.model(model), tmp_path / "adapter", config)
    out = tmp_path / "adapter.gguf"
    export_adapter(resolve_source(str(adapter), base=str(bases.model(model))), out)
    assert np.array_equal(llama_logits(bases.gguf(model), out), llama_logits(bases.gguf(model), None))


def test_the_same_adapter_gives_the_same_bytes_and_nothing_is_overwritten(bases, tmp_path) -> None:
    source = _source(bases, tmp_path, LoraConfig(target_modules=LINEAR, r=4))
    export_adapter(source, tmp_path / "one.gguf")
    export_adapter(source, tmp_path / "two.gguf")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        export_adapter(source, tmp_path / "one.gguf")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]), "is a IA3"),
        (peft.LoHaConfig(target_modules=["q_proj"], r=4), "is a LOHA"),
        (peft.OFTConfig(target_modules=["q_proj"], oft_block_size=8), "is a OFT"),
        (LoraConfig(target_modules=["q_proj"], use_dora=True), "is a DoRA"),
        (LoraConfig(target_modules=["q_proj"], init_lora_weights="pissa"), "init_lora_weights: pissa"),
        (LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens"]), r"trained \S+\.weight"),
        (LoraConfig(target_modules=["q_proj"], trainable_token_indices=[3, 5]), "trained rows"),
        (LoraConfig(target_modules=["embed_tokens"]), "both as embedding and as output layer"),
        (LoraConfig(target_modules=["lm_head"]), "both as embedding and as output layer"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_an_adapter_file_cannot_express_is_refused_with_the_alternative(bases, config, reason, tmp_path) -> None:
    source = _source(bases, tmp_path, config)
    with pytest.raises(AdapterError, match=f"{reason}.*without --adapter-only"):
        export_adapter(source, tmp_path / "adapter.gguf")
    assert not (tmp_path / "adapter.gguf").exists()


def test_trained_biases_are_refused(bases, tmp_path) -> None:
    config = LoraConfig(target_modules=["q_proj"], bias="all")
    source = _source(bases, tmp_path, config, model=MODELS["llama-biased"])
    with pytest.raises(AdapterError, match="trains biases"):
        export_adapter(source, tmp_path / "adapter.gguf")


def test_an_adapter_trained_with_added_tokens_is_refused(tiny_llama, tiny_tokenizer, tmp_path) -> None:
    adapter = make_adapter(tiny_llama, tmp_path / "adapter", LoraConfig(target_modules=["q_proj"]))
    tiny_tokenizer.save_pretrained(adapter)
    tokenizer = transformers.AutoTokenizer.from_pretrained(adapter)
    tokenizer.add_tokens(["<call>"], special_tokens=True)
    tokenizer.save_pretrained(adapter)
    with pytest.raises(AdapterError, match=r"1 added tokens \('<call>'\)"):
        export_adapter(resolve_source(str(adapter), base=str(tiny_llama)), tmp_path / "adapter.gguf")


def test_another_chat_template_than_the_base_s_is_told(tiny_llama, tiny_tokenizer, tmp_path, capsys) -> None:
    adapter = make_adapter(tiny_llama, tmp_path / "adapter", LoraConfig(target_modules=["q_proj"]))
    tiny_tokenizer.save_pretrained(adapter)
    source = resolve_source(str(adapter), base=str(tiny_llama))
    export_adapter(source, tmp_path / "same.gguf")
    assert "chat template" not in capsys.readouterr().err
    (adapter / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    export_adapter(source, tmp_path / "other.gguf")
    assert "another chat template" in capsys.readouterr().err


def test_an_adapter_of_another_base_is_refused(bases, tmp_path) -> None:
    source = _source(bases, tmp_path, LoraConfig(target_modules=["q_proj"], r=4))
    other = resolve_source(str(tmp_path / "adapter"), base=str(bases.model(MODELS["llama-narrow"])))
    with pytest.raises(AdapterError, match=r"was made for another base: .*q_proj.*\[4, 256\].*needs \[4, 192\]"):
        export_adapter(replace(source, base=other.base), tmp_path / "adapter.gguf")


def test_a_value_that_is_not_finite_is_refused_with_its_tensor(bases, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    source = _source(bases, tmp_path, LoraConfig(target_modules=["q_proj"]))
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    key = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
    tensors[key][5, 0] = 1e6
    save_file(tensors, file)
    with pytest.raises(NumericalError, match=r"blk\.1\.attn_q\.weight has values beyond float16's range"):
        export_adapter(source, tmp_path / "adapter.gguf", outtype="f16")
    tensors[key][5, 0] = float("nan")
    save_file(tensors, file)
    with pytest.raises(NumericalError, match=r"blk\.1\.attn_q\.weight contains NaN"):
        export_adapter(source, tmp_path / "adapter.gguf")
    assert not list(tmp_path.glob("*.gguf*"))


def test_a_whole_model_has_no_adapter_to_write_alone(bases, tmp_path) -> None:
    with pytest.raises(UsageError, match="is a whole model"):
        export_adapter(resolve_source(str(bases.model(UNTIED))), tmp_path / "adapter.gguf")


def _source(bases: _Bases, folder: Path, config, model: TinyModel = MODELS["llama-3.2"]) -> ModelSource:
    base = bases.model(model)
    return resolve_source(str(make_adapter(base, folder / "adapter", config)), base=str(base))
