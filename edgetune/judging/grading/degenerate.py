"""Degenerate answers: found by rule before a judge is asked, because judges are known to grade them well.

A lone ":" or "Solution", an opener such as "Thought process:", and the like make judges of all sizes say "right" (Zhao
et al. 2025, "One token to fool LLM-as-a-judge", arXiv:2507.08794); one constant text that answers nothing can win most
comparisons (Zheng et al. 2024, "Cheating automatic LLM benchmarks: null models achieve high win rates",
arXiv:2410.07137). An answer that equals a reference of its item is never degenerate.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from edgetune.judging.grading.prompt import references_of
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item

NO_ANSWER = "the endpoint gave no answer"

CONSTANT_ITEMS, CONSTANT_SHARE = 5, 0.2
"""An answer is constant when so many items with different questions have it, and this share of all items."""

CONSTANT_WORDS, CONSTANT_CHARACTERS = 8, 50
"""Shorter answers may well be right for many questions: "yes", a label, "I don't know."."""

REPEATED_WORDS, LONGEST_PERIOD = 20, 3
"""An answer of at least so many words is a loop when the same one, two or three words fill it."""

REPEATED_LETTERS = 30
"""An answer of at least so many letters is a loop when they are all the same."""

CUT_WORDS, CUT_SHARE = 20, 0.8
"""A question of at least so many words counts as repeated when at least this share of it is, word by word from the
first, and nothing else is said."""

_OPENERS = (
    *("answer", "final answer", "the final answer is", "the answer is", "my answer is", "solution", "the solution is"),
    *("thought process", "lets think step by step", "let us think step by step", "lets solve this step by step"),
    *("lets solve this problem step by step", "let us solve this problem step by step", "here is the answer"),
    *("here is the solution", "here is my answer", "heres the answer", "heres the solution"),
    *("解", "答案", "かいせつ", "解説", "答え", "respuesta", "solución", "antwort", "lösung", "réponse"),
)
"""They answer nothing by themselves; the first ones of each line are published attacks."""

_HEADINGS = ("response", "my response", "output", "result", "explanation", "conclusion", "reasoning", "step 1")
"""They answer nothing where a colon follows: as a word alone, "result" may be right."""


def _phrases(words: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"(?:(?:{'|'.join(sorted(map(re.escape, words), key=len, reverse=True))})(?:\s+|$))+")


_OPENER = _phrases(_OPENERS)
_OPENER_OR_HEADING = _phrases([*_OPENERS, *_HEADINGS])


def find_degenerate(items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, str]:
    """The ids of the items whose answers are degenerate, each with the reason; answers in the items' order.

    Raises ValueError when an answer is not the one to its item.
    """
    found: dict[str, str] = {}
    for item, answer in zip(items, answers, strict=True):
        if item.id != answer.id:
            raise ValueError(f"expected the answer to {item.id}, but found that to {answer.id}")
        problem = NO_ANSWER if answer.unanswered is not None else find_degenerate_answer(item, text_of(answer))
        if problem is not None:
            found[item.id] = problem
    return {**_constant(items, answers), **found}


def find_degenerate_answer(item: Item, text: str) -> str | None:
    """Why this text is no answer to this item, as far as one answer shows it; None where it may be one."""
    if _is_reference(item, text):
        return None
    words = _words(text)
    tests = (
        (not text.strip(), "the answer is empty"),
        (not any(_is_content(character) for character in text), "the answer has no letters or digits"),
        (_is_opener(text, words), "the answer is an opener without anything after it"),
        (_is_loop(words), "the answer repeats the same thing without end"),
        (_repeats_question(item, text, words), "the answer repeats the question"),
    )
    return next((problem for fails, problem in tests if fails), None)


def text_of(answer: Answer) -> str:
    """The judged text of an answer: its text, or the label where it has only that."""
    return answer.text if answer.text is not None else answer.predicted or ""


def _words(text: str) -> list[str]:
    """Words in lower case without punctuation and markup: "Let's **think**:" is lets, think."""
    plain = re.sub(r"['’`]", "", unicodedata.normalize("NFKC", text).lower())
    return re.findall(r"[^\W_]+", plain)


def _is_content(character: str) -> bool:
    """Letters, digits, and signs that say something by themselves, such as emoji."""
    return character.isalnum() or (unicodedata.category(character) == "So" and character != "\ufffd")


def _is_opener(text: str, words: Sequence[str]) -> bool:
    phrases = _OPENER_OR_HEADING if text.rstrip(" \t\n\r*_`#").endswith((":", "：")) else _OPENER
    return phrases.fullmatch(" ".join(words)) is not None


def _is_reference(item: Item, text: str) -> bool:
    same = " ".join(text.split()).lower()
    return any(same == " ".join(reference.split()).lower() for reference in references_of(item))


def _is_loop(words: Sequence[str]) -> bool:
    letters = "".join(words)
    if len(letters) >= REPEATED_LETTERS and len(set(letters)) == 1:
        return True
    if len(words) < REPEATED_WORDS:
        return False
    return any(
        all(word == earlier for word, earlier in zip(words[period:], words, strict=False))
        for period in range(1, LONGEST_PERIOD + 1)
    )


def _repeats_question(item: Item, text: str, words: Sequence[str]) -> bool:
    """Whether the answer is the question again. Where a system message says what to do with the user's text, giving
    it back in other punctuation may be the work that was asked for, so only the very text counts there."""
    users = [message.content for message in item.messages if message.role == "user"]
    if not users or not words:
        return False
    said = list(words)
    while len(said) > 1 and said[0] in ("question", "instruction", "prompt", "user", "task", "q"):
        said = said[1:]
    if any(message.role == "system" for message in item.messages):
        return text.split() == users[-1].split()
    for question in {users[-1], "\n".join(users)}:
        asked = _words(question)
        if not asked:
            continue
        repeated = (asked * (len(said) // len(asked) + 1))[: len(said)]
        enough = len(said) >= len(asked) or (len(asked) >= CUT_WORDS and len(said) >= CUT_SHARE * len(asked))
        if enough and said == repeated:
            return True
    return False


def _constant(items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, str]:
    """Items with one and the same answer, which therefore answers none of them."""
    groups: dict[str, list[Item]] = defaultdict(list)
    for item, answer in zip(items, answers, strict=True):
        text = text_of(answer)
        long = len(_words(text)) >= CONSTANT_WORDS or len(text.strip()) >= CONSTANT_CHARACTERS
        if long and not _is_reference(item, text):
            groups[" ".join(text.split()).lower()].append(item)
    found: dict[str, str] = {}
    for group in groups.values():
        questions = {item.messages for item in group}
        if len(questions) >= CONSTANT_ITEMS and len(group) >= CONSTANT_SHARE * len(items):
            problem = f"the same answer was given to {len(questions)} different questions"
            found |= {item.id: problem for item in group}
    return found
