"""A byte-level tokenizer may normalize text, and llama.cpp does not: what is proven, what is told, what is refused."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

pytest.importorskip("torch")

from support.tiny_tokenizers import QWEN2, byte_level, sentence_piece
from tokenizers import AddedToken, Regex, normalizers
from transformers import PreTrainedTokenizerFast

from edgetune.errors import ModelError
from edgetune.gguf.hard_text import hard_texts
from edgetune.gguf.llama_vocabulary import open_vocabulary
from edgetune.gguf.vocabularies.normalizer import find_normalizer
from edgetune.gguf.vocabularies.proof import write_vocabulary_only
from edgetune.gguf.vocabulary import build_vocabulary, parity_texts
from edgetune.gguf.write import export
from edgetune.models.gguf_file import GgufFile
from edgetune.models.gguf_tokenizer import open_gguf_tokenizer
from edgetune.models.tokenizer import wrap_tokenizer
from edgetune.runtime.session import Session
from edgetune.weights.source import resolve_source

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DECOMPOSED = "Ame\u0301lie mange une cre\u0300me bru\u0302le\u0301e."


def normalizing(normalizer: normalizers.Normalizer) -> PreTrainedTokenizerFast:
    """In the manner of Qwen: its split, ChatML, and a normalizer."""
    tokenizer = byte_level(QWEN2)
    tokenizer.backend_tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT
    return tokenizer


@pytest.mark.parametrize(
    ("normalizer", "title", "form"),
    [
        (normalizers.NFC(), "NFC", "NFC"),
        (normalizers.NFD(), "NFD", "NFD"),
        (normalizers.NFKC(), "NFKC", "NFKC"),
        (normalizers.NFKD(), "NFKD", "NFKD"),
        (normalizers.Sequence([normalizers.NFC()]), "NFC", "NFC"),
        (normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]), "NFD + StripAccents", None),
        (normalizers.Replace(Regex("[“”]"), '"'), "Replace", None),
    ],
    ids=["nfc", "nfd", "nfkc", "nfkd", "nfc in a sequence", "accents", "quotes"],
)
def test_text_that_is_normalized_gets_the_tokenizers_ids_and_the_rest_is_told(
    normalizer: normalizers.Normalizer, title: str, form: str | None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tokenizer = normalizing(normalizer)
    vocabulary = build_vocabulary(wrap_tokenizer(tokenizer, where="x"), 1000, where="x")
    warning = capsys.readouterr().err
    assert warning.count("warning") == 1
    assert f"normalizes text ({title})" in warning
    assert ("edgetune normalizes" in warning) is (form is not None)
    assert (vocabulary.pre, vocabulary.normalizer) == ("qwen2", form)
    assert len(vocabulary.differences) == 1
    write_vocabulary_only(vocabulary, tmp_path / "v.gguf")
    with open_vocabulary(tmp_path / "v.gguf") as opened:
        differing = 0
        for text in hard_texts():
            same = opened.encode(text, add_special=False) == tokenizer.encode(text)
            differing += not same
            if normalizer.normalize_str(text) == text:
                assert same, text
            assert opened.encode(normalizer.normalize_str(text), add_special=False) == tokenizer.encode(text)
        assert differing > 0


def test_the_normalizer_of_a_sentencepiece_is_told_beside_its_marks_for_spaces(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tokenizer = sentence_piece()
    spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), *spaces])
    vocabulary = build_vocabulary(wrap_tokenizer(tokenizer, where="x"), 1300, where="x")
    assert "normalizes text (NFKC)" in capsys.readouterr().err
    assert (vocabulary.model, vocabulary.add_space_prefix, vocabulary.normalizer) == ("llama", True, "NFKC")
    write_vocabulary_only(vocabulary, tmp_path / "v.gguf")
    with open_vocabulary(tmp_path / "v.gguf") as opened:
        for text in hard_texts():
            expected = tokenizer.encode(text, add_special_tokens=False)
            assert opened.encode(unicodedata.normalize("NFKC", text), add_special=False) == expected, text


@pytest.mark.parametrize(
    ("normalizer", "what"),
    [
        (normalizers.Lowercase(), r"Lowercase: 'Hello,' becomes 'hello,'"),
        (normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()]), "NFC \\+ Lowercase"),
        (normalizers.Prepend(" "), "Prepend"),
        (normalizers.Replace(" ", "_"), "Replace"),
        (normalizers.Strip(), "Strip"),
    ],
)
def test_a_tokenizer_that_rewrites_ordinary_text_is_refused_naming_its_normalizer(
    normalizer: normalizers.Normalizer, what: str
) -> None:
    with pytest.raises(ModelError, match=f"rewrites ordinary text.*{what}"):
        build_vocabulary(wrap_tokenizer(normalizing(normalizer), where="x"), 1000, where="x")


def test_a_wrong_split_is_found_behind_a_normalizer() -> None:
    from tokenizers import pre_tokenizers

    tokenizer = normalizing(normalizers.NFC())
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("[aeiou]+|[^aeiou]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    with pytest.raises(ModelError, match="differ on"):
        build_vocabulary(wrap_tokenizer(tokenizer, where="x"), 1000, where="x")


def test_an_added_token_that_the_form_would_change_is_left_as_it_is() -> None:
    tokenizer = normalizing(normalizers.NFKC())
    tokenizer.add_tokens([AddedToken("<｜x｜>", normalized=False, special=True)])
    light = wrap_tokenizer(tokenizer, where="x")
    normalizer = find_normalizer(light)
    assert normalizer is not None
    assert normalizer("ﬁ<｜x｜>½") == "fi<｜x｜>1⁄2"
    assert build_vocabulary(light, 1000, where="x").normalizer is None  # edgetune's runtime would change the token


def test_without_a_normalizer_nothing_is_rewritten(smollm2_tokenizer) -> None:
    light = wrap_tokenizer(smollm2_tokenizer, where="x")
    assert find_normalizer(light) is None
    assert set(hard_texts()) <= set(parity_texts(light))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Qwen2 of two random layers whose tokenizer normalizes to NFC, and its GGUF."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("qwen2")
    tokenizer = normalizing(normalizers.NFC())
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=960,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    # Transformers gives every folder of the family the class that splits and normalizes like this.
    settings = json.loads((folder / "model" / "tokenizer_config.json").read_text())
    (folder / "model" / "tokenizer_config.json").write_text(
        json.dumps({**settings, "tokenizer_class": "Qwen2Tokenizer"})
    )
    export(resolve_source(str(folder / "model")), folder / "model.gguf", preset="f16")
    return folder / "model", folder / "model.gguf"


def test_edgetunes_runtime_gives_decomposed_text_the_tokenizers_ids(exported: tuple[Path, Path]) -> None:
    from transformers import AutoTokenizer

    folder, file = exported
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": DECOMPOSED}], tokenize=False, add_generation_prompt=True
    )
    assert unicodedata.normalize("NFC", chat) != chat
    with Session.open(file) as session:
        for text in [DECOMPOSED, chat, *hard_texts()]:
            assert session.vocabulary.tokenize(text) == tokenizer.encode(text, add_special_tokens=False), text


def test_a_gguf_that_names_its_normalizer_is_trained_on_with_it(exported: tuple[Path, Path]) -> None:
    from transformers import AutoTokenizer

    folder, file = exported
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = open_gguf_tokenizer(GgufFile(file), where="x")
    assert ours is not None
    for text in [DECOMPOSED, *hard_texts()]:
        assert ours.encode(text) == tokenizer.encode(text, add_special_tokens=False)
