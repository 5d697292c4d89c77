"""A stub of an OpenAI-compatible endpoint on loopback: programmable, counts what it was asked, many at once.

    with StubEndpoint(answer=lambda body: chat_reply('{"correctness": 4}'), latency=0.1) as stub:
        judge = EndpointJudge(name="stub", model="stub", url=stub.url, key=None)
        ...
        assert len(stub.requests) == 1

As a program it serves one fixed answer from a process of its own, prints its URL, and writes the SHA-256 of each
request's messages into a file, one a line, when it has answered:

    python tests/support/stub_endpoint.py --text TEXT --latency 0.1 --log FILE
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

JSON = dict[str, Any]


@dataclass(frozen=True)
class StubReply:
    """An HTTP response. `body` is JSON, or the raw text. With `cut`, the connection ends after that many body bytes.

    A negative `cut` ends it without a word.
    """

    body: JSON | list[Any] | str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float | None = None
    cut: int | None = None


@dataclass(frozen=True)
class StubRequest:
    """What was asked: path, lower-case headers, and the JSON body."""

    path: str
    headers: dict[str, str]
    body: JSON


Answer = Callable[[JSON], "StubReply | JSON | str"]
"""From the request's JSON to a whole response, the JSON of a good one, or the text of a chat completion."""


def chat_reply(
    text: str | None,
    *,
    logprobs: Sequence[JSON] | None = None,
    usage: tuple[int, int] | None = (100, 20),
    finish: str = "stop",
) -> JSON:
    """A chat completion that says `text`. `usage` is prompt and completion tokens; `logprobs` the content's list."""
    choice: JSON = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    choice["logprobs"] = None if logprobs is None else {"content": list(logprobs), "refusal": None}
    reply: JSON = {"id": "chatcmpl-stub", "object": "chat.completion", "created": 0, "model": "stub"}
    reply["choices"] = [choice]
    if usage is not None:
        prompt, completion = usage
        reply["usage"] = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
    return reply


def token_logprob(token: str, alternatives: dict[str, float]) -> JSON:
    """One entry of a completion's logprobs: the chosen token, and the log-probability of each alternative in nats."""
    top = [{"token": text, "logprob": value, "bytes": list(text.encode())} for text, value in alternatives.items()]
    return {
        "token": token,
        "logprob": alternatives.get(token, -9999.0),
        "bytes": list(token.encode()),
        "top_logprobs": top,
    }


def error_reply(
    status: int, message: str, *, code: str | None = None, headers: dict[str, str] | None = None
) -> StubReply:
    """An error as OpenAI writes it."""
    body = {"error": {"message": message, "type": "error", "param": None, "code": code}}
    return StubReply(body, status=status, headers=headers or {})


class StubEndpoint:
    """Serves `answer` from a thread until the `with` block ends. `requests` holds all that came, in order.

    `most_at_once` is the largest number of requests that waited for their answer together.
    """

    def __init__(self, answer: Answer, *, latency: float = 0.0) -> None:
        self._answer, self._latency = answer, latency
        self.requests: list[StubRequest] = []
        self.on_answered: Callable[[StubRequest], None] = lambda request: None
        self.most_at_once = 0
        self._at_once = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        """The base URL, with its /v1."""
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> StubEndpoint:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.start(), self._loop).result(10)
        return self

    def __exit__(self, *problem: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def start(self) -> None:
        """Listen in the running loop; `with` does this in a thread of its own."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._serve_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        request = StubRequest(first.split()[1], headers, json.loads(raw) if raw else {})
        self.requests.append(request)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            reply = _whole(self._answer(request.body))
            await asyncio.sleep(self._latency if reply.delay is None else reply.delay)
        finally:
            self._at_once -= 1
        if reply.cut is not None and reply.cut < 0:
            return False
        body = reply.body.encode() if isinstance(reply.body, str) else json.dumps(reply.body).encode()
        answer_headers = {"content-type": "application/json", "content-length": str(len(body)), **reply.headers}
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in answer_headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body[: reply.cut])
        await writer.drain()
        self.on_answered(request)
        return reply.cut is None


def _whole(answer: StubReply | JSON | str) -> StubReply:
    if isinstance(answer, StubReply):
        return answer
    return StubReply(chat_reply(answer) if isinstance(answer, str) else answer)


def question_hash(body: JSON) -> str:
    """SHA-256 of a request's messages, in hexadecimal."""
    return hashlib.sha256(json.dumps(body.get("messages")).encode()).hexdigest()


async def _main(options: argparse.Namespace) -> None:
    reply = chat_reply(options.text)
    stub = StubEndpoint(lambda body: reply, latency=options.latency)
    with Path(options.log).open("a", encoding="utf-8", buffering=1) as log:
        stub.on_answered = lambda request: print(question_hash(request.body), file=log)
        await stub.start()
        print(stub.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)  # ends when whoever started it closes its input, or dies


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--log", required=True)
    asyncio.run(_main(parser.parse_args()))
