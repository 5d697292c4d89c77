"""A judge behind an OpenAI-compatible endpoint: a question becomes a request, a completion becomes a reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgetune.judging.asking.chat import ChatEndpoint, Unanswered, to_json
from edgetune.judging.asking.completion import Completion
from edgetune.judging.asking.cost import Budget
from edgetune.judging.asking.dialect import Dialect, Dialogue
from edgetune.judging.asking.probabilities import read_probabilities
from edgetune.judging.asking.refusal import Feature
from edgetune.judging.asking.request import Failed, JudgeRequest, Reply, VerdictForm
from edgetune.judging.suites.forms import FORM_DIALECTS
from edgetune.judging.suites.judge_file import EndpointJudge


class EndpointClient:
    """Asks one judge, for one event loop: `async with EndpointClient(judge, budget, on_note) as client`.

    `on_note` is called once for each thing that the endpoint does not support, such as token probabilities. Raises
    UsageError when the judge's key is not in the environment.
    """

    def __init__(self, judge: EndpointJudge, budget: Budget, on_note: Callable[[str], None]) -> None:
        self._judge, self._note = judge, on_note
        self._chat = ChatEndpoint(judge, budget, on_note)
        self._start = Dialect(
            form="json_schema" if judge.structured == "auto" else judge.structured,
            alternatives=0 if judge.probabilities == "off" else 20,
        )
        features: list[Feature] = ["alternatives", "limit", "sampling"]
        if judge.structured == "auto":
            features.insert(0, "form")
        self._dialogue = Dialogue(self._chat, self._start, features, self._tell)

    async def __aenter__(self) -> EndpointClient:
        await self._chat.__aenter__()
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self._chat.__aexit__(*problem)

    async def ask(self, request: JudgeRequest) -> Reply | Failed:
        """The judge's answer; Failed when there is none after all attempts, or it was cut off or filtered.

        Raises CapReached, and EdgetuneError when no request can succeed.
        """
        messages = to_json(request.messages())
        try:
            completion = await self._dialogue.complete(
                lambda dialect: self._body(messages, request.form, dialect), self._judge.max_tokens
            )
        except Unanswered as problem:
            return Failed(str(problem))
        reason = self._find_fault(completion)
        return _reply(completion, request.form) if reason is None else Failed(reason)

    def _body(self, messages: list[dict[str, str]], form: VerdictForm, dialect: Dialect) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._judge.model, "messages": messages, dialect.limit: self._judge.max_tokens}
        if dialect.sampling != "own":
            body["temperature"] = self._judge.temperature
        if dialect.alternatives:
            body |= {"logprobs": True, "top_logprobs": dialect.alternatives}
        return body | FORM_DIALECTS[dialect.form].ask(form.json_schema())

    def _find_fault(self, completion: Completion) -> str | None:
        if completion.finish == "length":
            return f"the verdict was cut off after {self._judge.max_tokens} tokens; raise the judge's max_tokens"
        if completion.filtered:
            return "the endpoint's content filter blocked the verdict"
        if completion.refusal and not completion.text:
            return f"the judge declined: {completion.refusal}"
        if completion.text.strip():
            return None
        return (
            "the judge's reasoning ended before its verdict" if completion.reasoning else "the judge's answer is empty"
        )

    def _tell(self, dialect: Dialect, first: Completion) -> None:
        name = self._judge.name
        if dialect.form != self._start.form:
            way = FORM_DIALECTS[dialect.form].note
            self._note(f"{name} does not support strict JSON schemas; {way}")
        if self._start.alternatives and not (dialect.alternatives and first.logprobs):
            self._note(f"{name} returns no token probabilities; grades are used as written")
        if dialect.sampling == "own":
            self._note(f"{name} does not accept a temperature; its own is used, so verdicts may differ between calls")


def _reply(completion: Completion, form: VerdictForm) -> Reply:
    return Reply(
        text=completion.text,
        probabilities=read_probabilities(completion.logprobs, form, completion.text),
        input_tokens=completion.input_tokens,
        output_tokens=completion.output_tokens,
        cost_usd=completion.cost_usd,
        seconds=completion.seconds,
    )
