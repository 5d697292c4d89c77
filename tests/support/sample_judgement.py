"""Judgements that no model was asked for: of every task, of any size, with texts that attack whoever shows them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from statistics import fmean
from typing import Any

from edgetune.data.example import Message
from edgetune.judging.asking.cost import Costs
from edgetune.judging.gate.comparison import Comparison, Outcome
from edgetune.judging.gate.gate import Verdict
from edgetune.judging.grading.grades import Grade, Order, Preference, Winner
from edgetune.judging.metrics.estimate import MetricValue
from edgetune.judging.results.judgement import Evaluation, Judgement
from edgetune.judging.results.prepared import compared_metric, criterion_metric, preference_metric
from edgetune.judging.statistics.intervals import Interval
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Gate, Suite
from edgetune.metrics.classification import classification_metrics
from edgetune.metrics.registry import METRICS
from support.sample_texts import SUPPORT, Support

LABELS = ("negative", "neutral", "positive")
CRITERIA = ("correctness", "completeness", "instruction")

COMPARED = {
    **{name: compared_metric(metric, Gate()) for name, metric in METRICS.own.items()},
    **{name: criterion_metric(name, Gate()) for name in (*CRITERIA, "clarity")},
    "preference": preference_metric(Gate()),
}
"""Whatever the judgements below compare."""

ORDERS: tuple[Order, Order] = ("candidate first", "baseline first")

HOSTILE = {
    "workflow": "::error::forged\n%0A::set-output name=x::y",
    "script": "<script>alert(1)</script>",
    "closing": "</script><script>alert(2)</script><!-- <script>",
    "image": '<img src=x onerror="alert(3)">',
    "link": "[click](javascript:alert(4)) javascript:alert(5)",
    "override": "safe \u202etxt.exe\u202c name",
    "long": "w" * 3000,
    "emoji": "👩\u200d👩\u200d👧 🇪🇺 e\u0301",
    "nul": "before\x00after\x1b[31mred\u2028line",
    "half": "half a pair \ud83d here",
    "template": "{{ 7 * 7 }} {% raw %} ${x} \\u003c",
    "entity": "&lt;b&gt; &amp;amp; &#x3c;",
    "mention": "@octocat fixes #1 | a `tick` ```fence",
}
"""Texts by what they try."""


@cache
def classified(items: int = 500, *, baseline: bool = True, outcome: Outcome = Outcome.REGRESSION) -> Judgement:
    """Three labels; the candidate loses about one item in eight, gains a few, and leaves some unparsed."""
    chance = random.Random(0)
    suite = make_suite("classify", labels=list(LABELS), prompt="{text}", name="sentiment")
    gold = [LABELS[number % 3] for number in range(items)]
    old = [label if chance.random() < 0.9 else LABELS[0] for label in gold]
    new: list[str | None] = []
    for before in old:
        draw = chance.random()
        new.append(None if draw < 0.02 else LABELS[2] if draw < 0.15 else before)
    questions = tuple(make_item(number, sentence(chance), gold=label) for number, label in enumerate(gold))
    return Judgement(
        suite=suite,
        hashes={**suite.hashes(), "data": "0" * 64},
        created="2026-11-26T02:00:00+00:00",
        items=questions,
        compared=COMPARED,
        candidate=_classifier("demo-q4_k_m.gguf", gold, new),
        baseline=_classifier("base-q4_k_m.gguf", gold, old) if baseline else None,
        verdict=Verdict(outcome, (compare("accuracy", outcome),), (), False) if baseline else None,
        notes=("Labels are scored by the likelihood of their tokens.",),
    )


@cache
def of_labels(labels: tuple[str, ...], items: int = 300) -> Judgement:
    """Labels of one's own, and two models that take one for the next one now and then."""
    gold = [labels[number % len(labels)] for number in range(items)]
    sides = []
    for name, step in (("old.gguf", 9), ("new.gguf", 7)):
        guess = [labels[(n + (n % step == 0)) % len(labels)] if n % 41 else None for n in range(items)]
        sides.append(_classifier(name, gold, guess, labels))
    suite = make_suite("classify", labels=list(labels), prompt="{text}", name="labels")
    return replace(
        classified(30),
        suite=suite,
        items=tuple(make_item(number, f"text {number}", gold=label) for number, label in enumerate(gold)),
        candidate=sides[1],
        baseline=sides[0],
    )


@cache
def of_many_items(times: int = 1000) -> Judgement:
    """`classified`, whose matrices count so many times the items."""
    judgement = classified(60)
    sides = []
    for side in (judgement.candidate, judgement.baseline):
        assert side is not None
        assert side.classification is not None
        metrics = side.classification
        more = tuple(tuple(times * count for count in row) for row in metrics.confusion)
        metrics = replace(metrics, confusion=more, unparsed=times * metrics.unparsed, items=times * metrics.items)
        sides.append(replace(side, classification=metrics))
    return replace(judgement, candidate=sides[0], baseline=sides[1])


@cache
def judged(
    items: int = 500, *, baseline: bool = True, outcome: Outcome = Outcome.REGRESSION, answer_characters: int = 1000
) -> Judgement:
    """Answers graded by two judges on three criteria, with unscored verdicts and degenerate answers among them."""
    chance = random.Random(1)
    suite = make_suite("generate", rubric="answer-quality", judge="gpt-small", name="support-answers")
    asked = [chance.choice(SUPPORT) for _ in range(items)]
    questions = tuple(
        make_item(number, support.question, references=(support.good,)) for number, support in enumerate(asked)
    )
    sides = []
    for name, level in (("baseline-q8_0.gguf", 0.9), ("candidate-q4_k_m.gguf", 0.7)):
        answers, grades = [], []
        for item, support in zip(questions, asked, strict=True):
            good = chance.random() < level
            text = support.good if good else support.poor
            if len(text) < answer_characters:
                text = f"{text} {prose(chance, answer_characters - len(text))}"
            text = ":" if chance.random() < 0.02 else text
            answers.append(Answer(item.id, text=text, generated_tokens=210, seconds=2.5, finish="stop"))
            grades += _grades(item, support, text, chance, good=good)
        metrics = {criterion: _mean_grade(questions, grades, criterion) for criterion in CRITERIA}
        sides.append(
            Evaluation(
                name, "gguf", name[0] * 64, 91_762_336, items * 2.5, tuple(answers), metrics, None, tuple(grades)
            )
        )
    problems = ("7.4 % of the verdicts are unscored; the gate takes 5 %.",) if outcome is Outcome.JUDGE_INVALID else ()
    parts = (outcome, Outcome.PASS, Outcome.INCONCLUSIVE) if not problems else (Outcome.PASS,) * 3
    comparisons = tuple(compare(criterion, part) for criterion, part in zip(CRITERIA, parts, strict=True))
    return Judgement(
        suite=suite,
        hashes={**suite.hashes(), "data": "1" * 64, "rubric": "2" * 64, "judges": "3" * 64},
        created="2026-11-26T02:00:00+00:00",
        items=questions,
        compared=COMPARED,
        candidate=sides[1],
        baseline=sides[0] if baseline else None,
        verdict=Verdict(outcome, comparisons, problems, False) if baseline else None,
        judges=("gpt-small", "local-judge"),
        costs=Costs(items * 4, 120, items * 2600, items * 380, 0.87, 64.0),
        notes=("gpt-small gave no token probabilities, so its grades are whole numbers.",),
        details={"prompt": "pointwise 1"},
    )


@cache
def preferred(items: int = 60, *, outcome: Outcome = Outcome.INCONCLUSIVE) -> Judgement:
    """Pairs judged in both orders: agreed, contradictory, unscored and spared ones."""
    chance = random.Random(2)
    suite = make_suite("generate", rubric="answer-quality", judge="gpt-small", grading="pairwise", name="pairs")
    questions = tuple(make_item(number, f"{sentence(chance)}?") for number in range(items))
    patterns: tuple[tuple[Winner | None, Winner | None], ...] = (
        ("candidate", "candidate"),
        ("baseline", "baseline"),
        ("candidate", "baseline"),
        (None, "tie"),
    )
    preferences = []
    for number, item in enumerate(questions):
        for order, winner in zip(ORDERS, patterns[number % 4], strict=True):
            problem = None if winner else "no verdict in the answer"
            preferences.append(Preference(item.id, "gpt-small", 0, order, winner, sentence(chance), problem))
    sides = []
    for name in ("old", "new"):
        answers = tuple(Answer(question.id, text=prose(chance, 300)) for question in questions)
        sides.append(Evaluation(f"{name}.gguf", "gguf", name[0] * 64, 1000, 3.0, answers, {}))
    return Judgement(
        suite=suite,
        hashes=suite.hashes(),
        created="2026-11-26T02:00:00+00:00",
        items=questions,
        compared=COMPARED,
        candidate=sides[1],
        baseline=sides[0],
        preferences=tuple(preferences),
        verdict=Verdict(outcome, (compare("preference", outcome),), (), False),
        judges=("gpt-small",),
        costs=Costs(asked=2 * items, usd=None),
    )


@cache
def modelled(items: int = 40) -> Judgement:
    """Perplexity, where less is better; the candidate is a little better."""
    chance = random.Random(3)
    suite = make_suite("perplexity", name="prose")
    questions = tuple(make_item(number, prose(chance, 200)) for number in range(items))
    sides = []
    for name, level in (("old", 2.5), ("new", 2.4)):
        nats = tuple(level + chance.gauss(0, 0.2) for _ in questions)
        answers = tuple(
            Answer(question.id, nll_nats=50 * nat, nll_tokens=50, nll_bytes=200)
            for question, nat in zip(questions, nats, strict=True)
        )
        measured = MetricValue(sum(nats) / items, Interval(level - 0.1, level + 0.1, 0.95), nats)
        sides.append(Evaluation(f"{name}.gguf", "gguf", name[0] * 64, 1000, 3.0, answers, {"perplexity": measured}))
    return Judgement(
        suite=suite,
        hashes=suite.hashes(),
        created="2026-11-26T02:00:00+00:00",
        items=questions,
        compared=COMPARED,
        candidate=sides[1],
        baseline=sides[0],
        verdict=Verdict(Outcome.PASS, (compare("perplexity", Outcome.PASS),), (), False),
    )


@cache
def hostile() -> Judgement:
    """Every hostile text in every place where a model, a judge, a data set or a file name can put it."""
    texts = list(HOSTILE.values())
    suite = make_suite("generate", rubric="answer-quality", judge="gpt-small", name="hostile")
    questions = tuple(
        Item(
            id=f"{name} {text[:40]}",
            where=text[:40],
            text=text,
            messages=(Message("system", text), Message("user", text)),
            references=(text,),
            cluster=text[:40],
        )
        for name, text in HOSTILE.items()
    )
    sides = []
    for level in (5.0, 1.0):
        answers = tuple(Answer(q.id, text=text, predicted=text[:20]) for q, text in zip(questions, texts, strict=True))
        grades = tuple(
            Grade(q.id, text[:30], 0, {"correctness": level}, text, problem=None, degenerate=None)
            for q, text in zip(questions, texts, strict=True)
        )
        metrics = {"correctness": MetricValue(level, Interval(level, level, 0.95), (level,) * len(texts))}
        name = f'<img src=x onerror="alert(6)">{HOSTILE["mention"]}'
        sides.append(Evaluation(name, "endpoint", "f" * 64, None, None, answers, metrics, None, grades))
    return Judgement(
        suite=suite,
        hashes={"data": "0" * 64},
        created="2026-11-26T02:00:00+00:00",
        items=questions,
        compared=COMPARED,
        candidate=sides[1],
        baseline=sides[0],
        verdict=Verdict(Outcome.JUDGE_INVALID, (compare("correctness", Outcome.REGRESSION),), tuple(texts), False),
        judges=tuple(text[:30] for text in texts),
        notes=tuple(texts),
        details=dict(HOSTILE),
    )


def compare(metric: str, outcome: Outcome) -> Comparison:
    """A comparison that looks like its outcome, in the unit of its metric."""
    unit: Any = {"accuracy": "share", "preference": "share", "perplexity": "log"}.get(metric, "grade")
    step = {"share": 0.05, "log": 0.03, "grade": 0.25}[unit]
    better = metric != "perplexity"
    middle = {"REGRESSION": -2.0, "PASS": 0.6, "INCONCLUSIVE": -0.4, "JUDGE INVALID": 0.0}[outcome]
    ends = [step * (middle - 1), step * (middle + 1)]
    difference = step * middle
    if not better:
        ends, difference = [-end for end in reversed(ends)], -difference
    accuracy = metric == "accuracy"
    base = {"share": 0.9, "log": 2.5, "grade": 4.2}[unit] if metric != "preference" else 0.0
    return Comparison(
        metric=metric,
        title=COMPARED[metric].title,
        kind="accuracy" if accuracy else "aggregate" if unit == "log" else "score",
        unit=unit,
        higher_is_better=better,
        outcome=outcome,
        items=500,
        clusters=None,
        candidate=base + difference,
        baseline=base,
        difference=difference,
        interval=Interval(ends[0], ends[1], 0.95),
        p_value=0.0004 if outcome is Outcome.REGRESSION else 0.31,
        adjusted_p=(0.0012 if unit == "grade" else 0.0004) if outcome is Outcome.REGRESSION else 0.31,
        test="McNemar's mid-p test" if accuracy else "sign-flip test",
        interval_method="Bonett and Price" if accuracy else "paired t",
        margin=step,
        alpha=0.05,
        smallest_visible_loss=step,
        items_to_decide=900 if outcome is Outcome.INCONCLUSIVE else None,
        gained=12 if accuracy else None,
        lost=63 if accuracy else None,
    )


def make_suite(task: str, **values: Any) -> Suite:
    """A suite of a task; its data lie nowhere."""
    formats = {"classify": "text-label", "generate": "prompt", "summarize": "text-summary", "perplexity": "text"}
    data = [{"source": "/somewhere/on/this/machine/items.jsonl", "format": formats[task]}]
    return Suite.model_validate({"task": task, "data": data, **values})


def make_item(number: int, text: str, **values: Any) -> Item:
    """An item with one user message."""
    return Item(f"q{number:03}", f"items.jsonl:{number + 1}", text, (Message("user", text),), **values)


def sentence(chance: random.Random) -> str:
    """What someone asks a shop."""
    return chance.choice(SUPPORT).question


def prose(chance: random.Random, characters: int) -> str:
    """So many characters of answers."""
    text = ""
    while len(text) < characters:
        text += f"{chance.choice(SUPPORT).good} "
    return text[:characters].strip()


def _classifier(
    name: str, gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str] = LABELS
) -> Evaluation:
    metrics = classification_metrics(gold, predicted, labels)
    right = tuple(float(a == b) for a, b in zip(gold, predicted, strict=True))
    answers = tuple(
        Answer(f"q{number:03}", text=None if label else "I would rather not | _say_", predicted=label)
        for number, label in enumerate(predicted)
    )
    accuracy = MetricValue(metrics.accuracy, Interval(metrics.accuracy - 0.03, metrics.accuracy + 0.02, 0.95), right)
    values = {"accuracy": accuracy, "macro_f1": MetricValue(metrics.macro_f1, None, ())}
    return Evaluation(name, "gguf", name[0] * 64, 91_762_336, 11.0, answers, values, metrics)


def _grades(item: Item, support: Support, text: str, chance: random.Random, *, good: bool) -> list[Grade]:
    judges = ("gpt-small", "local-judge")
    if text == ":":
        spared = "the answer has no letter and no digit"
        return [Grade(item.id, judge, 0, dict.fromkeys(CRITERIA, 1.0), "", degenerate=spared) for judge in judges]
    grades = []
    for judge in judges:
        if chance.random() < 0.02:
            grades.append(Grade(item.id, judge, 0, None, problem="the judge's answer holds no verdict"))
            continue
        level = 4.6 if good else 2.3
        scores = {name: float(min(5, max(1, round(chance.gauss(level, 0.6))))) for name in CRITERIA}
        grades.append(Grade(item.id, judge, 0, scores, support.praise if good else support.blame))
    return grades


def _mean_grade(items: Sequence[Item], grades: Sequence[Grade], criterion: str) -> MetricValue:
    scores = {item.id: [] for item in items}
    for grade in grades:
        if grade.scores is not None:
            scores[grade.item].append(grade.scores[criterion])
    values = tuple(fmean(given) if given else None for given in scores.values())
    mean = fmean(value for value in values if value is not None)
    return MetricValue(mean, Interval(mean - 0.1, mean + 0.1, 0.95), values)
