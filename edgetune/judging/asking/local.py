"""The offline judge: a GGUF in llama.cpp, whose verdict always has the form that was asked for.

It writes its reason under a grammar that goes on to the whole verdict, and its grades are the choices of the form that
it finds likeliest there, so that a model of any size gives a verdict that can be read, with the shares of all choices.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from time import perf_counter
from types import TracebackType
from typing import Self

from edgetune.data.example import Message
from edgetune.data.reasoning import closed_reasoning
from edgetune.data.template import ChatTemplate
from edgetune.errors import DataError, ModelError
from edgetune.judging.asking.request import Failed, JudgeRequest, Reply, VerdictForm
from edgetune.judging.suites.identity import hash_value
from edgetune.judging.suites.judge_file import LocalJudge
from edgetune.models.locate import locate_model
from edgetune.runtime.context import common_beginning
from edgetune.runtime.grammar import object_after_text
from edgetune.runtime.label_scoring import Scorable, score
from edgetune.runtime.sampling import Sampling
from edgetune.runtime.session import Session

_HEAD = '{"reason": "'
_SEEDS = 2**32 - 1


class LocalClient:
    """Asks a GGUF one question after the other. A verdict depends on its own question alone."""

    def __init__(self, judge: LocalJudge, *, threads: int | None = None) -> None:
        self._judge, self._threads = judge, threads
        self._opened: Session | None = None

    def __enter__(self) -> Self:
        """Load the model. Raises ModelError when there is none or it cannot be opened, or MissingComponent."""
        file = locate_model(self._judge.model).gguf
        if file is None:
            raise ModelError("holds no GGUF file", where=self._judge.model, remedy="an offline judge is a .gguf file")
        self._opened = Session.open(
            file, context_tokens=self._judge.context_tokens, threads=self._threads, flash_attention=False, use="judge"
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def ask(self, request: JudgeRequest) -> Reply | Failed:
        """The verdict, as JSON in the form's order, and the shares of each field's choices.

        With a temperature, reason and choices are drawn with a seed that the request's identity gives. Failed when the
        question does not fit into the judge's context. Raises ModelError when the model has no chat template.
        """
        session = self._opened
        if session is None:
            raise ValueError("this client is not open")
        started = perf_counter()
        rendered = _render(session.vocabulary.template, request.messages())
        # A template that begins the model's reasoning would have the verdict written inside it.
        prompt = session.vocabulary.tokenize(rendered + closed_reasoning(rendered))
        longest = _longest(request.form)
        reason_tokens = min(self._judge.reason_tokens, self._judge.max_tokens)
        needed = (
            len(prompt)
            + reason_tokens
            + len(session.vocabulary.tokenize(longest, parse_special=False))
            + len(longest) // 4
        )
        if needed > session.context.capacity:
            return Failed(
                f"the question and its verdict take {needed} tokens, and the judge's context holds "
                f"{session.context.capacity}; give the judge a larger context_tokens"
            )
        seed = int(hash_value(request.identity)[:8], 16) % _SEEDS
        written = f'{_HEAD}{self._reason(session, prompt, request.form, reason_tokens, seed)}"'
        probabilities = {}
        draw = random.Random(seed)
        for name, choices in request.form.fields.items():
            texts = {str(choice): f"{written}, {json.dumps(name)}: {json.dumps(choice)}" for choice in choices}
            end = "}" if name == list(request.form.fields)[-1] else ","
            scores = _score_choices(session, prompt, {choice: text + end for choice, text in texts.items()})
            probabilities[name] = _shares(scores)
            written = texts[self._choose(scores, draw)]
        written += "}"
        return Reply(
            text=written,
            probabilities=probabilities,
            input_tokens=len(prompt),
            output_tokens=len(session.vocabulary.tokenize(written, parse_special=False)),
            seconds=perf_counter() - started,
        )

    def _reason(self, session: Session, prompt: Sequence[int], form: VerdictForm, tokens: int, seed: int) -> str:
        """What the judge says for itself, as it stands inside a JSON string; cut where it does not come to an end."""
        if not tokens:
            return ""
        sampling = Sampling(self._judge.temperature, top_k=0, top_p=1.0, min_p=0.0, seed=seed)
        pieces = session.generate(
            [*prompt, *session.vocabulary.tokenize(_HEAD, parse_special=False)],
            sampling=sampling,
            max_tokens=tokens,
            reproducible=True,
            grammar=object_after_text(form.fields),
        )
        text = ""
        for piece in pieces:
            text += piece
            end = _end_of_string(text)
            if end is not None:
                pieces.close()
                return text[:end]
        return _whole_characters(text)

    def _choose(self, scores: Mapping[str, float], draw: random.Random) -> str:
        """The likeliest choice, or one drawn at the judge's temperature."""
        if self._judge.temperature == 0:
            return max(scores, key=scores.__getitem__)
        shares = _shares({choice: value / self._judge.temperature for choice, value in scores.items()})
        return draw.choices(list(shares), list(shares.values()))[0]


def _render(template: ChatTemplate, messages: Sequence[Message]) -> str:
    """The prompt. Where the template knows no system message, what it says comes first in the user's own."""
    try:
        return template.render(messages, add_generation_prompt=True)
    except DataError:
        if len(messages) < 2 or messages[0].role != "system":
            raise
        system, asked, *rest = messages
        joined = Message(asked.role, f"{system.content}\n\n{asked.content}")
        return template.render([joined, *rest], add_generation_prompt=True)


def _score_choices(session: Session, prompt: Sequence[int], texts: Mapping[str, str]) -> dict[str, float]:
    """The log-probability of each choice's text after the prompt, up to the token that tells it from all others.

    What all have in common is left out.
    """
    ids = {choice: session.vocabulary.tokenize(text, parse_special=False) for choice, text in texts.items()}
    shared = common_beginning(list(ids.values()))
    beginning = [*prompt, *next(iter(ids.values()))[:shared]]
    telling = [
        own[
            shared : 1 + max((common_beginning([own, other]) for other in ids.values() if other != own), default=shared)
        ]
        for own in ids.values()
    ]
    # Written tokens were read one by one, with other rounding than in a batch. They come from this very question, so
    # that reading them again would make nothing more reproducible.
    scores = score(session.context, Scorable(beginning, telling), reproducible=False)
    return dict(zip(ids, scores, strict=True))


def _shares(scores: Mapping[str, float]) -> dict[str, float]:
    """Probabilities that sum to 1."""
    largest = max(scores.values())
    weights = {choice: math.exp(value - largest) for choice, value in scores.items()}
    total = sum(weights.values())
    return {choice: weight / total for choice, weight in weights.items()}


def _longest(form: VerdictForm) -> str:
    """A verdict without reason whose choices are the longest ones."""
    fields = {name: max(choices, key=lambda choice: len(str(choice))) for name, choices in form.fields.items()}
    return json.dumps({"reason": "", **fields})


def _end_of_string(text: str) -> int | None:
    """Where the quotation mark is that ends a JSON string from inside it; None where it goes on."""
    escaped = False
    for place, character in enumerate(text):
        if character == '"' and not escaped:
            return place
        escaped = character == "\\" and not escaped
    return None


def _whole_characters(text: str) -> str:
    """A JSON string's inside, cut short anywhere, without half a character or half an escape at its end."""
    text = text.rstrip("\N{REPLACEMENT CHARACTER}")
    backslashes = len(text) - len(text.rstrip("\\"))
    return text[: len(text) - backslashes % 2]
