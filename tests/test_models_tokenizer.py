"""A tokenizer opened without Transformers gives the ids, special tokens and template that AutoTokenizer gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

from edgetune.errors import MissingComponent, ModelError
from edgetune.gguf.hard_text import hard_texts
from edgetune.models.load import load_tokenizer, open_tokenizer
from edgetune.models.locate import ModelFiles, locate_model
from edgetune.models.tokenizer import ROLES, ModelTokenizer
from edgetune.models.tokenizer_folder import read_tokenizer_folder

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
SPECIAL = ["<|begin|>", "<|endoftext|>"]


def trained(kind: Any, **options: Any) -> Tokenizer:
    """A byte-level BPE of the hard texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = kind
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False, **options
    )
    tokenizer.train_from_iterator(hard_texts(), trainer)
    return tokenizer


def generic() -> PreTrainedTokenizerBase:
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend = trained(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), plain]))
    backend.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    backend.enable_truncation(3)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=SPECIAL[0], eos_token=SPECIAL[1])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False, lstrip=True)])
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def vocabulary_and_merges() -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(trained(pre_tokenizers.ByteLevel(add_prefix_space=False)).to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def gpt2() -> PreTrainedTokenizerBase:
    vocabulary, merges = vocabulary_and_merges()
    return GPT2Tokenizer(vocab=vocabulary, merges=merges)


def qwen2() -> PreTrainedTokenizerBase:
    vocabulary, merges = vocabulary_and_merges()
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    return tokenizer


def marked_spaces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=special, limit_alphabet=200, show_progress=False)
    backend.train_from_iterator(["some plain words in a row, again and again " * 30, *hard_texts()], trainer)
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def gemma() -> PreTrainedTokenizerBase:
    vocabulary, merges = marked_spaces()
    return GemmaTokenizer(vocab=vocabulary, merges=merges)


def llama() -> PreTrainedTokenizerBase:
    vocabulary, merges = marked_spaces()
    return LlamaTokenizer(vocab=vocabulary, merges=merges, bos_token="<bos>", eos_token="<eos>")


def bert() -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(
        hard_texts(), trainers.WordPieceTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    )
    return BertTokenizer(vocab=backend.get_vocab())


@dataclass(frozen=True)
class Case:
    """A tokenizer, the family that its folder says, and whether Transformers has to be asked."""

    make: Callable[[], PreTrainedTokenizerBase]
    model_type: str
    asks: bool = False

    def __str__(self) -> str:
        return f"{self.make.__name__}-{self.model_type}"


CASES = [
    Case(generic, "llama"),
    Case(generic, "qwen2", asks=True),  # Transformers has a class of its own for every Qwen2
    Case(generic, "qwen3"),
    Case(gpt2, "gpt2"),
    Case(gpt2, "llama"),
    Case(qwen2, "qwen2"),
    Case(qwen2, "qwen3"),
    Case(gemma, "gemma2"),
    Case(llama, "llama", asks=True),
    Case(llama, "mistral"),
    Case(llama, "phi3"),
    Case(bert, "bert"),
    Case(bert, "distilbert"),
]


def save(tokenizer: PreTrainedTokenizerBase, folder: Path, model_type: str) -> Path:
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def change(folder: Path, name: str = "tokenizer_config.json", **settings: Any) -> None:
    """Settings of None are taken out."""
    said = json.loads((folder / name).read_text()) | settings
    (folder / name).write_text(json.dumps({key: value for key, value in said.items() if value is not None}))


def opened(folder: Path) -> ModelTokenizer:
    return open_tokenizer(ModelFiles(str(folder), folder))


def assert_equal(ours: ModelTokenizer, theirs: PreTrainedTokenizerBase) -> None:
    texts = [*hard_texts(), *(f"a{t}b {t} \n{t}" for t in [*theirs.get_added_vocab(), *theirs.all_special_tokens])]
    for text in texts:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text
        assert ours.encode(text, add_special=True) == theirs.encode(text), text
    for role in ROLES:
        number = getattr(theirs, f"{role}_token_id")
        if role == "pad" and number is None:
            number = theirs.eos_token_id  # as training does it
        assert ours.token_id(role) == number, role
    assert ours.vocabulary == theirs.get_vocab()
    assert ours.added.keys() == theirs.added_tokens_decoder.keys()
    assert set(ours.all_special) == set(theirs.all_special_tokens)
    assert ours.chat_template == theirs.chat_template
    assert (ours.bos_token, ours.eos_token) == (theirs.bos_token or "", theirs.eos_token or "")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_folder_is_read_as_auto_tokenizer_reads_it(case: Case, tmp_path: Path) -> None:
    folder = save(case.make(), tmp_path, case.model_type)
    assert (read_tokenizer_folder(folder, where="x") is None) is case.asks
    assert_equal(opened(folder), AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("make", [generic, gpt2, qwen2, gemma, bert])
def test_a_model_saved_by_an_older_transformers_is_read_as_auto_tokenizer_reads_it(
    make: Callable[[], PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    tokenizer = make()
    folder = save(tokenizer, tmp_path, "llama")
    behaviour = ("content", "lstrip", "rstrip", "single_word", "normalized", "special")
    declared = {
        number: {key: getattr(token, key) for key in behaviour}
        for number, token in tokenizer.added_tokens_decoder.items()
    }
    name = json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"]
    old_name = "PreTrainedTokenizerFast" if name == "TokenizersBackend" else f"{name}Fast"
    change(folder, tokenizer_class=old_name, added_tokens_decoder=declared)
    assert read_tokenizer_folder(folder, where="x") is not None
    assert_equal(opened(folder), AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize(
    "settings",
    [
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ]}},
        {"normalizer": {"type": "NFC"}},
    ],
)  # fmt: skip
def test_a_class_that_builds_another_tokenizer_than_the_file_describes_is_asked(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = save(gpt2(), tmp_path, "llama")
    change(folder, "tokenizer.json", **settings)
    assert read_tokenizer_folder(folder, where="x") is None
    assert_equal(opened(folder), AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize(
    "settings",
    [
        {"added_tokens_decoder": {"0": {"content": "<|begin|>", "lstrip": True, "special": True}}},
        {"extra_special_tokens": ["<|nowhere|>"]},
        {"mask_token": "<|mask|>"},
        {"split_special_tokens": True},
    ],
)
def test_tokens_that_only_the_settings_declare_are_left_to_transformers(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = save(generic(), tmp_path, "llama")
    change(folder, **settings)
    assert read_tokenizer_folder(folder, where="x") is None
    assert_equal(opened(folder), AutoTokenizer.from_pretrained(folder))


def test_special_tokens_may_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    folder = save(generic(), tmp_path, "llama")
    change(folder, bos_token=None, eos_token=None)
    named = {"bos_token": {"content": SPECIAL[1], "lstrip": False}, "eos_token": SPECIAL[0]}
    (folder / "special_tokens_map.json").write_text(json.dumps(named))
    assert opened(folder).bos_token == SPECIAL[1]
    assert_equal(opened(folder), AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize(
    ("in_settings", "in_files"),
    [
        ("A", {}),
        ([{"name": "default", "template": "A"}, {"name": "tools", "template": "B"}], {}),
        ("A", {"chat_template.jinja": "C"}),
        ("A", {"chat_template.jinja": "C", "additional_chat_templates/tools.jinja": "D"}),
        ("A", {"additional_chat_templates/tools.jinja": "D"}),
        (None, {}),
    ],
)
def test_the_chat_template_is_the_one_that_transformers_takes(
    in_settings: Any, in_files: dict[str, str], tmp_path: Path
) -> None:
    tokenizer = generic()
    tokenizer.chat_template = None
    folder = save(tokenizer, tmp_path, "llama")
    change(folder, chat_template=in_settings)
    for name, template in in_files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(template)
    ours = opened(folder).chat_template
    assert ours == AutoTokenizer.from_pretrained(folder).chat_template
    assert (ours is None) == (in_settings is None)


def test_an_adapter_folder_has_the_tokenizer_that_was_trained_with(smollm2_tokenizer, tmp_path: Path) -> None:
    smollm2_tokenizer.save_pretrained(tmp_path)
    tokenizer = read_tokenizer_folder(tmp_path, where="x")
    assert tokenizer is not None
    assert_equal(tokenizer, smollm2_tokenizer)


def test_a_gguf_has_the_tokenizer_that_training_loads(smollm2_gguf: Path) -> None:
    files = locate_model(str(smollm2_gguf))
    assert_equal(open_tokenizer(files), load_tokenizer(files))


@pytest.mark.parametrize("where", ["folder", "gguf"])
def test_opening_needs_no_transformers(
    where: str, smollm2_tokenizer, smollm2_gguf: Path, tmp_path: Path, run_python: Callable[[str], str]
) -> None:
    smollm2_tokenizer.save_pretrained(tmp_path)
    path = tmp_path if where == "folder" else smollm2_gguf
    files = f"ModelFiles('x', Path({str(path.parent)!r}), gguf=Path({str(path)!r}))"
    files = files if where == "gguf" else f"ModelFiles('x', Path({str(path)!r}))"
    loaded = run_python(
        "import sys\nfrom pathlib import Path\nfrom edgetune.models.locate import ModelFiles\n"
        f"from edgetune.models.load import open_tokenizer\nopen_tokenizer({files}).encode('a')\n"
        "print(sorted({'torch', 'transformers'} & sys.modules.keys()))"
    )
    assert loaded == "[]"


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {}}'])
def test_a_damaged_tokenizer_is_refused_by_name(content: str, tmp_path: Path) -> None:
    folder = save(generic(), tmp_path, "llama")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json: is damaged .*download the model again"):
        opened(folder)


def test_damaged_settings_are_refused_by_name(tmp_path: Path) -> None:
    folder = save(generic(), tmp_path, "llama")
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: is not readable JSON"):
        opened(folder)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelError, match="cannot be loaded"):
        opened(tmp_path)


def test_ids_beyond_the_embedding_are_refused_with_both_numbers(tmp_path: Path) -> None:
    tokenizer = opened(save(generic(), tmp_path, "llama"))
    last = max(tokenizer.vocabulary.values())
    tokenizer.require_rows(last + 1, where="x")
    with pytest.raises(ModelError, match=f"ids up to {last}, but the embedding has only {last} rows"):
        tokenizer.require_rows(last, where="x")


def test_a_sentencepiece_model_alone_asks_for_the_package_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    monkeypatch.setattr("edgetune.models.load.find_spec", lambda name: None)
    with pytest.raises(MissingComponent, match=r"tokenizer\.model, .*pip install sentencepiece"):
        open_tokenizer(locate_model(str(tmp_path)))
