"""A few rows of every hub data set that a shipped recipe reads, with the hub's columns and kinds of values.

The texts are made up here; columns that no recipe reads are there too, because the hub has them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgetune.recipe.schema import Recipe

Row = dict[str, Any]

ROWS = 12
"""Of each set: divisible by every number of classes there is, so that each class has as many."""

_WORDS = ("fine day out", "never again", "it works", "slow and loud", "what a view", "not for me")


def _text(number: int) -> str:
    return f"{_WORDS[number % len(_WORDS)]}, said number {number}."


def _labelled(classes: int, text: str = "text") -> Callable[[int], Row]:
    return lambda number: {text: _text(number), "label": number % classes}


def _sentiment140(number: int) -> Row:
    said = {"date": "Mon May 11 03:17:40 UTC 2009", "user": f"user{number}", "query": "NO_QUERY"}
    return {"text": _text(number), "sentiment": (0, 2, 4)[number % 3], **said}


def _pubmedqa(number: int) -> Row:
    return {
        "pubid": 21645374 + number,
        "question": f"Does treatment {number} help?",
        "context": {
            "contexts": [f"We asked {number} people.", "Half of them were treated."],
            "labels": ["BACKGROUND", "METHODS"],
            "meshes": ["Adult", "Humans"],
            "reasoning_required_pred": ["y", "e", "s"],
            "reasoning_free_pred": ["y", "e", "s"],
        },
        "long_answer": "It seems to help.",
        "final_decision": ("yes", "no", "maybe")[number % 3],
    }


def _stackoverflow(number: int) -> Row:
    return {
        "title": f"How do I sort list {number}?",
        "question_id": number,
        "question_score": 3,
        "question_date": "2009-01-02 03:04:05",
        "answer_id": 1000 + number,
        "answer_score": 4,
        "answer_date": "2009-01-03 03:04:05",
        "tags": ["python", "list"],
        "question_body_md": f"I have a list of {number} items.\n\n```\nx = [2, 1]\n```",
        "answer_body_md": "Use `sorted`:\n\n```\nsorted(x)\n```",
    }


def _billsum(number: int) -> Row:
    return {
        "text": f"SECTION 1. SHORT TITLE. This Act may be cited as Act {number}. " + "The Secretary shall report. " * 4,
        "summary": f"Act {number} requires a report.",
        "title": f"A bill to require report {number}.",
    }


def _finetome(number: int) -> Row:
    turns = [
        {"from": "human", "value": f"Explain {_text(number)}"},
        {"from": "gpt", "value": "Gladly: " + _text(number)},
    ]
    return {"conversations": turns, "source": "infini-instruct-top-500k", "score": 5.2}


def _sst2(number: int) -> Row:
    return {"idx": number, "sentence": _text(number), "label": number % 2}


HUB_ROWS: dict[str, Callable[[int], Row]] = {
    "FiscalNote/billsum": _billsum,
    "SetFit/sst5": lambda number: {**_labelled(5)(number), "label_text": "neutral"},
    "Yelp/yelp_review_full": _labelled(5),
    "cardiffnlp/tweet_eval": _labelled(3),
    "cardiffnlp/tweet_sentiment_multilingual": _labelled(3),
    "ccde/stackoverflow-md-python": _stackoverflow,
    "dair-ai/emotion": _labelled(6),
    "mlabonne/FineTome-100k": _finetome,
    "qiaojin/PubMedQA": _pubmedqa,
    "stanfordnlp/imdb": _labelled(2),
    "stanfordnlp/sentiment140": _sentiment140,
    "stanfordnlp/sst2": _sst2,
}


def write_hub_rows(folder: Path) -> None:
    """One .jsonl file per data set."""
    for hub_id, row in HUB_ROWS.items():
        lines = [json.dumps(row(number)) for number in range(ROWS)]
        local_file(folder, hub_id).write_text("\n".join(lines) + "\n", encoding="utf-8")


def local_file(folder: Path, hub_id: str) -> Path:
    """Where write_hub_rows puts a data set."""
    return folder / f"{hub_id.replace('/', '--')}.jsonl"


def local_sources(recipe: Recipe, folder: Path) -> list[str]:
    """Overrides that make a recipe read these files instead of the hub."""
    sides = {"train": recipe.data.train, "eval": recipe.data.eval}
    return [
        override
        for side, sources in sides.items()
        for number, source in enumerate(sources)
        if source.source in HUB_ROWS
        for override in (
            f"data.{side}.{number}.source={local_file(folder, source.source)}",
            f"data.{side}.{number}.split=train",
        )
    ]
