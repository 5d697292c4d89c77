"""An adapter with a classification head goes onto a base that has such a head, and is told apart from a wrong base."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from folding import folded_tensors, make_adapter  # noqa: E402
from tiny_tasks import save_tiny  # noqa: E402
from transformers import AutoModelForSequenceClassification  # noqa: E402

from edgetune.errors import AdapterError  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402
from edgetune.weights.stream import open_folded  # noqa: E402


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("LlamaForCausalLM", tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj"], modules_to_save=["score"])
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, dtype=torch.float32)
    return make_adapter(base, tmp_path_factory.mktemp("adapter"), config, model=model)


def test_a_base_without_a_head_is_named_as_the_reason(base: Path, adapter: Path):
    with pytest.raises(AdapterError, match=r"classification head \(score\).*--base") as caught:
        open_folded(resolve_source(str(adapter), base=str(base)))
    assert "another base" not in str(caught.value)


def test_a_module_that_is_no_head_is_still_a_wrong_base(base: Path, adapter: Path, tmp_path: Path):
    smaller = save_tiny("LlamaForCausalLM", tmp_path / "smaller", num_hidden_layers=1)
    with pytest.raises(AdapterError, match="was made for another base"):
        open_folded(resolve_source(str(adapter), base=str(smaller)))


def test_on_a_base_saved_with_a_head_the_merge_is_pefts(base: Path, adapter: Path, tmp_path: Path):
    headed = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, dtype=torch.float32)
    headed.save_pretrained(tmp_path / "headed")
    expected = peft.PeftModel.from_pretrained(headed, adapter).merge_and_unload(safe_merge=True).state_dict()
    folded = dict(folded_tensors(resolve_source(str(adapter), base=str(tmp_path / "headed"))))
    assert folded.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in folded.items())
