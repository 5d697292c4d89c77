"""A run with a classification head is exported where llama.cpp has a place for the head, and scores as Transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

import llama_cpp  # noqa: E402
import yaml  # noqa: E402
from support.tiny_adapted import section, stir  # noqa: E402
from support.tiny_tasks import save_tiny  # noqa: E402
from transformers import AutoModelForSequenceClassification  # noqa: E402

from edgetune.errors import AdapterError, ModelError  # noqa: E402
from edgetune.gguf.llama_vocabulary import open_vocabulary  # noqa: E402
from edgetune.gguf.lora import export_adapter  # noqa: E402
from edgetune.gguf.write import export  # noqa: E402
from edgetune.models.adapters import add_adapter, save_adapter  # noqa: E402
from edgetune.models.gguf_file import GgufFile  # noqa: E402
from edgetune.models.load import load_model  # noqa: E402
from edgetune.models.locate import locate_model  # noqa: E402
from edgetune.weights.merge import merge  # noqa: E402
from edgetune.weights.source import ModelSource, resolve_source  # noqa: E402

LABELS = ("glad", "sad", "so so")
TEXT = "the sun with much joy"


def run_of(model_class: str, folder: Path) -> ModelSource:
    """A run directory as after training, every trained weight moved at random."""
    base = save_tiny(model_class, folder / "base", noise=0.1)
    torch.manual_seed(0)
    model = load_model(locate_model(str(base)), dtype=torch.float32, labels=LABELS)
    adapted = add_adapter(model, section("lora", rank=4), base=str(base), classifies=True, seed=1)
    stir(adapted, 0.2)
    save_adapter(adapted, folder / "run" / "adapter")
    recipe = {"name": "moody", "base": {"model": str(base)}, "data": {"labels": list(LABELS)}}
    (folder / "run" / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return resolve_source(str(folder / "run"))


def class_scores(file: Path) -> tuple[list[int], np.ndarray]:
    """The ids of the text in llama.cpp, and the score of each class that it computes for it."""
    with open_vocabulary(file, whole_model=True) as opened:
        ids = opened.encode(TEXT, add_special=True)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 64
        params.n_threads = params.n_threads_batch = 1
        params.embeddings, params.pooling_type = True, llama_cpp.LLAMA_POOLING_TYPE_RANK
        context = llama_cpp.llama_init_from_model(opened.model, params)
        try:
            tokens = (llama_cpp.llama_token * len(ids))(*ids)
            assert llama_cpp.llama_encode(context, llama_cpp.llama_batch_get_one(tokens, len(ids))) == 0
            return ids, np.array(llama_cpp.llama_get_embeddings_seq(context, 0)[: len(LABELS)])
        finally:
            llama_cpp.llama_free(context)


def merged(source: ModelSource, folder: Path):
    merge(source, folder)
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def test_a_bert_runs_file_scores_as_the_merged_model(tmp_path: Path) -> None:
    source = run_of("BertForPreTraining", tmp_path)
    export(source, tmp_path / "moody.gguf", preset="f32")
    ids, found = class_scores(tmp_path / "moody.gguf")
    with torch.no_grad():
        expected = merged(source, tmp_path / "merged")(torch.tensor([ids])).logits[0].numpy()
    assert np.allclose(found, expected, atol=5e-3)
    assert expected.std() > 0.05
    assert GgufFile(tmp_path / "moody.gguf").array("bert.classifier.output_labels") == list(LABELS)


def test_a_distilbert_runs_file_scores_as_the_merged_model_with_a_tanh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = run_of("DistilBertForMaskedLM", tmp_path)
    export(source, tmp_path / "moody.gguf", preset="f32")
    assert "a tanh where DistilBERT's classification head has a ReLU" in " ".join(capsys.readouterr().err.split())
    ids, found = class_scores(tmp_path / "moody.gguf")
    model = merged(source, tmp_path / "merged")
    with torch.no_grad():
        first = model.distilbert(torch.tensor([ids])).last_hidden_state[0, 0]
        expected = model.classifier(model.pre_classifier(first).tanh()).numpy()
    assert np.allclose(found, expected, atol=5e-3)
    assert expected.std() > 0.05


@pytest.mark.parametrize("model_class", ["LlamaForCausalLM", "RobertaForMaskedLM", "T5ForConditionalGeneration"])
def test_a_head_that_llama_cpp_has_no_place_for_is_refused_with_a_way_out(model_class: str, tmp_path: Path) -> None:
    source = run_of(model_class, tmp_path)
    with pytest.raises(ModelError, match=r"is a \w+ForSequenceClassification, .* of Bert.* only.*base.head lm"):
        export(source, tmp_path / "moody.gguf")
    assert not (tmp_path / "moody.gguf").exists()


def test_a_head_cannot_go_into_a_file_of_the_adapter_alone(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"classification head \(score\).*edgetune merge"):
        export_adapter(run_of("LlamaForCausalLM", tmp_path), tmp_path / "lora.gguf")
