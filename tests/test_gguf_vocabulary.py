"""llama.cpp reads the written vocabulary as the tokenizer does, and the pre-tokenizer's name is found by proof."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from edgetune.errors import ModelError
from edgetune.gguf import vocabulary as room
from edgetune.gguf.hard_text import hard_texts
from edgetune.gguf.vocabulary import build_vocabulary

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CORPUS = [*hard_texts(), "1 12 123 1234 12345 123456 " * 20, "It's I'VE we'll\n\n  x\n y " * 20] * 3


def byte_level(pattern: str | None, **settings) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the hard text, split by `pattern` (None: each digit by itself, then GPT-2's)."""
    tokenizer = Tokenizer(models.BPE())
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)])
        if pattern is None
        else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), plain])
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    if settings.pop("begins", False):
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>", **settings)


def sentence_piece() -> PreTrainedTokenizerFast:
    """A BPE in the manner of Llama 2: spaces become a mark, unknown characters fall back to bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=special, limit_alphabet=200)
    tokenizer.train_from_iterator(["some plain words in a row, again and again " * 30, *CORPUS], trainer)
    state = json.loads(tokenizer.to_str())
    # Byte tokens belong to the model; the trainer knows only special tokens.
    state["added_tokens"] = [token for token in state["added_tokens"] if not token["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


@pytest.mark.parametrize(
    ("pattern", "name"), [(LLAMA3, "llama-bpe"), (QWEN2, "qwen2"), (None, "smollm"), (GPT2, "gpt-2")]
)
def test_the_pre_tokenizers_name_is_found_by_its_ids(pattern: str | None, name: str) -> None:
    tokenizer = byte_level(pattern)
    assert build_vocabulary(tokenizer, len(tokenizer), where="x").pre == name


def test_a_wrong_guess_is_overruled_by_the_proof() -> None:
    tokenizer = byte_level(LLAMA3)
    assert build_vocabulary(tokenizer, len(tokenizer), where="x", likely_pre="gpt-2").pre == "llama-bpe"


def test_smollm2s_tokenizer_is_found_to_be_smollm(smollm2_tokenizer) -> None:
    assert build_vocabulary(smollm2_tokenizer, 49152, where="x").pre == "smollm"


def test_a_split_that_llama_cpp_lacks_is_refused_naming_the_text() -> None:
    tokenizer = byte_level(r"[aeiou]+|[^aeiou]+")
    with pytest.raises(ModelError, match="differ on"):
        build_vocabulary(tokenizer, len(tokenizer), where="x")


def test_whether_a_bos_is_added_is_what_the_tokenizer_does() -> None:
    assert build_vocabulary(byte_level(GPT2, begins=True), 1000, where="x").add_bos
    assert not build_vocabulary(byte_level(GPT2), 1000, where="x").add_bos


def test_added_tokens_and_unused_rows_have_their_own_types() -> None:
    from gguf import TokenType

    tokenizer = byte_level(GPT2)
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    vocabulary = build_vocabulary(tokenizer, len(tokenizer) + 2, where="x")
    kinds = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    assert kinds["<tool>"] == TokenType.USER_DEFINED
    assert kinds["<|user|>"] == kinds["<|begin|>"] == TokenType.CONTROL
    assert kinds[f"[PAD{len(tokenizer) + 1}]"] == TokenType.UNUSED
    assert len(vocabulary.tokens) == len(tokenizer) + 2


def test_a_sentencepiece_vocabulary_gives_the_same_ids() -> None:
    vocabulary = build_vocabulary(sentence_piece(), 1300, where="x")
    assert (vocabulary.model, vocabulary.add_bos, vocabulary.add_space_prefix) == ("llama", True, True)
    assert vocabulary.merges is None


@pytest.mark.parametrize(("scheme", "prefix"), [("first", False), ("always", True)])
def test_a_space_prefix_that_llama_cpp_lacks_is_settled_by_the_chat_template(
    scheme: str, prefix: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = sentence_piece()
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, split=False)
    with pytest.raises(ModelError, match="differ on"):
        build_vocabulary(tokenizer, 1300, where="x")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]"
        "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
    )
    assert build_vocabulary(tokenizer, 1300, where="x").add_space_prefix is prefix
    assert "conversations" in capsys.readouterr().err


def test_a_vocabulary_larger_than_the_embedding_is_refused() -> None:
    tokenizer = byte_level(GPT2)
    with pytest.raises(ModelError, match="rows"):
        build_vocabulary(tokenizer, len(tokenizer) - 1, where="x")


def test_a_word_piece_tokenizer_is_refused_by_kind() -> None:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(ModelError, match="WordPiece"):
        build_vocabulary(PreTrainedTokenizerFast(tokenizer_object=tokenizer), 2, where="x")


def test_named_templates_are_all_written(tiny_llama: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = {"default": "A", "tool_use": "B"}
    room._write_vocabulary_only(build_vocabulary(tokenizer, 49152, where="x"), tmp_path / "v.gguf")
    fields = GGUFReader(tmp_path / "v.gguf").fields
    assert fields["tokenizer.chat_template"].contents() == "A"
    assert fields["tokenizer.chat_template.tool_use"].contents() == "B"
