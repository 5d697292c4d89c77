"""What llama.cpp makes of added tokens in a text, and of the model's name, is compared and told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from support.tiny_tokenizers import LLAMA3, byte_level, sentence_piece, word_piece
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from edgetune.errors import ModelError
from edgetune.gguf.lineage import Lineage
from edgetune.gguf.llama_vocabulary import open_vocabulary
from edgetune.gguf.vocabularies.added_tokens import differing_tokens
from edgetune.gguf.vocabularies.proof import write_vocabulary_only
from edgetune.gguf.vocabulary import GgufVocabulary, build_vocabulary
from edgetune.models.tokenizer import wrap_tokenizer

CHAT = (
    "{% for m in messages %}<|turn|>{{ m.role }}: {{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant:{% endif %}"
)


def build(tokenizer: PreTrainedTokenizerBase) -> GgufVocabulary:
    return build_vocabulary(wrap_tokenizer(tokenizer, where="x"), 1300, where="x")


def plain(content: str, **flags: bool) -> AddedToken:
    return AddedToken(content, **{"normalized": False, "special": True, **flags})


@pytest.mark.parametrize("make", [lambda: byte_level(LLAMA3), sentence_piece], ids=["byte-level", "sentencepiece"])
@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        ([plain("<|x|>", lstrip=True)], "'<|x|>': the tokenizer removes the white space before it"),
        ([plain("<|x|>", rstrip=True)], "'<|x|>': the tokenizer removes the white space after it"),
        (
            [plain("<|x|>", lstrip=True, rstrip=True)],
            "'<|x|>': the tokenizer removes the white space before and after it",
        ),
        ([plain("<|x|>", single_word=True)], "'<|x|>': the tokenizer matches it only as a whole word"),
        ([plain("<|ab"), plain("ab|longer>")], "'<|ab': it overlaps 'ab|longer>'"),
        ([plain("<|x|>", special=False, rstrip=True)], "'<|x|>': the tokenizer removes the white space after it"),
        (
            [plain(f"<|{number}|>", rstrip=True) for number in range(12)],
            "'<|6|>', '<|7|>' and 4 more: the tokenizer removes",
        ),
    ],
)
def test_an_added_token_that_llama_cpp_reads_otherwise_is_told_by_name_and_reason(
    make, tokens: list[AddedToken], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = make()
    tokenizer.add_tokens(tokens)
    vocabulary = build(tokenizer)
    assert told in capsys.readouterr().err
    assert any(told in difference for difference in vocabulary.differences)


@pytest.mark.parametrize(
    "make", [lambda: byte_level(LLAMA3), sentence_piece, word_piece], ids=["byte-level", "sentencepiece", "wordpiece"]
)
def test_added_tokens_without_flags_are_read_alike(make, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = make()
    tokenizer.add_tokens(
        [plain("<|x|>"), plain("<tool>", special=False), plain("<|x|>y"), plain("[a]"), plain("[a][b]")]
    )
    build(tokenizer)
    assert "these tokens" not in capsys.readouterr().err


@pytest.mark.parametrize(("make", "token"), [(sentence_piece, "<tool>"), (word_piece, "<TOOL>")])
def test_a_token_that_is_looked_for_in_normalized_text_is_told(
    make, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `add_tokens` makes of a plain text: 'a<tool>' has no such token for Llama 2, and BERT finds it in <tool>."""
    tokenizer = make()
    tokenizer.add_tokens([token])
    build(tokenizer)
    assert f"'{token}': the tokenizer matches it in normalized text" in capsys.readouterr().err


def test_an_ordinary_word_as_a_token_of_its_own_is_refused_by_name() -> None:
    tokenizer = byte_level(LLAMA3)
    tokenizer.add_tokens([plain("the", single_word=True, special=False)])
    with pytest.raises(
        ModelError, match=r"differ on .* among its tokens are 'the': the tokenizer matches it only as a whole word"
    ):
        build(tokenizer)


def test_what_the_difference_is_said_to_be_is_what_transformers_and_llama_cpp_do(tmp_path: Path) -> None:
    tokenizer = byte_level(LLAMA3)
    tokenizer.add_tokens([plain("<|x|>", rstrip=True), plain("<|y|>")])
    write_vocabulary_only(build(tokenizer), tmp_path / "v.gguf")
    with open_vocabulary(tmp_path / "v.gguf") as opened:
        number = tokenizer.convert_tokens_to_ids("<|x|>")
        for text, same in {"a<|x|>b": True, "a <|x|>b": True, "a<|x|> b": False, "a<|x|>\nb": False}.items():
            ids = opened.encode(text, add_special=False)
            assert number in ids
            assert (ids == tokenizer.encode(text, add_special_tokens=False)) is same
        assert [*differing_tokens(opened, wrap_tokenizer(tokenizer, where="x"))] == ["<|x|>"]


def test_a_token_that_llama_cpp_knows_by_its_text_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """</s> is an ordinary word of this vocabulary; llama.cpp reads it as the end of the text wherever it stands."""
    import json

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    settings = json.loads(byte_level(LLAMA3).backend_tokenizer.to_str())
    settings["model"]["vocab"]["</s>"] = 1250
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(settings)), eos_token="<|end|>")
    build(tokenizer)
    assert "'</s>': llama.cpp always reads it as a special token" in capsys.readouterr().err


def test_a_token_of_the_chat_template_that_changes_ordinary_conversations_is_refused_by_name() -> None:
    tokenizer = byte_level(LLAMA3)
    tokenizer.add_tokens([plain("<|turn|>", single_word=True), plain("<|end|>")])
    tokenizer.chat_template = CHAT
    with pytest.raises(ModelError, match=r"'<\|turn\|>': the tokenizer matches it only as a whole word"):
        build(tokenizer)


def test_a_token_of_the_chat_template_that_drops_a_templates_own_line_break_is_refused() -> None:
    tokenizer = byte_level(LLAMA3)
    tokenizer.add_tokens([plain("<|turn|>", rstrip=True), plain("<|end|>")])
    tokenizer.chat_template = CHAT.replace("<|turn|>", "<|turn|>\n")
    with pytest.raises(
        ModelError, match=r"conversations.*'<\|turn\|>': the tokenizer removes the white space after it"
    ):
        build(tokenizer)


def test_a_token_of_the_chat_template_that_only_drops_a_users_white_space_is_told() -> None:
    """As Phi-4-mini's <|user|> does: its template puts the message right behind it."""
    tokenizer = byte_level(LLAMA3)
    tokenizer.add_tokens([plain("<|turn|>", rstrip=True), plain("<|end|>")])
    tokenizer.chat_template = CHAT.replace("{{ m.role }}: ", "")
    assert "'<|turn|>': the tokenizer removes the white space after it" in build(tokenizer).differences[0]


def test_tokens_of_a_phi_3_that_keep_their_spaces_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = sentence_piece()
    tokenizer.add_tokens(
        [
            *(plain(text, rstrip=True) for text in ("</s>", "<|user|>", "<|end|>")),
            *(plain(text) for text in ("<|endoftext|>", "<|tool|>")),
        ]
    )
    assert build(tokenizer).model_name == "phi-3"
    assert "'<|tool|>': llama.cpp reads it, or the text next to it" in capsys.readouterr().err


def test_few_tokens_that_drop_spaces_make_no_phi_3(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = sentence_piece()
    tokenizer.add_tokens([plain("<|x|>", rstrip=True), *(plain(f"<|{n}|>") for n in range(5)), plain("<|endoftext|>")])
    assert build(tokenizer).model_name is None
    assert "'<|x|>': the tokenizer removes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "word", "written"),
    [
        ("my-phi3-tune", None, "my-phi_3-tune"),
        ("My-Phi-3-Mini", None, "My-Phi_3-Mini"),
        ("modern-bert-x", None, "modern_bert-x"),
        ("phi-4", None, "phi-4"),
        ("my-phi3-tune", "phi-3", "my-phi3-tune"),
        ("tune", "phi-3", "tune phi-3"),
        ("phi3", "modern-bert", "phi_3 modern-bert"),
    ],
)
def test_the_name_in_the_file_is_one_that_llama_cpp_acts_on_only_where_it_must(
    name: str, word: str | None, written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Lineage(name=name, version="0").called(word).name == written
    assert (f"the name in the file is {written!r}" in capsys.readouterr().err) is (written != name)


def test_llama_cpp_opens_a_model_whose_folder_is_called_phi3(tiny_llama: Path, tmp_path: Path) -> None:
    from edgetune.gguf.write import export
    from edgetune.models.gguf_file import GgufFile
    from edgetune.weights.source import resolve_source

    shutil.copytree(tiny_llama, tmp_path / "copy-phi3")
    report = export(resolve_source(str(tmp_path / "copy-phi3")), tmp_path / "x.gguf", preset="q8_0")
    assert GgufFile(report.path).metadata["general.name"] == "copy-phi_3"
    assert report.differences == ()
