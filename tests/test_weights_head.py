"""A run with a classification head merges into its family's classification model, with the scores that PEFT gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file, save_file  # noqa: E402
from support.folding import folded_tensors  # noqa: E402
from support.tiny_adapted import section, stir  # noqa: E402
from support.tiny_tasks import LABELS, make_tiny, save_tiny, write_rows  # noqa: E402
from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: E402

from edgetune.errors import AdapterError, ModelError, NumericalError  # noqa: E402
from edgetune.gguf.write import export  # noqa: E402
from edgetune.models.adapters import add_adapter, save_adapter  # noqa: E402
from edgetune.models.load import load_model  # noqa: E402
from edgetune.models.locate import locate_model  # noqa: E402
from edgetune.recipe.load import load_recipe  # noqa: E402
from edgetune.training.run import train  # noqa: E402
from edgetune.weights.merge import merge  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402
from edgetune.weights.stream import open_folded  # noqa: E402

pytestmark = pytest.mark.usefixtures("no_plots")

MOODS = ("glad", "sad", "so so")
WORDS = ["the sun with much joy", "some rain"]


def save_inner(model_class: str, attribute: str, folder: Path) -> Path:
    """The network without what pretraining put on it."""
    model, tokenizer = make_tiny(model_class)
    getattr(model, attribute).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_old_bert(folder: Path) -> Path:
    save_tiny("BertForPreTraining", folder)
    weights = load_file(folder / "model.safetensors")
    once = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for today, old in once.items():
        weights = {name.replace(today, old): weight for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


BASES: dict[str, Callable[[Path], object]] = {
    "llama": lambda folder: save_tiny("LlamaForCausalLM", folder),
    "llama with tied embeddings": lambda folder: save_tiny("LlamaForCausalLM", folder, tie_word_embeddings=True),
    "bert for pretraining": lambda folder: save_tiny("BertForPreTraining", folder),
    "bert alone": lambda folder: save_inner("BertForPreTraining", "bert", folder),
    "bert in TensorFlow's spelling": save_old_bert,
    "distilbert": lambda folder: save_tiny("DistilBertForMaskedLM", folder),
    "roberta": lambda folder: save_tiny("RobertaForMaskedLM", folder),
    "t5": lambda folder: save_tiny("T5ForConditionalGeneration", folder),
    "flan-t5": lambda folder: save_tiny(
        "T5ForConditionalGeneration", folder, feed_forward_proj="gated-gelu", tie_word_embeddings=False
    ),
}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora", "rank": 4},
    "lora on all layers": {"type": "lora", "rank": 4, "targets": "all-linear"},
    "ia3": {"type": "ia3"},
    "loha": {"type": "loha", "rank": 4},
}
COMBINATIONS = [*((base, "lora") for base in BASES), *((b, "ia3") for b in ("llama", "distilbert", "bert alone"))]
COMBINATIONS += [("llama", "lora on all layers"), ("bert alone", "lora on all layers"), ("llama", "loha")]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("bases")

    def base(name: str) -> Path:
        folder = root / name.replace(" ", "-")
        if not folder.exists():
            BASES[name](folder)
        return folder

    return base


def adapt(base: Path, method: dict[str, Any], folder: Path, *, labels: tuple[str, ...] = MOODS, dtype=None) -> Path:
    """An adapter with a head on `base`, every trained weight moved at random."""
    torch.manual_seed(0)
    model = load_model(locate_model(str(base)), dtype=dtype or torch.float32, labels=labels)
    fields = {name: value for name, value in method.items() if name != "type"}
    adapted = add_adapter(model, section(method["type"], **fields), base=str(base), classifies=True, seed=1)
    stir(adapted)
    save_adapter(adapted, folder)
    return folder


def with_peft(base: Path, adapter: Path, *, classes: int = len(MOODS), dtype=None) -> Any:
    """The base with the adapter on it, by Transformers and PEFT alone."""
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=classes, ignore_mismatched_sizes=True, dtype=dtype or torch.float32
    )
    model.config.pad_token_id = AutoTokenizer.from_pretrained(base).pad_token_id
    return peft.PeftModel.from_pretrained(model, adapter).eval()


def scores(model: Any, folder: Path, texts: list[str] = WORDS) -> torch.Tensor:
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    with torch.no_grad():
        return model(**batch).logits


def loaded(folder: Path) -> Any:
    """The merged model, which must be complete and hold nothing else."""
    model, found = AutoModelForSequenceClassification.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@pytest.mark.parametrize(("base", "method"), COMBINATIONS)
def test_the_merged_model_scores_as_the_adapter_does_on_its_base(
    base: str, method: str, bases: Callable[[str], Path], tmp_path: Path
) -> None:
    adapter = adapt(bases(base), METHODS[method], tmp_path / "adapter")
    merge(resolve_source(str(adapter)), tmp_path / "merged")
    merged = loaded(tmp_path / "merged")
    assert merged.config.architectures == [type(merged).__name__]
    assert merged.config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    found = scores(merged, tmp_path / "merged")
    expected = with_peft(bases(base), adapter)
    assert torch.allclose(found, scores(expected, bases(base)), atol=1e-5)
    assert torch.equal(found, scores(expected.merge_and_unload(), bases(base)))
    assert found.std() > 1e-3


def test_a_bfloat16_base_stays_bfloat16_with_its_head(tmp_path: Path) -> None:
    model, tokenizer = make_tiny("LlamaForCausalLM")
    base = tmp_path / "base"
    model.to(torch.bfloat16).save_pretrained(base)
    tokenizer.save_pretrained(base)
    adapter = adapt(base, METHODS["lora"], tmp_path / "adapter", dtype=torch.bfloat16)
    merge(resolve_source(str(adapter)), tmp_path / "merged")
    assert {weight.dtype for weight in load_file(tmp_path / "merged" / "model.safetensors").values()} == {
        torch.bfloat16
    }
    expected = with_peft(base, adapter, dtype=torch.bfloat16).merge_and_unload()
    assert torch.equal(scores(loaded(tmp_path / "merged"), base), scores(expected, base))


@pytest.fixture(scope="module")
def run_of(bases: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains a little on a base with a head."""

    def run(base: str, method: dict[str, Any], **of_base: Any) -> Path:
        folder = tmp_path_factory.mktemp("run")
        source = {"source": str(write_rows(folder / "rows.jsonl")), "format": "text-label"}
        values = {
            "name": "moody",
            "task": "classify",
            "base": {"model": str(bases(base)), "dtype": "float32", "head": "classification", **of_base},
            "data": {"train": [source], "max_length": 64, "labels": list(LABELS), "prompt": "{text}"},
            "method": method,
            "train": {"batch_size": 8, "max_steps": 4, "learning_rate": 1e-2},
        }
        (folder / "moody.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        train(load_recipe(str(folder / "moody.yaml")), folder / "run")
        return folder / "run"

    return run


@pytest.mark.parametrize(("base", "method"), [("llama", "lora"), ("distilbert", "ia3")])
def test_a_runs_labels_are_the_merged_models(base: str, method: str, run_of, bases, tmp_path: Path) -> None:
    run = run_of(base, METHODS[method])
    merge(resolve_source(str(run)), tmp_path / "merged")
    merged = loaded(tmp_path / "merged")
    assert merged.config.id2label == dict(enumerate(LABELS))
    assert merged.config.label2id == {label: number for number, label in enumerate(LABELS)}
    assert not (tmp_path / "merged" / "generation_config.json").exists()
    expected = with_peft(bases(base), run / "adapter", classes=len(LABELS))
    assert torch.allclose(scores(merged, tmp_path / "merged"), scores(expected, bases(base)), atol=1e-5)


@pytest.mark.parametrize("base", ["llama", "t5"])
def test_a_run_of_whole_weights_with_a_head_is_copied(base: str, run_of, tmp_path: Path) -> None:
    run = run_of(base, {"type": "full"})
    merge(resolve_source(str(run)), tmp_path / "merged")
    merged = loaded(tmp_path / "merged")
    assert merged.config.id2label == dict(enumerate(LABELS))
    assert torch.equal(scores(merged, tmp_path / "merged"), scores(loaded(run / "model"), run / "model"))


def test_a_quantized_base_can_be_rounded_as_it_was_trained(bases, tmp_path: Path) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    base = bases("bert alone")
    quantized = load_model(locate_model(str(base)), dtype=torch.float32, quantize="nf4", labels=LABELS)
    adapt(base, METHODS["lora"], tmp_path / "adapter", labels=LABELS)
    recipe = {"base": {"model": str(base), "quantize": "nf4", "dtype": "float32"}, "data": {"labels": list(LABELS)}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    folded = open_folded(resolve_source(str(tmp_path)), base_as="trained")
    layers = {path: layer for path, layer in quantized.named_modules() if isinstance(layer, bnb.nn.Linear4bit)}
    assert {"bert.pooler.dense", "bert.encoder.layer.1.attention.self.key"} <= layers.keys()
    for path, layer in layers.items():
        name = f"{path}.weight"
        assert folded.touches(name)
        if not path.endswith(("query", "value")):
            expected = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            assert torch.equal(torch.from_numpy(folded.load(name)), expected), name


def test_a_head_that_the_base_has_already_gives_way_and_keeps_its_labels_names(tmp_path: Path) -> None:
    names = {"id2label": dict(enumerate(MOODS)), "label2id": {mood: n for n, mood in enumerate(MOODS)}}
    base = save_tiny("DistilBertForSequenceClassification", tmp_path / "base", **names)
    adapter = adapt(base, METHODS["lora"], tmp_path / "adapter")
    merge(resolve_source(str(adapter)), tmp_path / "merged")
    merged = loaded(tmp_path / "merged")
    assert merged.config.id2label == dict(enumerate(MOODS))
    assert torch.equal(scores(merged, base), scores(with_peft(base, adapter).merge_and_unload(), base))
    other = adapt(base, METHODS["lora"], tmp_path / "other", labels=("a", "b", "c", "d"))
    merge(resolve_source(str(other)), tmp_path / "merged-other")
    assert loaded(tmp_path / "merged-other").config.id2label == {n: f"LABEL_{n}" for n in range(4)}


def test_a_module_that_is_no_head_is_still_a_wrong_base(bases, tmp_path: Path) -> None:
    adapter = adapt(bases("llama"), METHODS["lora"], tmp_path / "adapter")
    smaller = save_tiny("LlamaForCausalLM", tmp_path / "smaller", num_hidden_layers=1)
    with pytest.raises(AdapterError, match="was made for another base"):
        open_folded(resolve_source(str(adapter), base=str(smaller)))


def test_on_a_base_saved_with_a_head_the_merge_is_pefts(bases, tmp_path: Path) -> None:
    adapter = adapt(bases("llama"), METHODS["lora"], tmp_path / "adapter")
    headed = AutoModelForSequenceClassification.from_pretrained(bases("llama"), num_labels=3, dtype=torch.float32)
    headed.save_pretrained(tmp_path / "headed")
    expected = peft.PeftModel.from_pretrained(headed, adapter).merge_and_unload().state_dict()
    folded = dict(folded_tensors(resolve_source(str(adapter), base=str(tmp_path / "headed"))))
    assert folded.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in folded.items())


def test_a_base_may_be_a_gguf(tiny_llama: Path, tmp_path: Path) -> None:
    base = tmp_path / "base.gguf"
    export(resolve_source(str(tiny_llama)), base, preset="f32")
    adapter = adapt(base, METHODS["lora"], tmp_path / "adapter")
    merge(resolve_source(str(adapter)), tmp_path / "merged")
    found = scores(loaded(tmp_path / "merged"), tiny_llama)
    expected = with_peft(tiny_llama, adapter).merge_and_unload()
    assert torch.allclose(found, scores(expected, tiny_llama), atol=1e-5)


def test_an_adapter_without_its_whole_head_is_refused_naming_the_tensor(bases, tmp_path: Path) -> None:
    adapter = adapt(bases("distilbert"), METHODS["lora"], tmp_path)
    weights = load_file(adapter / "adapter_model.safetensors")
    for lost in ("pre_classifier.bias", "classifier.weight"):
        weights = {name: tensor for name, tensor in weights.items() if not name.endswith(f".{lost}")}
        save_file(weights, adapter / "adapter_model.safetensors")
        with pytest.raises(AdapterError, match=rf"neither it nor its base has {lost}"):
            open_folded(resolve_source(str(adapter)))


def test_an_encoder_without_the_pooler_that_the_head_reads_is_refused(bases, tmp_path: Path) -> None:
    adapter = adapt(bases("bert alone"), METHODS["lora"], tmp_path / "adapter")
    masked = save_tiny("BertForMaskedLM", tmp_path / "masked")
    with pytest.raises(ModelError, match=r"lacks the tensor bert.pooler.dense.*BertForSequenceClassification needs"):
        open_folded(resolve_source(str(adapter), base=str(masked)))


def test_a_head_of_another_width_or_another_number_of_labels_is_refused(bases, tmp_path: Path) -> None:
    base = bases("llama")
    adapt(base, METHODS["lora"], tmp_path / "adapter")
    recipe = {"base": {"model": str(base)}, "data": {"labels": list(LABELS)}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    with pytest.raises(AdapterError, match=r"scores 3 classes, and data.labels in .* names 2"):
        open_folded(resolve_source(str(tmp_path)))
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    weights["base_model.model.score.weight"] = torch.zeros(3, 16)
    save_file(weights, file)
    with pytest.raises(AdapterError, match=r"score.weight has the shape \[3, 16\], and this base needs \[3, 32\]"):
        open_folded(resolve_source(str(tmp_path / "adapter")))


def test_a_diverged_head_is_blamed_on_the_adapter(bases, tmp_path: Path) -> None:
    adapter = adapt(bases("llama"), METHODS["lora"], tmp_path)
    weights = load_file(adapter / "adapter_model.safetensors")
    weights["base_model.model.score.weight"][0, 0] = float("nan")
    save_file(weights, adapter / "adapter_model.safetensors")
    with pytest.raises(NumericalError, match=r"folding the adapter into score.weight"):
        open_folded(resolve_source(str(adapter))).load("score.weight")


def test_prefix_tuning_of_a_classifier_is_refused_by_its_name(bases, tmp_path: Path) -> None:
    adapter = adapt(bases("llama"), {"type": "prefix", "virtual_tokens": 4}, tmp_path)
    with pytest.raises(AdapterError, match="PREFIX_TUNING adds to the input"):
        open_folded(resolve_source(str(adapter)))
