"""What is read from a GGUF file is what the gguf package, Transformers and llama.cpp read from it, or an error."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gguf import GGUFWriter, TokenType  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from support.quick_reader import QuickReader  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # noqa: E402
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM  # noqa: E402

from edgetune.errors import ModelError  # noqa: E402
from edgetune.gguf.hard_text import hard_texts  # noqa: E402
from edgetune.gguf.llama_vocabulary import LlamaVocabulary, open_vocabulary  # noqa: E402
from edgetune.gguf.write import export  # noqa: E402
from edgetune.models.config import read_config  # noqa: E402
from edgetune.models.gguf_file import GgufFile  # noqa: E402
from edgetune.models.load import load_config, load_model, load_tokenizer  # noqa: E402
from edgetune.models.locate import locate_model  # noqa: E402
from edgetune.weights.merge import merge  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402
from edgetune.weights.stream import open_folded  # noqa: E402

NOT_IN_SMOLLM2 = "\x04\x06\x13\x14\x16\x1d"
"""Bytes that SmolLM2's vocabulary lacks. Both leave them out, but only Transformers then joins their neighbours."""

UNREACHABLE = "zqzq"
"""A token of the test vocabularies that no merge leads to."""


def write_gguf(file: Path, describe: Callable[[GGUFWriter], None], *, tensors: dict[str, np.ndarray] | None = None):
    writer = GGUFWriter(file, "llama")
    describe(writer)
    for name, data in (tensors or {}).items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def write_vocabulary(file: Path, pre: str | None, **said: bool) -> Path:
    """A byte-level vocabulary trained on the hard text; digits stand alone, so that every rule has work to do."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*hard_texts(), "1 12 123 1234 12345 123456 " * 20] * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = [*model["vocab"], UNREACHABLE, "<tool>", "[PAD902]"]
    kinds = [TokenType.CONTROL] * 2 + [TokenType.NORMAL] * (len(tokens) - 4)

    def describe(writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        if pre is not None:
            writer.add_tokenizer_pre(pre)
        writer.add_token_list(tokens)
        writer.add_token_types([*kinds, TokenType.USER_DEFINED, TokenType.UNUSED])
        writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        writer.add_chat_template("{{ messages }}")
        for key, value in said.items():
            writer.add_bool(f"tokenizer.ggml.{key}", value)

    return write_gguf(file, describe)


def differing(vocabulary: LlamaVocabulary, tokenizer, texts: list[str]) -> list[str]:
    return [
        text
        for text in texts
        if vocabulary.encode(text, add_special=True) != tokenizer.encode(text)
        or vocabulary.encode(text, add_special=False) != tokenizer.encode(text, add_special_tokens=False)
    ]


def test_the_file_reader_agrees_with_the_gguf_package(smollm2_gguf: Path) -> None:
    ours, theirs = GgufFile(smollm2_gguf), QuickReader(smollm2_gguf)
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors[:4]:
        assert np.array_equal(ours.data(tensor.name).ravel(), tensor.data.view(np.uint8).ravel())
    for key, value in ours.metadata.items():
        assert theirs.get_field(key).contents() == value
    arrays = [key for key, field in theirs.fields.items() if field.types[0].name == "ARRAY"]
    assert "tokenizer.ggml.token_type" in arrays
    assert all(ours.array(key) == theirs.get_field(key).contents() for key in arrays)
    assert ours.array("tokenizer.ggml.nothing") is None


def test_tensor_bytes_are_mapped_and_not_copied(smollm2_gguf: Path) -> None:
    data = GgufFile(smollm2_gguf).data("token_embd.weight")
    assert not data.flags.owndata
    assert not data.flags.writeable


@pytest.mark.parametrize("length", [5, 30, 1000, 90_000_000])
def test_a_truncated_file_is_refused_by_name(length: int, smollm2_gguf: Path, tmp_path: Path) -> None:
    file = tmp_path / "cut.gguf"
    with smollm2_gguf.open("rb") as whole:
        file.write_bytes(whole.read(length))
    assert length < smollm2_gguf.stat().st_size
    with pytest.raises(ModelError, match=r"cut\.gguf: is truncated: .*download or export it again"):
        GgufFile(file)


def header(*entries: bytes, tensors: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, len(entries)) + b"".join(entries)


def entry(key: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


def tensor(name: str, lengths: tuple[int, ...], kind: int) -> bytes:
    return struct.pack(f"<Q{len(name)}sI{len(lengths)}QIQ", len(name), name.encode(), len(lengths), *lengths, kind, 0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"no such file; .*edgetune export"),
        (b"", "is empty"),
        (b"PK", r"not a GGUF file: it starts with b'PK'"),
        (b"Dear diary", r"not a GGUF file: it starts with b'Dear'"),
        (header(version=1), "version 1; versions 2 and 3 are known"),
        (header(entry("a", 13, b"")), "is damaged: it has a value of kind 13"),
        (header(entry("a", 9, struct.pack("<IQ", 9, 1))), "is damaged: it has a value of kind 9"),
        (header(entry("a", 9, struct.pack("<IQ", 4, 2**61))), "is truncated"),
        (header(entry("a", 8, struct.pack("<Q", 2**63))), "is truncated"),
        (header(entry("general.alignment", 8, struct.pack("<Q1s", 1, b"x"))), "general.alignment is 'x'"),
        (header(tensors=1), "ends inside its header"),
    ],
)
def test_a_file_that_is_no_whole_gguf_says_what_it_is(content: bytes | None, says: str, tmp_path: Path) -> None:
    file = tmp_path / "odd.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError, match=says) as caught:
        GgufFile(file)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (tensor("w", (1,) * 5, 0), "'w' has 5 dimensions"),
        (tensor("w", (33, 2), 2), "rows of 33 values, .* blocks of 32"),
    ],
)
def test_a_tensor_that_cannot_be_is_damage(entry: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "odd.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + entry)
    with pytest.raises(ModelError, match=says):
        GgufFile(tmp_path / "odd.gguf")


def test_a_tensor_of_a_newer_type_is_refused_only_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "new.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + tensor("w", (32, 2), 999).ljust(100))
    file = GgufFile(tmp_path / "new.gguf")
    with pytest.raises(ModelError, match=r"w is of type 999.*pip install -U gguf"):
        file.data("w")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        GgufFile(tmp_path)


def test_smollm2s_special_tokens_are_those_of_its_file(smollm2_tokenizer) -> None:
    assert smollm2_tokenizer.bos_token == "<|im_start|>"
    assert smollm2_tokenizer.eos_token == smollm2_tokenizer.pad_token == "<|im_end|>"
    assert smollm2_tokenizer.unk_token == "<|endoftext|>"
    assert smollm2_tokenizer.encode("<|im_start|>a<|im_end|>") == [1, *smollm2_tokenizer.encode("a"), 2]
    assert smollm2_tokenizer.decode([1, 2], skip_special_tokens=True) == ""


@pytest.fixture(scope="module")
def smollm2_in_llama_cpp(smollm2_gguf: Path) -> Iterator[LlamaVocabulary]:
    with open_vocabulary(smollm2_gguf) as vocabulary:
        yield vocabulary


def test_smollm2s_ids_are_llama_cpps_on_hard_text(smollm2_in_llama_cpp: LlamaVocabulary, smollm2_tokenizer) -> None:
    texts = [*hard_texts(), *smollm2_tokenizer.all_special_tokens]
    assert differing(smollm2_in_llama_cpp, smollm2_tokenizer, texts) == []


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cn"], exclude_characters=NOT_IN_SMOLLM2), max_size=40))
def test_smollm2s_ids_are_llama_cpps_on_any_text(
    text: str, smollm2_in_llama_cpp: LlamaVocabulary, smollm2_tokenizer
) -> None:
    assert differing(smollm2_in_llama_cpp, smollm2_tokenizer, [text]) == []


def test_a_saved_tokenizer_gives_the_same_ids_after_reload(
    smollm2_tokenizer, smollm2_gguf: Path, tmp_path: Path
) -> None:
    smollm2_tokenizer.save_pretrained(tmp_path / "adapter")
    merge(resolve_source(str(smollm2_gguf)), tmp_path / "merged")
    with open_vocabulary(smollm2_gguf) as vocabulary:
        for folder in ("adapter", "merged"):
            again = AutoTokenizer.from_pretrained(tmp_path / folder)
            assert differing(vocabulary, again, hard_texts()) == []
            assert again.special_tokens_map == smollm2_tokenizer.special_tokens_map
            assert again.chat_template == smollm2_tokenizer.chat_template


def test_an_export_of_smollm2_says_smollm(smollm2_gguf: Path, tmp_path: Path) -> None:
    report = export(resolve_source(str(smollm2_gguf)), tmp_path / "model.gguf", preset="q8_0")
    assert report.pre_tokenizer == "smollm"
    assert GgufFile(tmp_path / "model.gguf").metadata["tokenizer.ggml.pre"] == "smollm"


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2", "smollm"])
def test_each_known_rule_gives_llama_cpps_ids(pre: str, tmp_path: Path) -> None:
    file = write_vocabulary(tmp_path / "v.gguf", pre)
    tokenizer = load_tokenizer(locate_model(str(file)))
    texts = [*hard_texts(), UNREACHABLE, f"{UNREACHABLE} x", "a<tool>b <|end|>", "[PAD902]"]
    with open_vocabulary(file) as vocabulary:
        assert differing(vocabulary, tokenizer, texts) == []
        reloaded = tmp_path / "saved"
        tokenizer.save_pretrained(reloaded)
        assert differing(vocabulary, AutoTokenizer.from_pretrained(reloaded), texts) == []
    assert tokenizer.decode(tokenizer.encode(hard_texts()[0]), skip_special_tokens=True) == hard_texts()[0]
    assert "[PAD902]" not in tokenizer.get_vocab()


def test_the_rules_differ_on_the_hard_text(tmp_path: Path) -> None:
    """Else the test above would prove nothing."""
    tokenizers = [
        load_tokenizer(locate_model(str(write_vocabulary(tmp_path / f"{pre}.gguf", pre))))
        for pre in ("gpt-2", "llama-bpe", "qwen2", "smollm")
    ]
    ids = {str([t.encode(text, add_special_tokens=False) for text in hard_texts()]) for t in tokenizers}
    assert len(ids) == 4


@pytest.mark.parametrize("adds", [True, False])
def test_whether_a_bos_is_added_is_what_the_file_says(adds: bool, tmp_path: Path) -> None:
    file = write_vocabulary(tmp_path / "v.gguf", "llama-bpe", add_bos_token=adds)
    tokenizer = load_tokenizer(locate_model(str(file)))
    assert (tokenizer.encode("a")[0] == 0) is adds
    with open_vocabulary(file) as vocabulary:
        assert differing(vocabulary, tokenizer, ["a b"]) == []


@pytest.mark.parametrize("pre", ["tekken", "no-such-rule", None])
def test_a_rule_that_is_not_proven_is_refused_with_a_way_out(pre: str | None, tmp_path: Path) -> None:
    file = write_vocabulary(tmp_path / "v.gguf", pre)
    with pytest.raises(ModelError, match=rf"rule {pre!r}, and edgetune knows gpt-2, .*Hugging Face model"):
        load_tokenizer(locate_model(str(file)))


@pytest.mark.parametrize(
    ("tokens", "merges", "bos", "says"),
    [
        ([], [], 0, "no vocabulary"),
        (["a", "b"], ["a c"], 0, "damaged vocabulary"),
        (["a"], [], 7, "names the token 7 as bos"),
    ],
)
def test_a_damaged_vocabulary_is_one_line(
    tokens: list[str], merges: list[str], bos: int, says: str, tmp_path: Path
) -> None:
    def describe(writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_bos_token_id(bos)
        if tokens:
            writer.add_token_list(tokens)
        if merges:
            writer.add_token_merges(merges)

    with pytest.raises(ModelError, match=says) as caught:
        load_tokenizer(locate_model(str(write_gguf(tmp_path / "v.gguf", describe))))
    assert "\n" not in str(caught.value)


def save_llama(tiny_llama: Path, folder: Path, **changes: object) -> Path:
    config = LlamaConfig.from_pretrained(tiny_llama)
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(1)
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_bias": True, "mlp_bias": True},
        {"tie_word_embeddings": False, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
        {"head_dim": 32, "num_key_value_heads": 1},
    ],
    ids=["biases", "untied", "head size apart"],
)
def test_an_exported_llama_is_read_back_as_it_was(changes: dict[str, object], tiny_llama: Path, tmp_path: Path) -> None:
    base = save_llama(tiny_llama, tmp_path / "base", **changes)
    export(resolve_source(str(base)), tmp_path / "model.gguf", preset="f32")
    files = locate_model(str(tmp_path / "model.gguf"))
    expected = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = load_model(files, dtype=torch.float32)
    assert model.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(t, expected.state_dict()[name]) for name, t in model.state_dict().items())
    ours, theirs = model.config.to_dict(), expected.config.to_dict()
    assert {key for key in ours if ours[key] != theirs[key]} <= {"_name_or_path", "architectures", "rms_norm_eps"}
    assert model.config.rms_norm_eps == pytest.approx(expected.config.rms_norm_eps)


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    "rope",
    [LLAMA3_ROPE, {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}],
    ids=["llama3 factors", "linear"],
)
def test_rope_scaling_is_refused_with_the_same_words_for_training_and_export(
    rope: dict[str, object], tiny_llama: Path, tmp_path: Path
) -> None:
    base = save_llama(tiny_llama, tmp_path / "base", rope_parameters=rope)
    export(resolve_source(str(base)), tmp_path / "model.gguf", preset="f16")
    files = locate_model(str(tmp_path / "model.gguf"))
    words = []
    for refused in (
        lambda: load_model(files, dtype=torch.float32),
        lambda: load_config(files),
        lambda: open_folded(resolve_source(str(tmp_path / "model.gguf"))),
    ):
        with pytest.raises(ModelError, match=r"model\.gguf: .*rope scaling.*Hugging Face model") as caught:
            refused()
        words.append(str(caught.value))
    assert len(set(words)) == 1


def test_a_gguf_of_an_architecture_that_transformers_does_not_know_is_one_line(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "model.gguf", "newest")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match="cannot read the configuration of this newest GGUF"):
        read_config(locate_model(str(tmp_path / "model.gguf")))


def test_a_gguf_that_lacks_a_key_or_a_tensor_names_it(tmp_path: Path) -> None:
    def describe(writer: GGUFWriter) -> None:
        writer.add_context_length(64)
        writer.add_embedding_length(32)
        writer.add_feed_forward_length(32)
        writer.add_head_count(2)
        writer.add_layer_norm_rms_eps(1e-5)

    with pytest.raises(ModelError, match=r"has no key llama\.block_count"):
        load_config(locate_model(str(write_gguf(tmp_path / "a.gguf", describe))))

    def describe_whole(writer: GGUFWriter) -> None:
        describe(writer)
        writer.add_block_count(1)
        writer.add_vocab_size(8)

    embedding = {"token_embd.weight": np.zeros((8, 32), dtype=np.float32)}
    with pytest.raises(ModelError, match=r"lacks the tensor model\.layers\.0"):
        load_model(
            locate_model(str(write_gguf(tmp_path / "b.gguf", describe_whole, tensors=embedding))), dtype=torch.float32
        )
    stray = {"blk.0.ffn_gate_exps.weight": np.zeros((2, 32, 32), dtype=np.float32)}
    with pytest.raises(ModelError, match=r"has no tensor blk\.0\.ffn_gate_exps"):
        load_model(
            locate_model(str(write_gguf(tmp_path / "c.gguf", describe_whole, tensors=stray))), dtype=torch.float32
        )
