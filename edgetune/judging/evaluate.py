"""One model asked all items of a suite, and measured. What it answered before is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache as cached
from importlib.metadata import version
from pathlib import PurePath
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from edgetune import __version__, console
from edgetune.errors import DataError
from edgetune.judging.answer import Answer
from edgetune.judging.grading.grades import Grade
from edgetune.judging.grading.summaries import mean_scores
from edgetune.judging.identity import hash_value
from edgetune.judging.items import Item
from edgetune.judging.judgement import Evaluation, Measured
from edgetune.judging.measured import measured, measured_mean
from edgetune.judging.measures import MEASURES, find_measures
from edgetune.judging.measures.classification import confusion_of
from edgetune.judging.question import Question
from edgetune.judging.subjects.subject import Subject
from edgetune.judging.subjects.written import read_again
from edgetune.judging.suite import Suite

if TYPE_CHECKING:
    from edgetune.judging.asking.cache import AnswerCache

SPEED = ("tokens_per_second", "first_token_seconds")
"""Metrics that a suite need not name."""

_ANSWER = TypeAdapter(Answer)

_TORCH = ("torch", "transformers", "peft")


def evaluate(question: Question, subject: Subject, cache: AnswerCache | None) -> Evaluation:
    """Ask a model every item, with progress on stderr, and measure its answers.

    Answers that the cache knows are not asked for again; each new one is remembered as soon as it is there, so that an
    interrupted evaluation goes on where it stopped. Raises ModelError, NumericalError and what a kind of model raises.
    """
    suite, items = question.suite, question.items
    answers = ask_subject(suite, items, subject, cache)
    taken = [answer.seconds for answer in answers if answer.seconds is not None]
    return Evaluation(
        model=subject.reference,
        kind=subject.kind,
        fingerprint=subject.fingerprint,
        size_bytes=subject.size_bytes,
        seconds=sum(taken) if len(taken) == len(answers) else None,
        answers=answers,
        measures=measure_answers(question, answers),
        classification=confusion_of(items, answers, suite) if suite.task == "classify" else None,
    )


def measure_again(question: Question, stored: Evaluation) -> Evaluation:
    """An evaluation of the past with the metrics of the present suite, which may be other ones.

    Raises DataError where judges graded reasoning as part of the answers, as earlier versions let them.
    """
    answers = tuple(read_again(answer, question.suite) for answer in stored.answers)
    if answers != stored.answers and stored.grades:
        raise DataError(
            "this baseline cannot be compared: its judges graded the model's reasoning together with its answers",
            where=stored.model,
            remedy="judge the baseline model again; reasoning is separated from answers now",
        )
    evaluation = replace(stored, answers=answers, measures=measure_answers(question, answers))
    return with_grades(question, evaluation, stored.grades)


def with_grades(question: Question, evaluation: Evaluation, grades: tuple[Grade, ...]) -> Evaluation:
    """The evaluation with its judged criteria among its metrics."""
    by_item = mean_scores(grades)
    confidence = 1 - question.suite.gate.alpha
    criteria = {}
    for name in question.criteria:
        values = [by_item.get(item.id, {}).get(name) for item in question.items]
        mean = measured_mean(values, question.items, confidence)
        if mean is not None:
            criteria[name] = mean
    return replace(evaluation, measures={**evaluation.measures, **criteria}, grades=grades)


def ask_subject(suite: Suite, items: Sequence[Item], subject: Subject, cache: AnswerCache | None) -> tuple[Answer, ...]:
    """The answers in the order of the items, those that the cache knows taken from there."""
    known = known_answers(suite, items, subject, cache)
    missing = [item for item in items if item.id not in known]
    if missing:
        with console.progress(f"asking {short_name(subject)}", total=len(items), unit="items") as progress:
            progress.advance(len(known))
            for answer, item in zip(subject.answers(missing, suite), missing, strict=True):
                known[item.id] = answer
                if cache is not None and subject.kind != "outputs":
                    cache.put(answer_key(suite, item, subject.kind, subject.fingerprint), asdict(answer))
                progress.advance()
    return tuple(known[item.id] for item in items)


def known_answers(
    suite: Suite, items: Sequence[Item], subject: Subject, cache: AnswerCache | None
) -> dict[str, Answer]:
    """The answers that the cache knows, by the items' ids. A file of outputs has its own at hand."""
    if cache is None or subject.kind == "outputs":
        return {}
    found = ((item, cache.get(answer_key(suite, item, subject.kind, subject.fingerprint))) for item in items)
    return {item.id: _ANSWER.validate_python({**value, "id": item.id}) for item, value in found if value is not None}


def forget_answers(question: Question, evaluation: Evaluation, cache: AnswerCache | None) -> None:
    """Forget what an endpoint answered, once the judgement is done.

    Until then its answers are kept for the case of an interrupt; but nobody knows whether the same weights are behind
    its address tomorrow, and old answers would hide a regression.
    """
    if cache is not None and evaluation.kind == "endpoint":
        suite, fingerprint = question.suite, evaluation.fingerprint
        cache.forget(answer_key(suite, item, evaluation.kind, fingerprint) for item in question.items)


def answer_key(suite: Suite, item: Item, kind: str, fingerprint: str) -> str:
    """SHA-256 of everything that shapes an answer: the model, what runs it, the item and how it is asked."""
    return hash_value(
        {
            "runtime": _versions(kind),
            "model": [kind, fingerprint],
            "task": [suite.task, suite.scoring, suite.labels, suite.generation.model_dump(mode="json")],
            "messages": [[message.role, message.content] for message in item.messages],
            "text": item.text if suite.task == "perplexity" else None,
        }
    )


@cached
def _versions(kind: str) -> dict[str, str]:
    """The versions of what runs a model of this kind: another one may answer otherwise."""
    packages = {"gguf": ("llama-cpp-python",), "run": _TORCH, "folder": _TORCH}.get(kind, ())
    return {"edgetune": __version__, **{package: version(package) for package in packages}}


def measure_answers(question: Question, answers: Sequence[Answer]) -> dict[str, Measured]:
    """Each metric of the answers with its interval, by name; how fast they came among them, where that was measured."""
    suite, items = question.suite, question.items
    timed = all(answer.tokens_per_second is not None for answer in answers)
    speed = [name for name in SPEED if timed and not suite.metrics and suite.task in MEASURES[name].tasks]
    return {
        measure.name: measured(measure, items, answers, suite, 1 - suite.gate.alpha)
        for measure in find_measures([*question.measures, *speed], suite)
    }


def short_name(subject: Subject) -> str:
    """What progress calls a model."""
    return subject.reference if subject.kind == "endpoint" else PurePath(subject.reference).name
