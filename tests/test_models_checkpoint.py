"""Which weights of a folder are read: those that Transformers reads, whatever else lies beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM  # noqa: E402

from edgetune.errors import ModelError  # noqa: E402
from edgetune.models.checkpoint import weight_files  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402
from edgetune.weights.stream import open_folded  # noqa: E402

INDEX = "model.safetensors.index.json"


def make(seed: int) -> LlamaForCausalLM:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(vocab_size=96, tie_word_embeddings=False, **sizes))


def save_single(folder: Path, seed: int) -> None:
    make(seed).save_pretrained(folder)


def save_shards(folder: Path, seed: int) -> None:
    make(seed).save_pretrained(folder, max_shard_size="10KB")


def read(folder: Path):
    """The embedding as edgetune reads it, and as Transformers does."""
    name = "model.embed_tokens.weight"
    ours = torch.from_numpy(open_folded(resolve_source(str(folder))).load(name).copy())
    return ours, AutoModelForCausalLM.from_pretrained(folder).state_dict()[name]


def test_a_single_file_goes_before_shards_as_in_transformers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_single(tmp_path, seed=0)
    save_shards(tmp_path, seed=1)
    ours, theirs = read(tmp_path)
    assert torch.equal(ours, theirs)
    assert torch.equal(ours, make(0).state_dict()["model.embed_tokens.weight"])
    said = " ".join(capsys.readouterr().err.split())
    assert "holds its weights twice: model.safetensors is read" in said
    assert INDEX in said


def test_a_single_file_over_the_index_of_shards_that_are_gone_loads_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_shards(tmp_path, seed=1)
    save_single(tmp_path, seed=0)
    assert (tmp_path / INDEX).is_file()
    capsys.readouterr()
    ours, theirs = read(tmp_path)
    assert torch.equal(ours, theirs)
    assert "twice" not in capsys.readouterr().err


def test_files_of_other_tools_are_no_weights(tmp_path: Path) -> None:
    save_shards(tmp_path, seed=0)
    (tmp_path / "consolidated.safetensors").write_bytes(b"not even one")
    ours, theirs = read(tmp_path)
    assert torch.equal(ours, theirs)
    assert "consolidated.safetensors" not in [file.name for file in weight_files(tmp_path)]


def test_safetensors_go_before_pickles_of_other_weights(tmp_path: Path) -> None:
    save_single(tmp_path, seed=0)
    torch.save(make(1).state_dict(), tmp_path / "pytorch_model.bin")
    ours, theirs = read(tmp_path)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("sharded", [False, True])
def test_the_file_that_the_configuration_names_is_read(sharded: bool, tmp_path: Path) -> None:
    save_single(tmp_path, seed=0)
    (save_shards if sharded else save_single)(tmp_path / "other", seed=1)
    for file in (tmp_path / "other").glob("model*"):
        shutil.copy(file, tmp_path / file.name.replace("model.safetensors", "named.safetensors"))
    settings = json.loads((tmp_path / "config.json").read_text())
    named = f"named.safetensors{'.index.json' if sharded else ''}"
    (tmp_path / "config.json").write_text(json.dumps({**settings, "transformers_weights": named}))
    ours, theirs = read(tmp_path)
    assert torch.equal(ours, theirs)
    assert torch.equal(ours, make(1).state_dict()["model.embed_tokens.weight"])


@pytest.mark.parametrize("named", ["../x.safetensors", "weights.bin", "gone.safetensors"])
def test_a_configuration_that_names_no_file_of_the_folder_is_refused(named: str, tmp_path: Path) -> None:
    save_single(tmp_path / "model", seed=0)
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "transformers_weights": named}))
    with pytest.raises(ModelError, match="transformers_weights"):
        open_folded(resolve_source(str(tmp_path / "model")))


def test_half_a_set_of_shards_is_not_taken_for_a_second_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_single(tmp_path, seed=0)
    save_shards(tmp_path, seed=1)
    next(tmp_path.glob("model-00001-*")).unlink()
    assert load_file(tmp_path / "model.safetensors")
    open_folded(resolve_source(str(tmp_path)))
    assert "twice" not in capsys.readouterr().err
