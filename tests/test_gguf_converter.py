"""An architecture that edgetune does not know goes through a llama.cpp converter that the user has."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from gguf import GGMLQuantizationType  # noqa: E402
from support.converter import CONVERTER  # noqa: E402
from transformers import OlmoConfig, OlmoForCausalLM  # noqa: E402

from edgetune.models.gguf_file import GgufFile  # noqa: E402


@pytest.fixture
def olmo(smollm2_tokenizer, tmp_path: Path) -> Path:
    tokenizer = smollm2_tokenizer  # whole: the converter knows tokenizers by the ids that they give
    torch.manual_seed(0)
    config = OlmoConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4
    )
    OlmoForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "olmo")
    tokenizer.save_pretrained(tmp_path / "olmo")
    return tmp_path / "olmo"


def test_an_unknown_family_is_refused_with_the_converter_as_the_way_out(
    olmo: Path, tmp_path: Path, edgetune_command
) -> None:
    done = edgetune_command("export", olmo, "--out", tmp_path / "model.gguf")
    assert done.exit_code == 2
    assert "OlmoForCausalLM" in done.stderr
    assert "--converter" in done.stderr


def test_a_converter_of_the_users_makes_a_quantized_file(
    olmo: Path, tmp_path: Path, edgetune_command, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not CONVERTER.is_dir():
        pytest.skip(f"llama.cpp's converter is not installed ({CONVERTER})")
    monkeypatch.setenv("PYTHONPATH", str(CONVERTER))
    out = tmp_path / "out" / "model.gguf"
    done = edgetune_command("export", olmo, "--out", out, "--converter", CONVERTER / "convert_hf_to_gguf.py")
    assert done.exit_code == 0, done.stderr
    file = GgufFile(out)
    assert file.metadata["general.architecture"] == "olmo"
    assert file.tensors["blk.0.attn_q.weight"].kind == GGMLQuantizationType.Q4_K
    assert list(out.parent.iterdir()) == [out]


def test_a_converter_that_fails_leaves_nothing_and_its_last_words(olmo: Path, tmp_path: Path, edgetune_command) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit('no such model class')")
    out = tmp_path / "out" / "model.gguf"
    done = edgetune_command("export", olmo, "--out", out, "--converter", tmp_path / "broken.py")
    assert done.exit_code == 2
    assert "no such model class" in done.stderr
    assert list(out.parent.iterdir()) == []


def test_a_converter_that_is_not_there_is_named(olmo: Path, tmp_path: Path, edgetune_command) -> None:
    done = edgetune_command("export", olmo, "--out", tmp_path / "m.gguf", "--converter", tmp_path / "none.py")
    assert done.exit_code == 2
    assert "none.py" in done.stderr
