"""Scores of continuations against the log-probabilities of every token, and their independence of each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from support.native_reference import in_child
from support.tiny_mamba import write_tiny_mamba

from edgetune.data.example import Message
from edgetune.errors import UsageError
from edgetune.runtime import label_scoring, native
from edgetune.runtime.context import OUTPUTS, Context
from edgetune.runtime.label_scoring import Scorable
from edgetune.runtime.perplexity import answer_likelihood, text_likelihood
from edgetune.runtime.sampling import GREEDY
from edgetune.runtime.session import Session

CONTEXT_TOKENS = 256


@pytest.fixture(scope="module")
def session(smollm2_gguf: Path) -> Iterator[Session]:
    with Session.open(smollm2_gguf, context_tokens=CONTEXT_TOKENS, threads=1, flash_attention=False) as opened:
        yield opened


def prompt_ids(session: Session, text: str) -> list[int]:
    return session.vocabulary.tokenize(
        session.vocabulary.template.render([Message("user", text)], add_generation_prompt=True)
    )


def score(session: Session, prefix: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[float]:
    return label_scoring.score(session.context, Scorable(prefix, continuations))


def by_every_token(session: Session, prefix: Sequence[int], continuation: Sequence[int]) -> float:
    rows = session.context.log_probabilities([*prefix, *continuation]).astype(np.float64)
    return float(sum(rows[len(prefix) - 1 + index, token] for index, token in enumerate(continuation)))


def test_a_score_is_the_sum_of_the_log_probabilities_of_its_tokens(session: Session) -> None:
    prefix = prompt_ids(session, "Is rain wet?")
    answers = [session.vocabulary.tokenize(text) for text in ("Yes.<|im_end|>\n", "no", "", "Rain is wet. " * 13)]
    assert len(answers[3]) > OUTPUTS, "more than one batch"
    scores = score(session, prefix, [*answers, answers[0]])
    assert scores[2] == 0
    assert scores[0] == scores[4]
    for number in (0, 3):
        assert scores[number] == pytest.approx(by_every_token(session, prefix, answers[number]), abs=1e-4)


def test_more_answers_than_the_context_holds_at_once_are_scored_alike(session: Session) -> None:
    prefix = prompt_ids(session, "Go on.")
    answers = [session.vocabulary.tokenize(f" {number} and so on") for number in range(50)]
    assert sum(map(len, answers)) + len(prefix) > CONTEXT_TOKENS
    together = score(session, prefix, answers)
    assert [together[0], together[-1]] == [score(session, prefix, [answers[at]])[0] for at in (0, -1)]
    assert len(set(together)) > 40


def test_a_score_does_not_depend_on_what_was_read_before(session: Session) -> None:
    prefix = prompt_ids(session, "The parcel arrived on Tuesday, as announced, and the box was brown. " * 4)
    answers = [session.vocabulary.tokenize(text) for text in ("negative<|im_end|>\n", "positive<|im_end|>\n")]
    session.context.feed([1], reproducible=True)
    fresh = score(session, prefix, answers)
    session.context.feed([*prefix[:50], 1])
    assert score(session, prefix, answers) == fresh
    session.context.feed(prefix)
    assert score(session, prefix, answers[::-1]) == fresh[::-1]


def test_labels_that_begin_alike_or_within_each_other_are_scored_right(session: Session) -> None:
    prefix = prompt_ids(session, "One word, please.")
    texts = ["positive<|im_end|>\n", "positive", "positive vibes<|im_end|>\n", "positive vibes", "no<|im_end|>\n"]
    ids = [session.vocabulary.tokenize(text) for text in texts]
    assert ids[0][0] == ids[1][0] == ids[2][0], "they share their first token"
    for own, value in zip(ids, score(session, prefix, ids), strict=True):
        assert value == pytest.approx(by_every_token(session, prefix, own), abs=1e-4)


def test_many_questions_are_scored_as_each_alone_to_the_last_bit(session: Session) -> None:
    prefixes = [prompt_ids(session, f"What about {text}?") for text in ("tea", "a cup of coffee " * 4, "it", "x" * 30)]
    answers = [session.vocabulary.tokenize(text) for text in ("good<|im_end|>\n", "good value<|im_end|>\n", "bad")]
    questions = [(prefix, answers[: 1 + number % 3]) for number, prefix in enumerate(prefixes * 3)]
    together = [score(session, *each) for each in questions]
    alone = []
    for each in questions[:4]:
        session.context.forget()
        alone.append(score(session, *each))
    assert together[:4] == alone
    assert together[::-1] == [score(session, *each) for each in questions[::-1]], "neither order nor run matters"
    assert together[2][::-1] == score(session, prefixes[2], answers[::-1])
    assert together[2] == [score(session, prefixes[2], [answer])[0] for answer in answers]


def test_questions_with_nothing_in_common_are_scored_right(session: Session) -> None:
    answer = session.vocabulary.tokenize(" falls today")
    for text in ("Rain", "The sun is", "1 2 3 4"):
        prefix = session.vocabulary.tokenize(text)
        (value,) = score(session, prefix, [answer])
        assert value == pytest.approx(by_every_token(session, prefix, answer), abs=1e-4)


def test_a_model_whose_memory_is_a_state_reads_a_prefix_once_for_all_continuations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_tiny_mamba(tmp_path / "mamba.gguf")
    model = native.load_model(file, extra_kernels=False)
    context = Context(file, model, capacity=256, threads=1, flash_attention=False)
    prefix, answers = list(range(3, 43)), [[5, 6, 7], [5, 8], [9], [10, 11, 12, 13], []]
    expected = []
    for answer in answers:
        rows = context.log_probabilities([*prefix, *answer])
        expected.append(sum(float(rows[len(prefix) - 1 + index, token]) for index, token in enumerate(answer)))
    context.forget()
    decode, read = context._decode, []
    monkeypatch.setattr(context, "_decode", lambda ids, *places: read.append(len(ids)) or decode(ids, *places))
    question = Scorable(prefix, answers)
    scores = label_scoring.score(context, question)
    assert scores == pytest.approx(expected, abs=1e-4)
    assert sum(read) < 2 * len(prefix)
    assert label_scoring.score(context, question) == scores
    assert label_scoring.score(context, Scorable(prefix[:9], [[1, 2], [3, 4]])) != scores[:2]
    assert label_scoring.score(context, question) == scores
    context.close()
    native.open_library().llama_model_free(model)


def test_what_has_nothing_before_it_or_does_not_fit_is_refused(session: Session) -> None:
    with pytest.raises(UsageError, match="give a prefix"):
        score(session, [], [[1]])
    with pytest.raises(UsageError, match="the context holds 256"):
        score(session, [5] * 254, [[1, 2, 3, 4]])
    assert len(score(session, [5] * 254, [[1, 2, 3]])) == 1
    assert score(session, [5], []) == []


def test_a_context_can_grow_to_what_the_model_was_trained_on(smollm2_gguf: Path) -> None:
    with Session.open(smollm2_gguf, context_tokens=64, threads=1, flash_attention=False) as small:
        prefix = prompt_ids(small, "Is it good?")
        before = score(small, prefix, [[5, 6]])
        small.context.make_room(40)
        assert small.context.capacity == 64
        small.context.make_room(10**6)
        assert small.context.capacity == 8192
        assert score(small, prefix, [[5, 6]]) == before


def test_scores_are_those_of_llama_cpp_pythons_completions(session: Session) -> None:
    prefixes = [
        prompt_ids(session, f"What about {text}?") for text in ("tea", "a large cup of coffee", "rain, or snow")
    ]
    answers = [session.vocabulary.tokenize(text) for text in ("good<|im_end|>\n", "bad<|im_end|>\n")]
    scores = [score(session, prefix, answers) for prefix in prefixes]
    expected = in_child(completion_likelihoods, session.path, prefixes, answers)
    assert np.array(scores) == pytest.approx(np.array(expected), abs=1e-4)


def completion_likelihoods(file: Path, prefixes: list[list[int]], answers: list[list[int]]) -> list[list[float]]:
    """Each answer's log-probability after each prefix, from the logits of llama-cpp-python's high-level API."""
    import llama_cpp

    llama = llama_cpp.Llama(
        str(file), n_ctx=CONTEXT_TOKENS, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False
    )
    found = []
    for prefix in prefixes:
        found.append([])
        for answer in answers:
            llama.create_completion([*prefix, *answer[:-1]], max_tokens=1, temperature=0.0)
            rows = llama.scores[len(prefix) - 1 : len(prefix) + len(answer) - 1].astype(np.float64)
            totals = np.log(np.exp(rows).sum(-1))
            found[-1].append(float((rows[range(len(answer)), answer] - totals).sum()))
    return found


def test_a_text_has_the_likelihood_of_all_tokens_after_its_first(session: Session) -> None:
    text = "The river rose in the night, and by morning the bridge was gone."
    ids = session.vocabulary.tokenize(text)
    found = text_likelihood(session, text)
    assert session.vocabulary.beginning == [], "this vocabulary asks for no beginning-of-text token"
    assert found.nats == pytest.approx(-by_every_token(session, ids[:1], ids[1:]), abs=1e-3)
    assert (found.tokens, found.bytes) == (len(ids) - 1, len(text))


def test_a_vocabulary_with_a_beginning_has_every_token_of_the_text_scored(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(session.vocabulary.__dict__, "beginning", [1])
    ids = session.vocabulary.tokenize("A short text, ä.")
    found = text_likelihood(session, "A short text, ä.")
    assert found.nats == pytest.approx(-by_every_token(session, [1], ids), abs=1e-3)
    assert (found.tokens, found.bytes) == (len(ids), 17)


def test_a_text_longer_than_the_context_is_scored_once_in_windows(smollm2_gguf: Path) -> None:
    text = "The river rose in the night, and by morning the bridge was gone. " * 5
    with Session.open(smollm2_gguf, context_tokens=32, threads=1, flash_attention=False) as narrow:
        ids = narrow.vocabulary.tokenize(text)
        found = text_likelihood(narrow, text)
        expected, done = 0.0, 1
        while done < len(ids):
            start = max(0, done - 16)
            end = min(start + 32, len(ids))
            expected -= by_every_token(narrow, ids[start:done], ids[done:end])
            done = end
    assert len(ids) > 64
    assert found.tokens == len(ids) - 1
    assert found.nats == pytest.approx(expected, abs=1e-3)


def test_an_answer_is_scored_with_its_end_after_the_rendered_conversation(session: Session) -> None:
    asked = [Message("user", "Capital of France?")]
    ids = session.vocabulary.tokenize("Paris.<|im_end|>\n")
    found = answer_likelihood(session, asked, "Paris.")
    assert found.nats == pytest.approx(-by_every_token(session, prompt_ids(session, asked[0].content), ids), abs=1e-4)
    assert (found.tokens, found.bytes) == (len(ids), 6)


def test_a_token_that_was_read_alone_does_not_reach_a_score(session: Session) -> None:
    # llama.cpp multiplies one row in another way than several, with other rounding.
    ids = session.vocabulary.tokenize("The box was brown. " * 30)[:100]
    fresh = score(session, ids, [[5, 6]])
    session.context.feed(ids[:-1], reproducible=True)
    session.context.feed(ids)
    assert score(session, ids, [[5, 6]]) == fresh
    "".join(session.generate(ids[:-3], sampling=GREEDY, max_tokens=3))
    assert score(session, ids, [[5, 6]]) == fresh
