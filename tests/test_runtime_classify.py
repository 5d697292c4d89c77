"""Labels by likelihood, with the ids that training uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgetune.data.example import Message
from edgetune.data.template import ChatTemplate
from edgetune.errors import DataError, UsageError
from edgetune.runtime.classify import label_question, likeliest, score_labels
from edgetune.runtime.model import Model
from edgetune.runtime.session import Session

LABELS = ["negative", "neutral", "positive"]


@pytest.fixture(scope="module")
def session(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGETUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        with Session.open(smollm2_gguf, context_tokens=512, threads=1, flash_attention=False) as opened:
            yield opened


PROMPT = "Is this negative, neutral or positive? Answer with one word.\n\nText: {text}"


def question(text: str) -> list[Message]:
    return [Message("user", PROMPT.format(text=text))]


def scores_of(session: Session, messages: list[Message], labels: list[str]) -> dict[str, float]:
    return score_labels(session, label_question(session.vocabulary, messages, labels), labels)


def test_the_likeliest_label_is_the_one_whose_whole_answer_has_the_highest_probability(session: Session) -> None:
    scores = scores_of(session, question("I love this!"), LABELS)
    assert list(scores) == LABELS
    assert likeliest(scores) == max(LABELS, key=scores.__getitem__)
    for label, score in scores.items():
        prefix = session.vocabulary.tokenize(
            session.vocabulary.template.render(question("I love this!"), add_generation_prompt=True)
        )
        ids = [*prefix, *session.vocabulary.tokenize(f"{label}<|im_end|>\n")]
        rows = session.context.log_probabilities(ids)
        expected = sum(float(rows[index - 1, ids[index]]) for index in range(len(prefix), len(ids)))
        assert score == pytest.approx(expected, abs=1e-4)


def test_the_order_of_labels_and_of_texts_changes_no_score(session: Session) -> None:
    texts = ["I love this!", "It is a chair.", "Terrible, never again, and the waiter laughed at us. " * 4]
    forward = [scores_of(session, question(text), LABELS) for text in texts]
    backward = [scores_of(session, question(text), LABELS[::-1]) for text in reversed(texts)]
    assert forward == backward[::-1]


def test_prompt_and_answer_are_the_ids_of_the_training_segments(session: Session) -> None:
    asked = label_question(session.vocabulary, question("fine"), ["neutral"])
    segments = session.vocabulary.template.segments([*question("fine"), Message("assistant", "neutral")])
    assert [segment.supervised for segment in segments] == [False, True]
    assert (asked.prefix, asked.continuations[0]) == tuple(
        session.vocabulary.tokenize(segment.text) for segment in segments
    )


def test_an_example_before_the_question_belongs_to_the_prompt(session: Session) -> None:
    shots = [*question("Awful."), Message("assistant", "negative"), *question("Great.")]
    asked = label_question(session.vocabulary, shots, ["positive"])
    assert session.vocabulary.detokenize(asked.continuations[0]) == "positive<|im_end|>\n"
    assert "Awful" in session.vocabulary.detokenize(asked.prefix)
    assert session.vocabulary.detokenize(asked.prefix).endswith("<|im_start|>assistant\n")


def test_many_texts_are_classified_as_each_alone(session: Session) -> None:
    texts = ["I love this!", "A chair.", "Never again. " * 5, "", "ok"] * 2
    model = Model(session)
    together = model.score_labels(texts, LABELS, prompt=PROMPT)
    alone = {text: scores_of(session, question(text), LABELS) for text in texts}
    assert together == [alone[text] for text in texts]
    assert len({scores["neutral"] for scores in together}) == 5
    assert model.classify(texts, LABELS, prompt=PROMPT) == [likeliest(alone[text]) for text in texts]


def test_a_text_that_does_not_fit_is_named_before_any_is_read(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session.context, "make_room", lambda _tokens: None)
    monkeypatch.setattr(session.context, "read", None)
    with pytest.raises(UsageError, match=r"text 2: has \d+ tokens .* the context holds 512"):
        Model(session).classify(["fine", "long " * 600], LABELS)


@pytest.mark.parametrize("labels", [[], [""], ["a", "a"]])
def test_labels_that_cannot_be_told_apart_are_refused(session: Session, labels: list[str]) -> None:
    with pytest.raises(UsageError, match="they must be distinct texts"):
        Model(session).classify(["fine"], labels)


def test_a_template_that_changes_the_prompt_with_the_answer_is_refused(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "{{ messages[1].content | length if messages | length > 1 else 0 }}:{{ messages[-1].content }}"
    monkeypatch.setitem(session.vocabulary.__dict__, "template", ChatTemplate(source, "", ""))
    with pytest.raises(DataError, match="chat template"):
        scores_of(session, question("x"), ["a", "bbb"])
