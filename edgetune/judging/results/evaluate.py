"""Asking one model all items of a suite, and measuring its answers. Earlier answers come from the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from edgetune import __version__, events
from edgetune.errors import EdgetuneError
from edgetune.judging.grading.grades import Grade
from edgetune.judging.grading.summaries import mean_scores
from edgetune.judging.metrics.estimate import MetricValue, estimate_mean, estimate_metric
from edgetune.judging.metrics.samples import confusion_of, samples_of
from edgetune.judging.results.judgement import Evaluation
from edgetune.judging.results.prepared import PreparedSuite
from edgetune.judging.subjects.answer import IN_REASONING, Answer
from edgetune.judging.subjects.subject import Subject
from edgetune.judging.subjects.written import separated
from edgetune.judging.suites.identity import hash_value
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.metrics.classification import ClassificationMetrics
from edgetune.runtime.labels.reading import parse_label

if TYPE_CHECKING:
    from edgetune.judging.asking.cache import AnswerCache

ANSWER_FORMAT = "edgetune answer 3"
"""Part of every key: increase it when a change affects what an Answer holds, or how it is read from a model's text."""

OWN_ENDS = (None, "stop", "length", "context", IN_REASONING)
"""Finish reasons of the model itself. A filter, an error or an interrupt is not its own."""

RESUMED_SECONDS = 3600.0
"""How long after an interrupt an endpoint's answers are reused: later, other weights may be behind its address."""

_ANSWER = TypeAdapter(Answer)


def evaluate(prepared: PreparedSuite, subject: Subject, cache: AnswerCache | None) -> Evaluation:
    """Ask a model every item, with progress on stderr, and measure its answers.

    Answers in the cache are not requested again; each new one is stored as soon as it is there, so that an interrupted
    evaluation continues where it stopped. Raises ModelError, NumericalError and what a kind of model raises.
    """
    suite, items = prepared.suite, prepared.items
    fingerprint = subject.fingerprint  # before its files are opened: they may be changed while it answers
    answers = ask_subject(suite, items, subject, cache)
    answered = [answer for answer in answers if answer.unanswered is None]
    taken = [answer.seconds for answer in answered if answer.seconds is not None]
    metrics, classification = compute_metrics(prepared, answers)
    return Evaluation(
        model=subject.reference,
        kind=subject.kind,
        fingerprint=fingerprint,
        size_bytes=subject.size_bytes,
        seconds=sum(taken) if len(taken) == len(answered) else None,
        answers=answers,
        metrics=metrics,
        classification=classification,
    )


def recompute_metrics(prepared: PreparedSuite, stored: Evaluation) -> Evaluation:
    """An earlier evaluation with the metrics of the present suite, which may be other ones."""
    metrics, classification = compute_metrics(prepared, stored.answers)
    return with_grades(prepared, replace(stored, metrics=metrics, classification=classification), stored.grades)


def with_grades(prepared: PreparedSuite, evaluation: Evaluation, grades: tuple[Grade, ...]) -> Evaluation:
    """The evaluation with its judged criteria among its metrics."""
    by_item = mean_scores(grades)
    confidence = 1 - prepared.suite.gate.alpha
    criteria = {}
    for name in prepared.criteria:
        values = [by_item.get(item.id, {}).get(name) for item in prepared.items]
        mean = estimate_mean(values, prepared.items, "grade", confidence)
        if mean is not None:
            criteria[name] = mean
    return replace(evaluation, metrics={**evaluation.metrics, **criteria}, grades=grades)


@dataclass(frozen=True)
class AnswersAhead:
    """The plan for asking a model: answers that are `known`, by the items' ids, and the `missing` items."""

    known: dict[str, Answer]
    missing: tuple[Item, ...]


def plan_answers(suite: Suite, items: Sequence[Item], subject: Subject, cache: AnswerCache | None) -> AnswersAhead:
    """Which answers the cache knows, and which items must be asked. A file of outputs knows all of its answers."""
    if subject.kind == "outputs":
        return AnswersAhead({answer.id: answer for answer in subject.answers(items, suite)}, ())
    known: dict[str, Answer] = {}
    if cache is not None:
        keys = {item.id: _key(suite, item, subject) for item in items}
        if subject.kind == "endpoint":
            taken = cache.of_last_run(keys.values(), RESUMED_SECONDS)
            keys = {name: key for name, key in keys.items() if key in taken}
        found = {name: _read_answer(cache.get(key), name, subject.kind) for name, key in keys.items()}
        known = {name: read_again(answer, suite) for name, answer in found.items() if answer is not None}
    return AnswersAhead(known, tuple(item for item in items if item.id not in known))


def ask_subject(suite: Suite, items: Sequence[Item], subject: Subject, cache: AnswerCache | None) -> tuple[Answer, ...]:
    """The answers in the order of the items: those that are known, and those that the model gives now.

    What is not the model's own answer (empty from an endpoint, filtered, cut by an error) is not remembered.
    """
    ahead = plan_answers(suite, items, subject, cache)
    known = ahead.known
    if known and subject.kind == "endpoint":
        events.note(
            f"{short_name(subject)}: {len(known)} answers are from a run that was interrupted within the last hour; "
            "--no-cache asks for all of them again"
        )
    if ahead.missing:
        with events.progress(f"asking {short_name(subject)}", total=len(items), unit="items") as progress:
            progress.advance(len(known))
            for answer, item in zip(subject.answers(ahead.missing, suite), ahead.missing, strict=True):
                known[item.id] = answer
                if cache is not None and answer.unanswered is None and _is_its_own(answer, subject.kind):
                    cache.put(_key(suite, item, subject), asdict(answer))
                progress.advance()
    answers = tuple(known[item.id] for item in items)
    if answers and all(answer.unanswered is not None for answer in answers):
        raise EdgetuneError(
            f"none of the {len(answers)} items has an answer ({answers[-1].unanswered})",
            where=short_name(subject),
            remedy="see what the endpoint refuses, or take other items",
        )
    return answers


def read_again(answer: Answer, suite: Suite) -> Answer:
    """An earlier answer, its reasoning separated, with the label that it names by the present rules."""
    answer = separated(answer)
    if suite.task != "classify" or answer.text is None or answer.log_probabilities is not None:
        return answer
    return replace(answer, predicted=parse_label(answer.text, suite.labels))


def forget_answers(prepared: PreparedSuite, evaluation: Evaluation, cache: AnswerCache | None) -> None:
    """Delete an endpoint's answers from the cache once the judgement is done.

    Until then they are kept in case of an interrupt. Later, other weights may be behind the same address, and old
    answers would hide a regression.
    """
    if cache is not None and evaluation.kind == "endpoint":
        suite, fingerprint = prepared.suite, evaluation.fingerprint
        cache.forget(answer_key(suite, item, evaluation.kind, fingerprint, {}) for item in prepared.items)


def answer_key(suite: Suite, item: Item, kind: str, fingerprint: str, runtime: Mapping[str, str]) -> str:
    """SHA-256 of everything that shapes an answer: the model, what runs it, the item and how it is asked.

    The kind of processor is not part of it: its rounding can change an answer, but the model is the same.
    """
    return hash_value(
        {
            "format": ANSWER_FORMAT,
            "runtime": {"edgetune": __version__, **runtime},
            "model": [kind, fingerprint],
            "task": [suite.task, suite.scoring, suite.labels, suite.generation.model_dump(mode="json")],
            "messages": [[message.role, message.content] for message in item.messages],
            "text": item.text if suite.task == "perplexity" else None,
            # An item's id draws its seed, so that equal questions are answered in different ways.
            "id": item.id if suite.generation.temperature > 0 else None,
        }
    )


def _key(suite: Suite, item: Item, subject: Subject) -> str:
    return answer_key(suite, item, subject.kind, subject.fingerprint, subject.runtime)


def _read_answer(value: Any, name: str, kind: str) -> Answer | None:
    """A stored answer; None where this version would not have stored it."""
    if not isinstance(value, dict):
        return None
    try:
        answer = _ANSWER.validate_python({**value, "id": name})
    except ValidationError:
        return None
    return answer if _is_its_own(answer, kind) else None


def _is_its_own(answer: Answer, kind: str) -> bool:
    """Whether this is the model's own answer. An endpoint's empty answer may come from its gateway."""
    if answer.finish not in OWN_ENDS:
        return False
    if kind == "endpoint":
        return bool((answer.text or "").strip() or answer.reasoning)
    return any(made is not None for made in (answer.text, answer.predicted, answer.nll_nats))


def compute_metrics(
    prepared: PreparedSuite, answers: Sequence[Answer]
) -> tuple[dict[str, MetricValue], ClassificationMetrics | None]:
    """Each metric of the answers with its interval, by name, and the figures of each label where there are labels.

    Speed is among the metrics where it was measured and the suite names none.
    """
    suite, items = prepared.suite, prepared.items
    samples = samples_of(items, answers, suite)
    timed = all(answer.tokens_per_second is not None for answer in answers)
    metrics = {}
    for name, metric in prepared.compared.items():
        if metric.task_metric is not None and (name in prepared.metrics or timed):
            metrics[name] = estimate_metric(metric.task_metric, items, samples, 1 - suite.gate.alpha)
    return metrics, confusion_of(samples) if suite.task == "classify" else None


def short_name(subject: Subject) -> str:
    """A model's name in progress bars."""
    return subject.reference if subject.kind == "endpoint" else PurePath(subject.reference).name
