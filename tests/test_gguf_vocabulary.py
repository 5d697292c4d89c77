"""llama.cpp reads the written vocabulary as the tokenizer does, and the pre-tokenizer's name is found by proof."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from support.tiny_tokenizers import GPT2, LLAMA3, QWEN2, byte_level, sentence_piece, word_piece
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from edgetune.errors import ModelError
from edgetune.gguf import vocabulary as room
from edgetune.gguf.hard_text import everyday_texts, hard_texts
from edgetune.gguf.llama_vocabulary import LlamaVocabulary, open_vocabulary
from edgetune.gguf.vocabularies import proof
from edgetune.gguf.vocabularies.proof import write_vocabulary_only
from edgetune.gguf.vocabulary import GgufVocabulary, disagreement, parity_texts
from edgetune.models.tokenizer import ModelTokenizer, wrap_tokenizer


def build_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int, **options) -> GgufVocabulary:
    return room.build_vocabulary(wrap_tokenizer(tokenizer, where="x"), rows, where="x", **options)


@pytest.mark.parametrize(
    ("pattern", "name"), [(LLAMA3, "llama-bpe"), (QWEN2, "qwen2"), (None, "smollm"), (GPT2, "gpt-2")]
)
def test_the_pre_tokenizers_name_is_found_by_its_ids(pattern: str | None, name: str) -> None:
    tokenizer = byte_level(pattern)
    assert build_vocabulary(tokenizer, len(tokenizer)).pre == name


def test_a_wrong_guess_is_overruled_by_the_proof() -> None:
    tokenizer = byte_level(LLAMA3)
    assert build_vocabulary(tokenizer, len(tokenizer), likely_pre="gpt-2").pre == "llama-bpe"


def test_smollm2s_tokenizer_is_found_to_be_smollm(smollm2_tokenizer) -> None:
    assert build_vocabulary(smollm2_tokenizer, 49152).pre == "smollm"


def test_a_split_that_llama_cpp_lacks_is_refused_naming_the_text() -> None:
    tokenizer = byte_level(r"[aeiou]+|[^aeiou]+")
    with pytest.raises(ModelError, match="differ on"):
        build_vocabulary(tokenizer, len(tokenizer))


def test_whether_a_bos_is_added_is_what_the_tokenizer_does() -> None:
    assert build_vocabulary(byte_level(GPT2, begins=True), 1000).add_bos
    assert not build_vocabulary(byte_level(GPT2), 1000).add_bos


def test_added_tokens_and_unused_rows_have_their_own_types() -> None:
    from gguf import TokenType

    tokenizer = byte_level(GPT2)
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    vocabulary = build_vocabulary(tokenizer, len(tokenizer) + 2)
    kinds = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    assert kinds["<tool>"] == TokenType.USER_DEFINED
    assert kinds["<|user|>"] == kinds["<|begin|>"] == TokenType.CONTROL
    assert kinds[f"[PAD{len(tokenizer) + 1}]"] == TokenType.UNUSED
    assert len(vocabulary.tokens) == len(tokenizer) + 2


def test_a_sentencepiece_vocabulary_gives_the_same_ids() -> None:
    vocabulary = build_vocabulary(sentence_piece(), 1300)
    assert (vocabulary.model, vocabulary.add_bos, vocabulary.add_space_prefix) == ("llama", True, True)
    assert vocabulary.merges is None


@pytest.mark.parametrize(("scheme", "prefix"), [("first", False), ("always", True)])
def test_a_space_prefix_that_llama_cpp_lacks_is_settled_by_the_chat_template(
    scheme: str, prefix: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = sentence_piece()
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, split=False)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]"
        "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
    )
    assert build_vocabulary(tokenizer, 1300).add_space_prefix is prefix
    assert "conversations" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_without_a_chat_template_text_that_begins_with_a_word_settles_it(
    scheme: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = sentence_piece()
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, split=False)
    assert build_vocabulary(tokenizer, 1300).add_space_prefix
    assert "texts that begin with a word" in capsys.readouterr().err


def test_a_sentencepiece_that_makes_letters_small_is_refused() -> None:
    tokenizer = sentence_piece()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ModelError, match="rewrites ordinary text"):
        build_vocabulary(tokenizer, 1300)


def test_tokens_that_swallow_spaces_make_the_model_a_phi_3() -> None:
    tokenizer = sentence_piece()
    swallowing = [AddedToken(text, rstrip=True, normalized=False, special=True) for text in ("<|user|>", "<|end|>")]
    tokenizer.add_tokens(
        [
            *(AddedToken("</s>", rstrip=True, normalized=False, special=True),),
            *swallowing,
            AddedToken("<|endoftext|>", normalized=False, special=True),
        ]
    )
    assert build_vocabulary(tokenizer, 1300).model_name == "phi-3"
    assert build_vocabulary(sentence_piece(), 1300).model_name is None


def test_a_vocabulary_larger_than_the_embedding_is_refused() -> None:
    tokenizer = byte_level(GPT2)
    with pytest.raises(ModelError, match="rows"):
        build_vocabulary(tokenizer, len(tokenizer) - 1)


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_word_piece_vocabulary_gives_the_same_ids(lowercase: bool, tmp_path: Path) -> None:
    tokenizer = word_piece(lowercase=lowercase, corpus=everyday_texts() * 3)
    vocabulary = build_vocabulary(tokenizer, 1600)
    assert (vocabulary.model, vocabulary.lowercase, vocabulary.strip_accents) == ("bert", lowercase, lowercase)
    assert vocabulary.special_ids == {"bos": 2, "eos": 3, "unk": 1, "pad": 0, "sep": 3, "mask": 4}
    assert set(everyday_texts()) <= set(vocabulary.proven_on)
    assert any("[MASK]" in text for text in vocabulary.proven_on)
    write_vocabulary_only(vocabulary, tmp_path / "v.gguf")
    with open_vocabulary(tmp_path / "v.gguf") as opened:
        for text in vocabulary.proven_on:
            assert opened.encode(text, add_special=True) == tokenizer.encode(text)


def test_letters_that_llama_cpp_takes_apart_in_its_own_way_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    build_vocabulary(word_piece(), 1600)
    warning = capsys.readouterr().err
    assert "안녕하세요" in warning
    assert "everyday texts in English get the same ids" in warning


def test_a_word_piece_without_accents_but_with_capitals_says_both() -> None:
    tokenizer = word_piece(lowercase=False, corpus=everyday_texts() * 3)
    tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=True)
    vocabulary = build_vocabulary(tokenizer, 1600)
    assert (vocabulary.lowercase, vocabulary.strip_accents) == (False, True)


def test_a_word_piece_that_splits_otherwise_is_refused() -> None:
    tokenizer = word_piece()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(ModelError, match="differ on"):
        build_vocabulary(tokenizer, 1600)


def test_a_word_piece_without_cls_and_sep_is_refused() -> None:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(ModelError, match="CLS or SEP"):
        build_vocabulary(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]"), 2)


def test_a_word_and_a_continuation_that_read_alike_are_refused() -> None:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "##▁a"]
    tokenizer = Tokenizer(models.WordPiece({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    roles = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    with pytest.raises(ModelError, match="two tokens of this vocabulary as '▁a'"):
        build_vocabulary(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles), 6)


def test_tokens_with_a_zero_byte_are_refused_before_they_end_the_process() -> None:
    tokenizer = byte_level(GPT2)
    tokenizer.add_tokens([AddedToken("x\0a", normalized=False), AddedToken("x\0b", normalized=False)])
    with pytest.raises(ModelError, match="of this vocabulary as 'x'"):
        build_vocabulary(tokenizer, 1000)


def test_a_unigram_that_knows_bytes_is_refused() -> None:
    pieces = [("<unk>", 0.0), *((f"<0x{byte:02X}>", -9.0) for byte in range(256)), ("▁a", -1.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, 0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
    with pytest.raises(ModelError, match="differ on"):
        build_vocabulary(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"), 300)


def test_a_kind_that_llama_cpp_lacks_is_refused_by_name() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(ModelError, match="WordLevel"):
        build_vocabulary(PreTrainedTokenizerFast(tokenizer_object=tokenizer), 2)


def test_named_templates_are_all_written(tmp_path: Path) -> None:
    from gguf import GGUFReader

    tokenizer = byte_level(GPT2)
    tokenizer.chat_template = {"default": "A", "tool_use": "B"}
    write_vocabulary_only(build_vocabulary(tokenizer, 1000), tmp_path / "v.gguf")
    fields = GGUFReader(tmp_path / "v.gguf").fields
    assert fields["tokenizer.chat_template"].contents() == "A"
    assert fields["tokenizer.chat_template.tool_use"].contents() == "B"


def test_the_first_text_that_differs_is_named(tmp_path: Path) -> None:
    light = wrap_tokenizer(byte_level(LLAMA3), where="x")
    vocabulary = room.build_vocabulary(light, 1000, where="x")
    write_vocabulary_only(vocabulary, tmp_path / "v.gguf")
    with open_vocabulary(tmp_path / "v.gguf") as right:
        assert disagreement(right, light, parity_texts(light)) is None
    with open_vocabulary(tmp_path / "v.gguf", pre="gpt-2") as wrong:
        named = disagreement(wrong, light, hard_texts())
        differing = [text for text in hard_texts() if wrong.encode(text, add_special=False) != light.encode(text)]
    assert named == differing[0]


def test_a_bos_that_only_one_side_adds_is_a_difference(tmp_path: Path) -> None:
    light = wrap_tokenizer(byte_level(GPT2, begins=True), where="x")
    vocabulary = replace(room.build_vocabulary(light, 1000, where="x"), add_bos=False)
    write_vocabulary_only(vocabulary, tmp_path / "v.gguf")
    with open_vocabulary(tmp_path / "v.gguf") as opened:
        assert disagreement(opened, light, ["plain"]) == "plain"


def test_parity_texts_hold_special_tokens_and_words_of_the_vocabulary(smollm2_tokenizer) -> None:
    texts = parity_texts(wrap_tokenizer(smollm2_tokenizer, where="x"))
    assert set(hard_texts()) <= set(texts)
    assert any(text.startswith("a<|im_start|>b ") for text in texts)
    own_words = texts[len(hard_texts())]
    assert len(own_words) > 1000


def test_the_name_that_a_gguf_base_records_is_proven_at_once(
    smollm2_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgetune.models.load import open_tokenizer
    from edgetune.models.locate import locate_model

    tried: list[str | None] = []

    def open_noted(file: Path, *, pre: str | None = None) -> AbstractContextManager[LlamaVocabulary]:
        tried.append(pre)
        return open_vocabulary(file, pre=pre)

    monkeypatch.setattr(proof, "open_vocabulary", open_noted)
    light: ModelTokenizer = open_tokenizer(locate_model(str(smollm2_gguf)))
    assert room.build_vocabulary(light, 49152, where="x", likely_pre="smollm").pre == "smollm"
    assert tried == ["smollm"]  # llama.cpp reads a vocabulary in tenths of a second, and there are dozens of names
