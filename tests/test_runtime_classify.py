"""Labels by likelihood and by generation, with the ids that training uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgetune.data.example import Message
from edgetune.data.template import ChatTemplate
from edgetune.errors import DataError, UsageError
from edgetune.runtime.classify import (
    classify_all,
    classify_by_generation,
    classify_by_likelihood,
    label_question,
)
from edgetune.runtime.labels.reading import parse_label
from edgetune.runtime.session import Session

LABELS = ["negative", "neutral", "positive"]


@pytest.fixture(scope="module")
def session(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGETUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        with Session.open(smollm2_gguf, context_tokens=512, threads=1, flash_attention=False) as opened:
            yield opened


def question(text: str) -> list[Message]:
    return [Message("user", f"Is this negative, neutral or positive? Answer with one word.\n\nText: {text}")]


def test_the_likeliest_label_is_the_one_whose_whole_answer_has_the_highest_probability(session: Session) -> None:
    prediction = classify_by_likelihood(session, question("I love this!"), LABELS)
    assert prediction.log_probabilities is not None
    assert list(prediction.log_probabilities) == LABELS
    assert prediction.label == max(LABELS, key=prediction.log_probabilities.__getitem__)
    for label, score in prediction.log_probabilities.items():
        prefix = session.tokenize(session.template.render(question("I love this!"), add_generation_prompt=True))
        ids = [*prefix, *session.tokenize(f"{label}<|im_end|>\n")]
        rows = session.log_probabilities(ids)
        expected = sum(float(rows[index - 1, ids[index]]) for index in range(len(prefix), len(ids)))
        assert score == pytest.approx(expected, abs=1e-4)


def test_the_order_of_labels_and_of_texts_changes_no_score(session: Session) -> None:
    texts = ["I love this!", "It is a chair.", "Terrible, never again, and the waiter laughed at us. " * 4]
    forward = [classify_by_likelihood(session, question(text), LABELS) for text in texts]
    backward = [classify_by_likelihood(session, question(text), LABELS[::-1]) for text in reversed(texts)]
    assert [prediction.log_probabilities for prediction in forward] == [
        prediction.log_probabilities for prediction in reversed(backward)
    ]


def test_prompt_and_answer_are_the_ids_of_the_training_segments(session: Session) -> None:
    asked = label_question(session, question("fine"), ["neutral"])
    segments = session.template.segments([*question("fine"), Message("assistant", "neutral")])
    assert [segment.supervised for segment in segments] == [False, True]
    assert (asked.prefix, asked.continuations[0]) == tuple(session.tokenize(segment.text) for segment in segments)


def test_an_example_before_the_question_belongs_to_the_prompt(session: Session) -> None:
    shots = [*question("Awful."), Message("assistant", "negative"), *question("Great.")]
    asked = label_question(session, shots, ["positive"])
    assert session.detokenize(asked.continuations[0]) == "positive<|im_end|>\n"
    assert "Awful" in session.detokenize(asked.prefix)
    assert session.detokenize(asked.prefix).endswith("<|im_start|>assistant\n")


def test_many_conversations_are_classified_as_each_alone(session: Session) -> None:
    texts = ["I love this!", "A chair.", "Never again. " * 5, "", "ok"] * 2
    together = list(classify_all(session, [question(text) for text in texts], LABELS))
    alone = {text: classify_by_likelihood(session, question(text), LABELS) for text in texts}
    assert together == [alone[text] for text in texts]
    assert len({prediction.log_probabilities["neutral"] for prediction in together}) == 5  # type: ignore[index]


def test_a_conversation_that_does_not_fit_is_named_before_any_is_read(session: Session) -> None:
    asked = classify_all(session, [question("fine"), question("long " * 600)], LABELS)
    with pytest.raises(UsageError, match=r"conversation 2: has \d+ tokens .* the context holds 512"):
        next(asked)


def test_a_template_that_changes_the_prompt_with_the_answer_is_refused(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "{{ messages[1].content | length if messages | length > 1 else 0 }}:{{ messages[-1].content }}"
    monkeypatch.setitem(session.__dict__, "template", ChatTemplate(source, "", ""))
    with pytest.raises(DataError, match="chat template"):
        classify_by_likelihood(session, question("x"), ["a", "bbb"])


def test_generation_gives_the_text_that_the_label_was_read_from(session: Session) -> None:
    prediction = classify_by_generation(session, question("I love this!"), LABELS)
    assert prediction.text
    assert prediction.log_probabilities is None
    assert prediction.label == parse_label(prediction.text, LABELS)
