"""Vocabularies of the families as they are on the hub, tens of thousands of tokens each, read by llama.cpp alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.real_tokenizers import INST_CHAT, REAL  # noqa: E402

from edgetune.gguf.hard_text import hard_texts  # noqa: E402
from edgetune.gguf.llama_vocabulary import open_vocabulary  # noqa: E402
from edgetune.gguf.verification.chat_parity import check_chats  # noqa: E402
from edgetune.gguf.vocabularies.proof import write_vocabulary_only  # noqa: E402
from edgetune.gguf.vocabulary import build_vocabulary  # noqa: E402
from edgetune.gguf.write import export  # noqa: E402
from edgetune.models.gguf_file import GgufFile  # noqa: E402
from edgetune.runtime.session import Session  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402

DECOMPOSED = "Ame\u0301lie, n\u0303 and \u1112\u1161\u11ab."
"""Letters and accents apart; Qwen's tokenizer puts them together (NFC)."""


@pytest.mark.parametrize(
    ("name", "model", "pre"),
    [("llama3", "gpt2", "llama-bpe"), ("mistral", "llama", "default"), ("mistral-nemo", "gpt2", "tiny_aya")],
)
def test_a_familys_real_vocabulary_gives_its_ids(
    name: str, model: str, pre: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = REAL[name]()
    vocabulary = build_vocabulary(tokenizer, len(tokenizer.vocabulary) + 8, where=name)
    assert (vocabulary.model, vocabulary.pre, vocabulary.add_bos) == (model, pre, True)
    assert set(hard_texts()) <= set(vocabulary.proven_on)
    assert vocabulary.differences == ()  # in conversations and around all added tokens, too
    assert "warning" not in capsys.readouterr().err


def test_mistral_reads_conversations_as_training_does(tmp_path: Path) -> None:
    tokenizer = REAL["mistral"]()
    write_vocabulary_only(build_vocabulary(tokenizer, 32768, where="mistral"), tmp_path / "v.gguf")
    with open_vocabulary(tmp_path / "v.gguf") as opened:
        assert check_chats(INST_CHAT, opened, tokenizer) == (12, 8)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 of one random layer with the real tokenizer, in the hub's layout."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = REAL["qwen2"]()
    folder = tmp_path_factory.mktemp("qwen") / "Qwen2.5-tiny"
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = Qwen2Config(vocab_size=151936, num_hidden_layers=1, tie_word_embeddings=True, **shape)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "chat_template": tokenizer.chat_template,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_qwen_is_exported_with_its_real_tokenizer(
    qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = resolve_source(str(qwen))
    report = export(source, tmp_path / "qwen.gguf", preset="bf16")
    warnings = capsys.readouterr().err
    assert "normalizes text (NFC)" in warnings
    # An ordinary word of this vocabulary, which Qwen's split never lets through in one piece.
    assert "'</s>': llama.cpp always reads it as a special token" in warnings
    assert len(report.differences) == warnings.count("warning:") == 2
    assert report.pre_tokenizer == "qwen2"
    assert GgufFile(report.path).metadata["edgetune.normalizer"] == "NFC"
    tokenizer = source.open_tokenizer()
    assert tokenizer.encode(DECOMPOSED) == tokenizer.encode("Amélie, ñ and 한.")
    with Session.open(report.path, context_tokens=64) as session:
        for text in [DECOMPOSED, *hard_texts()]:
            assert session.vocabulary.tokenize(text) == tokenizer.encode(text), text
    with open_vocabulary(report.path) as alone:
        assert alone.encode(DECOMPOSED, add_special=False) != tokenizer.encode(DECOMPOSED)
        assert alone.encode("Amélie, ñ and 한.", add_special=False) == tokenizer.encode(DECOMPOSED)
