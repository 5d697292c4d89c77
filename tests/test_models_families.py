"""The records of model families say what Transformers' own configurations and classes say."""

from __future__ import annotations

import pytest

transformers = pytest.importorskip("transformers")

from transformers.models.auto import modeling_auto  # noqa: E402
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES  # noqa: E402

from edgetune.models.families import FAMILIES, auto_class, find_family  # noqa: E402

WITH_EMBEDDINGS = {name: family for name, family in FAMILIES.items() if family.embeddings is not None}
ENCODER_DECODERS = modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_family_has_the_kind_that_its_configuration_has(model_type: str) -> None:
    kind = FAMILIES[model_type].kind
    assert (kind == "encoder-decoder") == transformers.AutoConfig.for_model(model_type).is_encoder_decoder
    assert (kind == "encoder-decoder") == (model_type in ENCODER_DECODERS)
    bidirectional = model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and kind != "encoder-decoder"
    assert (kind == "encoder") == bidirectional


@pytest.mark.parametrize("model_type", WITH_EMBEDDINGS)
def test_embeddings_are_tied_where_transformers_ties_them(model_type: str) -> None:
    family = WITH_EMBEDDINGS[model_type]
    assert family.ties_embeddings == transformers.AutoConfig.for_model(model_type).tie_word_embeddings
    auto = transformers.AutoModelForMaskedLM if family.kind == "encoder" else auto_class(model_type, classifies=False)
    tied = auto._model_mapping[transformers.CONFIG_MAPPING[model_type]]._tied_weights_keys
    assert family.embeddings is not None
    assert tied[family.embeddings.head].endswith(family.embeddings.embedding)


@pytest.mark.parametrize("model_type", [name for name, family in FAMILIES.items() if family.tokenizer_class])
def test_a_tokenizer_class_of_a_family_is_that_of_transformers(model_type: str) -> None:
    assert TOKENIZER_MAPPING_NAMES[model_type] == FAMILIES[model_type].tokenizer_class


def test_a_family_without_a_record_is_a_decoder_of_which_nothing_is_assumed() -> None:
    assert (find_family("gpt2").kind, find_family("gpt2").embeddings) == ("decoder", None)
