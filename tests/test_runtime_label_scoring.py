"""Scores of continuations against the log-probabilities of every token, and their independence of each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.native_reference import in_child

from edgetune.data.example import Message
from edgetune.errors import UsageError
from edgetune.runtime.label_scoring import Scorable, score, score_all
from edgetune.runtime.layout import PADDING, Tree, lay_out, longest_layout
from edgetune.runtime.perplexity import answer_likelihood, text_likelihood
from edgetune.runtime.sampling import GREEDY
from edgetune.runtime.session import OUTPUTS, SEQUENCES, Session

CONTEXT_TOKENS = 256


@pytest.fixture(scope="module")
def session(smollm2_gguf: Path) -> Iterator[Session]:
    with Session.open(smollm2_gguf, context_tokens=CONTEXT_TOKENS, threads=1, flash_attention=False) as opened:
        yield opened


def prompt_ids(session: Session, text: str) -> list[int]:
    return session.tokenize(session.template.render([Message("user", text)], add_generation_prompt=True))


def by_every_token(session: Session, prefix: Sequence[int], continuation: Sequence[int]) -> float:
    rows = session.log_probabilities([*prefix, *continuation]).astype(np.float64)
    return float(sum(rows[len(prefix) - 1 + index, token] for index, token in enumerate(continuation)))


def test_a_score_is_the_sum_of_the_log_probabilities_of_its_tokens(session: Session) -> None:
    prefix = prompt_ids(session, "Is rain wet?")
    answers = [session.tokenize(text) for text in ("Yes.<|im_end|>\n", "no", "", "Rain is wet. " * 13)]
    assert len(answers[3]) > OUTPUTS, "more than one batch"
    scores = score(session, prefix, [*answers, answers[0]])
    assert scores[2] == 0
    assert scores[0] == scores[4]
    for number in (0, 3):
        assert scores[number] == pytest.approx(by_every_token(session, prefix, answers[number]), abs=1e-4)


def test_more_answers_than_sequences_and_more_than_fit_at_once_are_scored_alike(session: Session) -> None:
    prefix = prompt_ids(session, "Go on.")
    answers = [session.tokenize(f" {number} and so on") for number in range(50)]
    assert len(answers) > SEQUENCES
    assert sum(map(len, answers)) + len(prefix) > CONTEXT_TOKENS
    together = score(session, prefix, answers)
    assert [together[0], together[-1]] == [score(session, prefix, [answers[at]])[0] for at in (0, -1)]
    assert len(set(together)) > 40


def test_a_score_does_not_depend_on_what_was_read_before(session: Session) -> None:
    prefix = prompt_ids(session, "The parcel arrived on Tuesday, as announced, and the box was brown. " * 4)
    answers = [session.tokenize(text) for text in ("negative<|im_end|>\n", "positive<|im_end|>\n")]
    session.feed([1], reproducible=True)
    fresh = score(session, prefix, answers)
    session.feed([*prefix[:50], 1])
    assert score(session, prefix, answers) == fresh
    session.feed(prefix)
    assert score(session, prefix, answers[::-1]) == fresh[::-1]


def test_labels_that_begin_alike_or_within_each_other_are_scored_right(session: Session) -> None:
    prefix = prompt_ids(session, "One word, please.")
    texts = ["positive<|im_end|>\n", "positive", "positive vibes<|im_end|>\n", "positive vibes", "no<|im_end|>\n"]
    ids = [session.tokenize(text) for text in texts]
    assert ids[0][0] == ids[1][0] == ids[2][0], "they share their first token"
    for own, value in zip(ids, score(session, prefix, ids), strict=True):
        assert value == pytest.approx(by_every_token(session, prefix, own), abs=1e-4)


def test_many_questions_are_scored_as_each_alone_to_the_last_bit(session: Session) -> None:
    prefixes = [prompt_ids(session, f"What about {text}?") for text in ("tea", "a cup of coffee " * 4, "it", "x" * 30)]
    answers = [session.tokenize(text) for text in ("good<|im_end|>\n", "good value<|im_end|>\n", "bad")]
    questions = [Scorable(prefix, answers[: 1 + number % 3]) for number, prefix in enumerate(prefixes * 3)]
    together = list(score_all(session, questions))
    assert together[:4] == [score(session, each.prefix, each.continuations) for each in questions[:4]]
    assert together[::-1] == list(score_all(session, questions[::-1])), "neither order nor run matters"
    assert together[2][::-1] == score(session, prefixes[2], questions[2].continuations[::-1])
    assert together[2] == [score(session, prefixes[2], [answer])[0] for answer in questions[2].continuations]


def test_questions_with_nothing_in_common_are_scored_right(session: Session) -> None:
    prefixes = [session.tokenize(text) for text in ("Rain", "The sun is", "1 2 3 4")]
    answer = session.tokenize(" falls today")
    scores = list(score_all(session, [Scorable(prefix, [answer]) for prefix in prefixes]))
    for prefix, (value,) in zip(prefixes, scores, strict=True):
        assert value == pytest.approx(by_every_token(session, prefix, answer), abs=1e-4)


def test_a_model_whose_memory_is_a_state_gets_the_same_scores(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = prompt_ids(session, "Is it good?")
    answers = [session.tokenize(text) for text in ("yes<|im_end|>\n", "yes it is", "no", "")]
    branching = score(session, prefix, answers)
    monkeypatch.setitem(session.__dict__, "can_branch", False)
    assert score(session, prefix, answers) == branching


def test_what_has_nothing_before_it_or_does_not_fit_is_refused(session: Session) -> None:
    with pytest.raises(UsageError, match="give a prefix"):
        score(session, [], [[1]])
    with pytest.raises(UsageError, match="the context holds 256"):
        score(session, [5] * 254, [[1, 2, 3, 4]])
    assert len(score(session, [5] * 254, [[1, 2, 3]])) == 1
    assert list(score_all(session, [])) == []


def test_a_context_can_grow_to_what_the_model_was_trained_on(smollm2_gguf: Path) -> None:
    with Session.open(smollm2_gguf, context_tokens=64, threads=1, flash_attention=False) as small:
        prefix = prompt_ids(small, "Is it good?")
        before = score(small, prefix, [[5, 6]])
        small.make_room(40)
        assert small.context_tokens == 64
        small.make_room(10**6)
        assert small.context_tokens == 8192
        assert score(small, prefix, [[5, 6]]) == before


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    trunk=st.lists(st.integers(0, 2), min_size=1, max_size=3),
    continuations=st.lists(st.lists(st.integers(0, 2), max_size=4), max_size=6),
    shared=st.integers(0, 3),
)
def test_a_tree_reads_every_continuation_after_its_whole_trunk(
    trunk: list[int], continuations: list[list[int]], shared: int
) -> None:
    tree = Tree.grow(trunk, continuations, shared=min(shared, len(trunk)))
    seen: dict[int, dict[int, int]] = {}
    for node, targets in enumerate(tree.targets):
        for number, token in targets:
            # Everything before this token on one of its sequences, in the order in which it is read.
            path = tree.paths[node][0]
            before = [tree.tokens[other] for other in range(node + 1) if path in tree.paths[other]]
            assert tree.depths[node] == len(before) - 1
            position = len(before) - len(trunk)
            assert before == [*trunk, *continuations[number][:position]]
            seen.setdefault(number, {})[position] = token
    for number, continuation in enumerate(continuations):
        assert [seen.get(number, {}).get(position) for position in range(len(continuation))] == continuation


@settings(max_examples=200, deadline=None)
@given(
    trees=st.lists(
        st.tuples(
            st.integers(1, 20), st.lists(st.lists(st.integers(0, 2), max_size=4), max_size=4), st.integers(0, 20)
        ),
        max_size=5,
    ),
    lanes=st.sampled_from([1, 8, 16]),
)
def test_every_token_lies_in_its_own_lane_and_after_what_it_follows(
    trees: list[tuple[int, list[list[int]], int]], lanes: int
) -> None:
    grown = [Tree.grow([7] * trunk, continuations, shared=min(shared, trunk)) for trunk, continuations, shared in trees]
    places = lay_out(grown, lanes)
    assert len(places) <= longest_layout(grown, lanes)
    tokens = [place for place in places if place != PADDING]
    assert sorted(tokens) == [(number, node) for number, tree in enumerate(grown) for node in range(len(tree.tokens))]
    ends: dict[tuple[int, int], int] = {}
    for place, (number, node) in enumerate(places):
        if (number, node) == PADDING:
            continue
        tree = grown[number]
        assert place % lanes == tree.depths[node] % lanes
        for path in tree.paths[node]:
            assert tree.depths[node] == ends.get((number, path), -1) + 1, "each sequence is read in order"
            ends[number, path] = tree.depths[node]


def test_scores_are_those_of_llama_cpp_pythons_completions(session: Session) -> None:
    prefixes = [
        prompt_ids(session, f"What about {text}?") for text in ("tea", "a large cup of coffee", "rain, or snow")
    ]
    answers = [session.tokenize(text) for text in ("good<|im_end|>\n", "bad<|im_end|>\n")]
    scores = list(score_all(session, [Scorable(prefix, answers) for prefix in prefixes]))
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
    ids = session.tokenize(text)
    found = text_likelihood(session, text)
    assert session.beginning == [], "this vocabulary asks for no beginning-of-text token"
    assert found.nats == pytest.approx(-by_every_token(session, ids[:1], ids[1:]), abs=1e-3)
    assert (found.tokens, found.bytes) == (len(ids) - 1, len(text))


def test_a_vocabulary_with_a_beginning_has_every_token_of_the_text_scored(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(session.__dict__, "beginning", [1])
    ids = session.tokenize("A short text, ä.")
    found = text_likelihood(session, "A short text, ä.")
    assert found.nats == pytest.approx(-by_every_token(session, [1], ids), abs=1e-3)
    assert (found.tokens, found.bytes) == (len(ids), 17)


def test_a_text_longer_than_the_context_is_scored_once_in_windows(smollm2_gguf: Path) -> None:
    text = "The river rose in the night, and by morning the bridge was gone. " * 5
    with Session.open(smollm2_gguf, context_tokens=32, threads=1, flash_attention=False) as narrow:
        ids = narrow.tokenize(text)
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
    ids = session.tokenize("Paris.<|im_end|>\n")
    found = answer_likelihood(session, asked, "Paris.")
    assert found.nats == pytest.approx(-by_every_token(session, prompt_ids(session, asked[0].content), ids), abs=1e-4)
    assert (found.tokens, found.bytes) == (len(ids), 6)


def test_a_token_that_was_read_alone_does_not_reach_a_score(session: Session) -> None:
    # llama.cpp multiplies one row in another way than several, with other rounding.
    ids = session.tokenize("The box was brown. " * 30)[:100]
    fresh = score(session, ids, [[5, 6]])
    session.feed(ids[:-1], reproducible=True)
    session.feed(ids)
    assert score(session, ids, [[5, 6]]) == fresh
    "".join(session.generate(ids[:-3], sampling=GREEDY, max_tokens=3))
    assert score(session, ids, [[5, 6]]) == fresh
