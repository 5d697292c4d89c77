"""A model behind an OpenAI-compatible endpoint, as a model under test."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from edgetune import events
from edgetune.errors import EdgetuneError, UsageError
from edgetune.judging.asking.chat import ChatEndpoint, Unanswered, to_json
from edgetune.judging.asking.completion import Completion
from edgetune.judging.asking.cost import Budget
from edgetune.judging.asking.crew import work_through
from edgetune.judging.asking.dialect import Dialect, Dialogue
from edgetune.judging.asking.event_loop import EventLoop
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.subjects.written import written_answer
from edgetune.judging.suites.identity import hash_value
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.judge_file import EndpointJudge, load_judge
from edgetune.judging.suites.suite import GenerationSettings, Suite

_START = Dialect(form="text", alternatives=0, sampling="all")


def recognizes(reference: str) -> bool:
    """True for http:// and https:// addresses."""
    return reference.startswith(("http://", "https://"))


def open_endpoint(reference: str) -> EndpointSubject:
    """The model behind URL#MODEL. The key is that in OPENAI_API_KEY where it is set, in the environment or .env.

    Raises UsageError when no model is named.
    """
    address = load_judge(reference)
    assert isinstance(address, EndpointJudge)
    return EndpointSubject(reference, address.model_copy(update={"name": reference}))


class EndpointSubject:
    """Answers that an endpoint writes, several at a time. Its weights are unknown, so its address identifies it."""

    kind = "endpoint"
    size_bytes = None

    def __init__(self, reference: str, address: EndpointJudge) -> None:
        self.reference = reference
        self.fingerprint = hash_value([address.url, address.model])
        self.runtime: Mapping[str, str] = {}
        self._address = address

    def check(self, items: Sequence[Item], suite: Suite) -> None:
        """Raise UsageError where the suite needs likelihoods, which endpoints do not give."""
        if suite.task == "perplexity":
            raise UsageError(
                "perplexity needs the likelihood of given texts, which an endpoint does not return",
                where=self.reference,
                remedy="judge the model's GGUF file or folder, or another task",
            )
        if suite.task == "classify" and suite.scoring == "likelihood":
            raise UsageError(
                f"suite {suite.name} scores labels by likelihood, which an endpoint does not return for given texts",
                where=self.reference,
                remedy="set scoring: generate in the suite, for both models",
            )

    def answers(self, items: Sequence[Item], suite: Suite) -> Iterator[Answer]:
        """The answers in the order of the items, each as soon as it is there.

        A prompt that the endpoint refuses for good is unanswered, with the reason. Raises EdgetuneError when an item
        has no answer after all attempts, for another time may do better.
        """
        with EventLoop() as loop:
            stream = self._stream(items, suite)
            try:
                while (answer := loop.run(_next(stream))) is not None:
                    yield answer
            finally:
                loop.run(stream.aclose())

    def close(self) -> None:
        """Nothing is open between calls of `answers`."""

    async def _stream(self, items: Sequence[Item], suite: Suite) -> AsyncGenerator[Answer, None]:
        async with ChatEndpoint(self._address, Budget(), events.note) as chat:
            dialogue = Dialogue(chat, _START, ("limit", "sampling"), self._tell)

            async def answer(item: Item) -> Answer:
                body = self._body(item, suite.generation)
                try:
                    return _to_answer(await dialogue.complete(partial(_say, body), body["max_tokens"]), item, suite)
                except Unanswered as problem:
                    if problem.for_good:
                        return _unanswered(item, str(problem))
                    raise self._failed(item, problem) from None

            async with aclosing(work_through(items, answer, self._address.connections)) as answered:
                async for each in answered:
                    yield each

    def _failed(self, item: Item, problem: Unanswered) -> EdgetuneError:
        return EdgetuneError(
            f"there is no answer to {item.where} ({problem})",
            where=self.reference,
            remedy="run the same command again when the endpoint works: finished answers are kept",
        )

    def _body(self, item: Item, generation: GenerationSettings) -> dict[str, Any]:
        return {
            "model": self._address.model,
            "messages": to_json(item.messages),
            "max_tokens": generation.max_tokens,
            "temperature": generation.temperature,
            "top_p": generation.top_p,
            "seed": generation.seed,
        }

    def _tell(self, dialect: Dialect, first: Completion) -> None:
        if dialect.sampling != _START.sampling:
            refused = "seed" if dialect.sampling == "temperature" else "temperature"
            events.note(f"{self.reference} does not accept a {refused}; its answers may differ between calls")


def _say(body: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """The request in a dialect. Parameters without effect are left out: some endpoints refuse their names."""
    said = {"model": body["model"], "messages": body["messages"], dialect.limit: body["max_tokens"]}
    if dialect.sampling != "own":
        said["temperature"] = body["temperature"]
    if dialect.sampling == "all" and body["temperature"] > 0:
        said |= {"seed": body["seed"], **({"top_p": body["top_p"]} if body["top_p"] < 1 else {})}
    return said


def _to_answer(completion: Completion, item: Item, suite: Suite) -> Answer:
    if completion.filtered:
        return _unanswered(item, "the endpoint's content filter blocked the answer", completion)
    if completion.refusal and not completion.text.strip():
        return _unanswered(item, f"the model declined: {completion.refusal}", completion)
    return written_answer(
        item.id,
        completion.text,
        suite,
        reasoning=completion.reasoning,
        finish=completion.finish,
        generated_tokens=completion.output_tokens,
        seconds=completion.seconds,
    )


def _unanswered(item: Item, reason: str, completion: Completion | None = None) -> Answer:
    finish, seconds = (None, None) if completion is None else (completion.finish, completion.seconds)
    return Answer(id=item.id, text="", seconds=seconds, finish=finish, unanswered=reason)


async def _next(stream: AsyncGenerator[Answer, None]) -> Answer | None:
    return await anext(stream, None)
