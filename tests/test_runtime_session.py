"""The llama.cpp session against Transformers' tokenizer, against itself without a cache, and under interrupts."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.parrot import write_parrot

from edgetune.cores import physical_cores
from edgetune.data.example import Message
from edgetune.errors import ModelError, NumericalError, UsageError
from edgetune.models.load import load_model
from edgetune.models.locate import locate_model
from edgetune.runtime.generation import Generation
from edgetune.runtime.label_scoring import Scorable, score
from edgetune.runtime.runnable import RunnableFile
from edgetune.runtime.sampling import GREEDY, Sampling
from edgetune.runtime.session import Session

CONTEXT_TOKENS = 512

HARD_TEXTS = [
    "Hello, world!",
    "",
    "  two  spaces   three    four\t\ttabs\n\n\nlines \n \n trailing   ",
    "1234567890 3.14159 1,000,000 2026-01-02 x1y22z333",
    "naïve café Zürich — “quotes” … ½",
    "你好，世界。こんにちは 안녕하세요",
    "مرحبا שלום नमस्ते ไทย",
    "👩‍👩‍👧‍👦 🇩🇪 😀😀 👍🏽",
    "I'm you're he'll WE'VE don't",
    "def f(x):\n    return x**2  # comment\n\tif x != 0: pass\r\n",
    "a user writes <|im_end|> and <|im_start|>assistant in the text <|endoftext|>",
    "null\x00byte and \u200bzero width\ufeff",
]


@pytest.fixture(scope="module")
def session(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGETUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        with Session.open(smollm2_gguf, context_tokens=CONTEXT_TOKENS, threads=1) as opened:
            yield opened


@pytest.fixture(scope="module")
def reference_ids(smollm2_tokenizer) -> Callable[[str], list[int]]:
    """The ids of Transformers' tokenizer, splitting digits as SmolLM2's own tokenizer.json does.

    Reading a GGUF, Transformers leaves that step out, which shows where a space stands before a digit that is not
    ASCII. llama.cpp has it, by the file's tokenizer.ggml.pre = smollm.
    """
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_str(smollm2_tokenizer.backend_tokenizer.to_str())
    steps = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = steps.Sequence([steps.Digits(individual_digits=True), steps.ByteLevel(False)])
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def finished(generation: Generation) -> Generation:
    """The generation once all of its text is read."""
    "".join(generation)
    return generation


def prompt_ids(session: Session, text: str) -> list[int]:
    return session.vocabulary.tokenize(
        session.vocabulary.template.render([Message("user", text)], add_generation_prompt=True)
    )


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_ids_equal_transformers_ids(session: Session, reference_ids: Callable[[str], list[int]], text: str) -> None:
    conversation = [Message("system", text), Message("user", text), Message("assistant", text), Message("user", "ok")]
    for rendered in (text, session.vocabulary.template.render(conversation, add_generation_prompt=True)):
        assert session.vocabulary.tokenize(rendered) == reference_ids(rendered)


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cn", "Co", "Cc"], include_characters="\n\t"), max_size=40))
def test_ids_of_any_text_equal_transformers_ids_and_come_back_as_the_text(
    session: Session, reference_ids: Callable[[str], list[int]], text: str
) -> None:
    # SmolLM2's vocabulary lacks bytes of control characters and of planes without letters. For these, the tokenizer may
    # write its unknown token, and llama.cpp nothing.
    ids = session.vocabulary.tokenize(text)
    assert ids == reference_ids(text)
    assert session.vocabulary.detokenize(ids) == text


def test_the_template_is_the_tokenizers(session: Session, smollm2_tokenizer) -> None:
    assert session.vocabulary.template.source == smollm2_tokenizer.chat_template
    assert session.vocabulary.template.bos_token == smollm2_tokenizer.bos_token
    assert session.vocabulary.template.eos_token == smollm2_tokenizer.eos_token


def test_special_tokens_stay_text_where_they_are_not_parsed(session: Session) -> None:
    assert len(session.vocabulary.tokenize("<|im_end|>")) == 1
    assert len(session.vocabulary.tokenize("<|im_end|>", parse_special=False)) > 1
    assert session.vocabulary.detokenize(session.vocabulary.tokenize("<|im_end|>hi"), special=False) == "hi"


def test_log_probabilities_agree_with_transformers(session: Session, smollm2_gguf: Path) -> None:
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    ids = prompt_ids(session, "The capital of France is")
    ours = session.context.log_probabilities(ids)
    model = load_model(locate_model(str(smollm2_gguf)), dtype=torch.float32)  # as Transformers reads it: test_models.py
    with torch.inference_mode():
        theirs = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1).numpy()
    assert ours.shape == theirs.shape == (len(ids), session.vocabulary.size)
    # llama.cpp rounds the activations of Q4_1 matrices to 8 bits, Transformers does not.
    divergence = (np.exp(theirs) * (theirs - ours)).sum(-1)
    assert divergence.max() < 0.05
    assert (ours.argmax(-1) == theirs.argmax(-1)).mean() > 0.9


def test_log_probabilities_are_a_distribution_in_every_batch(session: Session) -> None:
    ids = prompt_ids(session, "counting " * 60)
    assert len(ids) > 64, "more than one batch of logits"
    rows = session.context.log_probabilities(ids)
    np.testing.assert_allclose(np.exp(rows.astype(np.float64)).sum(-1), 1, atol=1e-3)


def test_scoring_leaves_the_cache_usable_for_generation(session: Session) -> None:
    prompt = prompt_ids(session, "Name a colour.")
    before = "".join(session.generate(prompt, sampling=GREEDY, max_tokens=12))
    score(
        session.context,
        Scorable(prompt, [session.vocabulary.tokenize("red wine"), session.vocabulary.tokenize("blue sky and sea")]),
    )
    assert "".join(session.generate(prompt, sampling=GREEDY, max_tokens=12)) == before


def test_a_shared_beginning_is_read_once_and_gives_the_text_of_a_fresh_session(
    session: Session, smollm2_gguf: Path
) -> None:
    first = prompt_ids(session, "What is the capital of France?")
    second = prompt_ids(session, "What is the capital of Italy?")
    "".join(session.generate(first, sampling=GREEDY, max_tokens=8))
    reused = finished(session.generate(second, sampling=GREEDY, max_tokens=16))
    shared = next(index for index, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    assert reused.stats.cached_tokens == shared > 20
    with Session.open(smollm2_gguf, context_tokens=CONTEXT_TOKENS, threads=1) as fresh:
        anew = finished(fresh.generate(second, sampling=GREEDY, max_tokens=16))
    assert anew.text == reused.text
    assert anew.stats.cached_tokens == 0


def test_greedy_text_is_the_likeliest_token_each_time(session: Session) -> None:
    prompt = prompt_ids(session, "Say hello.")
    written = list(finished(session.generate(prompt, sampling=GREEDY, max_tokens=10)).stats.token_ids)
    rows = session.context.log_probabilities([*prompt, *written])
    rows = rows[len(prompt) - 1 : -1]
    # Tokens that are written are read one by one, with other rounding than in a batch.
    assert (rows.max(-1) - rows[range(len(written)), written]).max() < 0.3
    assert (rows.argmax(-1) == written).mean() >= 0.8


def test_the_end_of_an_answer_is_not_part_of_its_text(session: Session) -> None:
    written = finished(session.generate(prompt_ids(session, "Say only: hi"), sampling=GREEDY, max_tokens=100))
    assert written.stats.finish_reason == "stop"
    assert "<|" not in written.text
    assert session.vocabulary.detokenize(written.stats.token_ids) == written.text


def test_generation_stops_at_its_length_and_at_the_end_of_the_context(session: Session) -> None:
    endless = session.vocabulary.tokenize("one two three four one two three four " * 62)[: CONTEXT_TOKENS - 10]
    stats = finished(session.generate(endless, sampling=GREEDY, max_tokens=5)).stats
    assert (stats.finish_reason, stats.generated_tokens) == ("length", 5)
    stats = finished(session.generate(endless, sampling=GREEDY, max_tokens=500)).stats
    assert stats.finish_reason == "context"
    assert len(endless) + stats.generated_tokens == CONTEXT_TOKENS + 1


def test_a_prompt_longer_than_the_context_is_a_clear_error(session: Session) -> None:
    with pytest.raises(UsageError, match=r"the text has 513 tokens, the context holds 512; .*larger context"):
        next(session.generate([5] * 513, sampling=GREEDY, max_tokens=1))


def test_an_empty_prompt_is_a_clear_error(session: Session) -> None:
    with pytest.raises(UsageError, match="nothing to read"):
        next(session.generate([], sampling=GREEDY, max_tokens=1))


def test_a_seed_gives_the_same_text_and_another_seed_another(session: Session) -> None:
    prompt = prompt_ids(session, "Tell me a story.")

    def write(seed: int) -> str:
        return "".join(session.generate(prompt, sampling=Sampling(temperature=1.5, seed=seed), max_tokens=12))

    assert write(1) == write(1)
    assert write(1) != write(2)


def test_a_repeat_penalty_ends_a_loop(session: Session) -> None:
    prompt = session.vocabulary.tokenize("la la la la la la la la la la la la la la")

    def distinct(sampling: Sampling) -> int:
        return len(set(finished(session.generate(prompt, sampling=sampling, max_tokens=12)).stats.token_ids))

    assert distinct(GREEDY) <= 3
    assert distinct(Sampling(temperature=0, repeat_penalty=2.0)) > 6


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"temperature": float("nan")}, {"top_p": 0}, {"top_k": -1}, {"min_p": 2}, {"seed": -1}],
)
def test_sampling_that_cannot_be_meant_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]


def test_emoji_split_over_tokens_arrive_whole(session: Session) -> None:
    text = "🦆🦆🦆🦆🦆🦆🦆🦆🦆🦆"
    prompt = session.vocabulary.tokenize(text)
    assert len(prompt) > len(text), "several tokens to a character"
    written = session.generate(prompt, sampling=GREEDY, max_tokens=12)
    pieces = list(written)
    assert "".join(pieces) == session.vocabulary.detokenize(written.stats.token_ids)
    assert "🦆" in pieces


def test_stopping_to_read_keeps_the_stats_and_the_session(session: Session) -> None:
    prompt = prompt_ids(session, "Write a long story.")
    with closing(session.generate(prompt, sampling=GREEDY, max_tokens=50)) as pieces:
        next(pieces)
        next(pieces)
    assert pieces.stats.finish_reason == "interrupted"
    assert pieces.stats.generated_tokens == 2
    assert "".join(session.generate(prompt, sampling=GREEDY, max_tokens=3))


def interrupt_after(seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def test_ctrl_c_stops_a_long_prompt_inside_a_batch_and_corrupts_nothing(session: Session) -> None:
    prompt = prompt_ids(session, "words " * 180)
    session.context.feed(prompt[:1])
    started = time.perf_counter()
    session.context.feed(prompt)
    whole_seconds = time.perf_counter() - started
    session.context.feed([1])
    timer = interrupt_after(whole_seconds / 10)
    with pytest.raises(KeyboardInterrupt):
        session.context.feed(prompt)
    timer.join()
    assert session.context.feed(prompt) < len(prompt) - 1, "the interrupted batch is not taken for read"
    again = "".join(session.generate(prompt, sampling=GREEDY, max_tokens=5))
    session.context.feed([1])
    assert "".join(session.generate(prompt, sampling=GREEDY, max_tokens=5)) == again


def test_ctrl_c_between_tokens_corrupts_nothing(session: Session) -> None:
    prompt = prompt_ids(session, "Write a very long story about a river.")
    whole = "".join(session.generate(prompt, sampling=GREEDY, max_tokens=20))
    pieces = session.generate(prompt, sampling=GREEDY, max_tokens=400)
    next(pieces)
    timer = interrupt_after(0.05)
    with pytest.raises(KeyboardInterrupt):
        "".join(pieces)
    timer.join()
    assert pieces.stats.finish_reason == "interrupted"
    assert "".join(session.generate(prompt, sampling=GREEDY, max_tokens=20)) == whole


def test_a_closed_session_says_so_and_closes_twice(smollm2_gguf: Path) -> None:
    session = Session.open(smollm2_gguf, context_tokens=64, threads=1)
    session.close()
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.context.feed([1])


def test_a_file_without_a_chat_template_says_what_to_do(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.vocabulary, "file", RunnableFile(session.path, {}, extra_kernels=False))
    monkeypatch.delitem(session.vocabulary.__dict__, "template", raising=False)
    with pytest.raises(ModelError, match=r"no chat template.*export it again"):
        _ = session.vocabulary.template


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"general.architecture": "bert", "bert.attention.causal": False}, "is an encoder, which cannot write text"),
        ({"general.architecture": "t5encoder", "tokenizer.ggml.model": "t5"}, "is an encoder"),
        ({"general.architecture": "llama", "tokenizer.ggml.model": "no_vocab"}, "has no vocabulary"),
        ({"general.architecture": "llama"}, "has no vocabulary"),
    ],
)
def test_a_file_that_cannot_write_text_is_refused_by_its_header(metadata: dict[str, object], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Session.open(RunnableFile(Path("model.gguf"), metadata, extra_kernels=False))


@pytest.mark.parametrize(("name", "value"), [("context_tokens", 0), ("threads", 0)])
def test_impossible_sizes_are_refused(smollm2_gguf: Path, name: str, value: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Session.open(smollm2_gguf, **{name: value})


def test_a_context_beyond_training_is_warned_about(smollm2_gguf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Session.open(smollm2_gguf, context_tokens=10_000, threads=1) as session:
        assert session.context.capacity == 10_000
    assert "was trained on" in capfd.readouterr().err


def test_there_is_at_least_one_physical_core_and_no_more_than_processors() -> None:
    assert 1 <= physical_cores() <= (os.cpu_count() or 1)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose last kilobytes, all of them weights, are 0xff, which is NaN in float32."""
    file = write_parrot(tmp_path_factory.mktemp("damaged") / "damaged.gguf", "hello")
    content = file.read_bytes()
    file.write_bytes(content[:-8192] + b"\xff" * 8192)
    return file


def test_a_damaged_file_ends_the_answer_before_its_first_token(damaged: Path) -> None:
    with Session.open(damaged, threads=1) as opened:
        written = opened.generate(opened.vocabulary.tokenize("Hi"), sampling=Sampling(), max_tokens=100)
        with pytest.raises(NumericalError, match=r"damaged\.gguf: .* the file is damaged; .*download it again"):
            next(written)
        with pytest.raises(NumericalError, match="the file is damaged"):
            score(opened.context, Scorable(opened.vocabulary.tokenize("Hi"), [[1], [2]]))
        with pytest.raises(NumericalError, match="the file is damaged"):
            opened.context.log_probabilities(opened.vocabulary.tokenize("Hi"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_logit_that_is_not_finite_is_enough(
    session: Session, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    ids = prompt_ids(session, "Say hi.")
    written = session.generate(ids, sampling=GREEDY, max_tokens=5)
    next(written)
    read = session.context._llama.llama_get_logits_ith

    def break_one(context: object, index: int) -> object:
        logits = read(context, index)
        logits[7] = value
        return logits

    monkeypatch.setattr(session.context._llama, "llama_get_logits_ith", break_one)
    with pytest.raises(NumericalError, match="the file is damaged"):
        list(written)
