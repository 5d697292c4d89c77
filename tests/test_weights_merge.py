"""`merge` writes a model that Transformers loads, whatever kind of source it is given, or it writes nothing."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from gguf import GGUFReader  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from support.folding import folded_tensor, folded_tensors  # noqa: E402
from support.short_vocabulary import WORDS  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from edgetune.errors import AdapterError, ModelError, NumericalError, OutputError  # noqa: E402
from edgetune.models.load import load_model  # noqa: E402
from edgetune.models.locate import locate_model  # noqa: E402
from edgetune.weights import merge as merging  # noqa: E402
from edgetune.weights.merge import merge  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402
from edgetune.weights.stream import open_folded  # noqa: E402

IDS = torch.tensor([[1, 42, 300, 7, 2, 999, 15, 4000]])


def train_nothing(model, out: Path, **settings) -> Path:
    """A LoRA adapter whose update is random."""
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, **{"target_modules": "all-linear", **settings}))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def adapter(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    return train_nothing(model, tmp_path_factory.mktemp("adapters") / "lora")


@pytest.fixture
def sharded(tiny_llama: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(tiny_llama).save_pretrained(folder, max_shard_size="2MB")
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


def logits(model, ids=IDS):
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.mark.parametrize("max_shard_bytes", [10**9, 2_000_000])
def test_the_merged_model_gives_the_logits_of_the_unmerged_adapter(
    max_shard_bytes: int, adapter: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    report = merge(resolve_source(str(adapter)), tmp_path / "merged", max_shard_bytes=max_shard_bytes)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    adapted = logits(peft.PeftModel.from_pretrained(base, adapter))
    assert (logits(merged) - adapted).abs().max() < 1e-4
    assert (adapted - logits(AutoModelForCausalLM.from_pretrained(tiny_llama))).abs().max() > 0.01
    assert (report.shards > 1) == (max_shard_bytes < 10**9)
    assert (tmp_path / "merged" / "model.safetensors.index.json").exists() == (report.shards > 1)
    assert report.bytes == sum(tensor.nbytes for tensor in merged.state_dict().values()) - merged.lm_head.weight.nbytes
    assert report.folded_modules == 14


def test_tokenizer_template_and_generation_settings_come_along(adapter: Path, tiny_llama: Path, tmp_path: Path) -> None:
    merge(resolve_source(str(adapter)), tmp_path / "merged")
    tokenizer, original = AutoTokenizer.from_pretrained(tmp_path / "merged"), AutoTokenizer.from_pretrained(tiny_llama)
    assert tokenizer.chat_template == original.chat_template
    assert tokenizer.encode("It's 2 o'clock.") == original.encode("It's 2 o'clock.")
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config
    assert (tmp_path / "merged" / "generation_config.json").exists()


def test_a_tokenizer_beside_the_adapter_wins_over_the_bases(adapter: Path, tiny_llama: Path, tmp_path: Path) -> None:
    own = tmp_path / "adapter"
    train_nothing(AutoModelForCausalLM.from_pretrained(tiny_llama), own)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(own)
    assert resolve_source(str(own)).load_tokenizer().chat_template == tokenizer.chat_template
    assert resolve_source(str(adapter)).load_tokenizer().chat_template != tokenizer.chat_template


def test_added_tokens_without_their_embeddings_are_refused(adapter: Path, tiny_llama: Path, tmp_path: Path) -> None:
    own = train_nothing(AutoModelForCausalLM.from_pretrained(tiny_llama), tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(own)
    with pytest.raises(ModelError, match=rf"{WORDS} rows.*resized embeddings"):
        merge(resolve_source(str(own)), tmp_path / "merged")


@pytest.fixture(scope="module")
def taught(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A chat format taught to a base model: two new tokens, padded to 64, embeddings trained; and its logits."""
    folder = tmp_path_factory.mktemp("taught") / "adapter"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_llama), AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.add_tokens(["<turn>", "<end>"], special_tokens=True)
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64)
    settings = {"ensure_weight_tying": True, "modules_to_save": ["embed_tokens", "lm_head"]}
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj"], **settings))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    adapted.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, logits(adapted, torch.tensor([[WORDS, 1, 42, WORDS + 1]]))


def test_a_chat_format_that_was_taught_with_new_tokens_is_merged_with_its_tokenizer(taught, tmp_path: Path) -> None:
    folder, expected = taught
    merge(resolve_source(str(folder)), tmp_path / "merged")
    merged, tokenizer = (kind.from_pretrained(tmp_path / "merged") for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert merged.config.vocab_size == WORDS + 64
    assert merged.config.tie_word_embeddings
    ids = tokenizer("<turn>Hello<end>")["input_ids"]
    assert (ids[0], ids[-1]) == (WORDS, WORDS + 1)
    assert (logits(merged, torch.tensor([[WORDS, 1, 42, WORDS + 1]])) - expected).abs().max() < 1e-4


def test_a_chat_format_that_was_taught_with_new_tokens_is_exported(taught, tmp_path: Path, edgetune_command) -> None:
    folder, _ = taught
    done = edgetune_command("export", folder, "--quant", "f32", "--out", tmp_path / "model.gguf")
    assert done.exit_code == 0, done.stderr
    trained = folded_tensor(open_folded(resolve_source(str(folder))), "model.embed_tokens.weight")
    tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    assert np.array_equal(tensors["token_embd.weight"].data, trained.numpy())
    assert "output.weight" not in tensors


def test_a_sharded_base_gives_the_same_tensors_as_one_file(adapter: Path, sharded: Path) -> None:
    one = dict(folded_tensors(resolve_source(str(adapter))))
    many = dict(folded_tensors(resolve_source(str(adapter), base=str(sharded))))
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)


def test_a_gguf_base_gives_the_tensors_that_training_reads_from_it(smollm2_gguf: Path) -> None:
    # Transformers reads the same (test_models.py), in more time.
    expected = load_model(locate_model(str(smollm2_gguf)), dtype=torch.float32).state_dict()
    folded = open_folded(resolve_source(str(smollm2_gguf)))
    assert set(expected) - set(folded.tensors) == {"lm_head.weight"}
    for name in [*list(folded.tensors)[:12], "model.norm.weight", "model.layers.29.self_attn.q_proj.weight"]:
        assert torch.equal(folded_tensor(folded, name), expected[name]), name


def write_run(folder: Path, tiny_llama: Path, recorded: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    train_nothing(model, folder / "adapter")
    config = folder / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(recorded)}))
    (folder / "recipe.yaml").write_text(f"name: mood\ntask: chat\nbase:\n  model: {tiny_llama}\n")
    return folder


def test_a_run_directory_names_its_base_adapter_and_recipe(tiny_llama: Path, tmp_path: Path) -> None:
    source = resolve_source(str(write_run(tmp_path / "run", tiny_llama, recorded=tiny_llama)))
    assert (source.name, source.base.folder) == ("mood", tiny_llama)
    assert source.adapter is not None
    assert source.recipe == tmp_path / "run" / "recipe.yaml"


def test_an_adapter_that_records_another_base_than_the_run_is_refused_unless_the_base_is_named(
    tiny_llama: Path, sharded: Path, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", tiny_llama, recorded=sharded)
    with pytest.raises(AdapterError, match=r"sharded.*--base"):
        resolve_source(str(run))
    assert resolve_source(str(run), base=str(sharded)).base.folder == sharded


def test_a_run_without_a_finished_adapter_says_how_to_finish_it(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: x\nbase: {model: y}\n")
    with pytest.raises(AdapterError, match="--resume"):
        resolve_source(str(tmp_path))


def adapter_files(folder: Path, config: object, weights: str = "adapter_model.safetensors") -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    (folder / weights).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("config", "weights", "says"),
    [
        ("{", "adapter_model.safetensors", "not readable JSON"),
        ({"r": 8}, "adapter_model.safetensors", "peft_type"),
        ({"peft_type": "LORA"}, "adapter_model.safetensors", "--base MODEL"),
        ({"peft_type": "LORA"}, "adapter_model.bin", "pickle"),
        ({"peft_type": "LORA"}, "other.bin", "has no adapter_model.safetensors"),
    ],
)
def test_a_damaged_adapter_folder_is_refused(config, weights: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=says):
        resolve_source(str(adapter_files(tmp_path / "adapter", config, weights)))


def test_a_recorded_base_that_is_gone_is_told_with_the_way_out(adapter: Path, tmp_path: Path) -> None:
    folder = adapter_files(tmp_path / "adapter", {"peft_type": "LORA", "base_model_name_or_path": "/gone/model"})
    with pytest.raises(ModelError, match=r"/gone/model.*--base"):
        resolve_source(str(folder))


def test_nothing_there_is_a_model_error() -> None:
    with pytest.raises(ModelError):
        resolve_source("./no/such/thing")


def test_a_base_for_a_whole_model_is_refused(tiny_llama: Path) -> None:
    with pytest.raises(AdapterError, match="whole model"):
        resolve_source(str(tiny_llama), base=str(tiny_llama))


def test_a_missing_shard_is_refused_by_name(sharded: Path) -> None:
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ModelError, match=f"{shard.name}.*missing"):
        open_folded(resolve_source(str(sharded)))


def test_a_truncated_shard_is_refused_by_name(sharded: Path) -> None:
    shard = sorted(sharded.glob("model-*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ModelError, match=f"{shard.name}.*truncated"):
        open_folded(resolve_source(str(sharded)))


def test_an_index_that_disagrees_with_its_shards_is_refused(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    del content["weight_map"]["model.norm.weight"]
    index.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"has model\.norm\.weight, which model.safetensors.index.json lacks"):
        open_folded(resolve_source(str(sharded)))


def test_an_index_that_points_out_of_the_folder_is_refused(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="files in this folder"):
        open_folded(resolve_source(str(sharded)))


def without_weights(base: Path, folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text((base / "config.json").read_text())
    return folder


def test_pickled_weights_are_refused_with_a_way_out(tiny_llama: Path, tmp_path: Path) -> None:
    folder = without_weights(tiny_llama, tmp_path / "pickled")
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"pickles.*save_pretrained"):
        open_folded(resolve_source(str(folder)))


def test_quantized_weights_are_refused_with_a_way_out(tiny_llama: Path, tmp_path: Path) -> None:
    folder = without_weights(tiny_llama, tmp_path / "quantized")
    save_file({"model.norm.weight": torch.zeros(4, dtype=torch.uint8)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"quantized.*--base"):
        open_folded(resolve_source(str(folder)))


def test_a_full_disk_leaves_the_old_model_and_nothing_else(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "merged"
    out.mkdir(parents=True)
    (out / "old.txt").write_text("old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(merging, "_write_tensor", fail)
    with pytest.raises(OutputError, match="disk is full"):
        merge(resolve_source(str(adapter)), out, force=True)
    assert [file.name for file in out.parent.iterdir()] == ["merged"]
    assert [file.name for file in out.iterdir()] == ["old.txt"]


def test_an_existing_folder_is_kept_without_force(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="--force"):
        merge(resolve_source(str(adapter)), tmp_path)


def test_a_base_with_nan_is_refused_and_nothing_is_written(tiny_llama: Path, tmp_path: Path) -> None:
    folder = without_weights(tiny_llama, tmp_path / "nan")
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(folder)
    weights = load_file(tiny_llama / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][1, 1] = float("inf")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NumericalError, match=r"layers\.0\.mlp\.up_proj\.weight of the base"):
        merge(resolve_source(str(folder)), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
