"""`edgetune chat`: talk to a GGUF in the terminal, or ask it once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetune import console
from edgetune.cli.options import JsonOption
from edgetune.errors import Interrupted, UsageError
from edgetune.runtime.sampling import Sampling

if TYPE_CHECKING:
    from edgetune.runtime.chat import Conversation

_DEFAULT = Sampling()


def chat(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .gguf file, such as `edgetune export` writes.")],
    *,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="Answer this once on stdout; so does piped input."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="A system message.")] = None,
    temperature: Annotated[
        float, typer.Option(help="0 always takes the likeliest token; more is more varied.")
    ] = _DEFAULT.temperature,
    top_p: Annotated[
        float, typer.Option(help="Choose among the likeliest tokens that make up this probability.")
    ] = _DEFAULT.top_p,
    top_k: Annotated[
        int, typer.Option(help="Choose among this many of the likeliest tokens; 0 for all.")
    ] = _DEFAULT.top_k,
    max_tokens: Annotated[int, typer.Option(help="Stop an answer after this many tokens.")] = 1024,
    context: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS", help="Tokens that the model remembers; default: what it was trained on, at most 4096."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads; default: the physical cores.")] = None,
    seed: Annotated[int | None, typer.Option(help="For the same answer each time.")] = None,
    json: JsonOption = False,
) -> None:
    """Talk to a model on the CPU, with llama.cpp.

    In the terminal: /help lists the commands. With --prompt or piped input: one answer on stdout.
    """
    console.configure(json_mode=json)
    sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)
    try:
        question = _read_question(prompt)
        if question is None and json:
            raise UsageError("--json answers one question", remedy="give it with --prompt or pipe it in")

        from edgetune.cli.terminal_chat import prompt_line, run_terminal
        from edgetune.runtime.chat import Conversation
        from edgetune.runtime.session import Session

        with Session.open(file, context_tokens=context, threads=threads) as session:
            conversation = Conversation(session, system=system, sampling=sampling, max_tokens=max_tokens)
            if question is not None:
                _answer_once(conversation, question, file)
            else:
                console.note(f"{file.name}, {session.context_tokens} tokens of context; /help lists the commands")
                run_terminal(conversation, prompt_line())
    except KeyboardInterrupt:
        raise Interrupted("stopped") from None


def _read_question(prompt: str | None) -> str | None:
    """The one question to answer, or None for a conversation in the terminal. Raises UsageError for an empty one."""
    if prompt is None and sys.stdin.isatty():
        return None
    try:
        text = _read_piped() if prompt is None else _decode_again(prompt)
    except UnicodeError:
        raise UsageError("the prompt is not UTF-8 text") from None
    if not text.strip():
        given = "--prompt is empty" if prompt is not None else "standard input is empty"
        raise UsageError(given, remedy='ask something: --prompt "..."')
    return text if prompt is not None else text.rstrip("\r\n")


def _read_piped() -> str:
    """All of standard input. It is UTF-8 whatever the locale says: an ASCII locale says nothing about a file."""
    text = sys.stdin.buffer.read().decode("utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode_again(argument: str) -> str:
    """An argument whose bytes the locale's encoding could not read, read as UTF-8. Raises UnicodeError."""
    try:
        argument.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(argument).decode("utf-8")
    return argument


def _answer_once(conversation: Conversation, question: str, file: Path) -> None:
    pieces = []
    try:
        for piece in conversation.ask(question):
            pieces.append(piece)
            console.verbatim(piece, end="")
    finally:
        if pieces:
            console.verbatim("")
    stats = conversation.last_stats
    if stats is None:
        return
    console.document(
        {
            "model": str(file),
            "prompt": question,
            "answer": "".join(pieces),
            "finish_reason": stats.finish_reason,
            "prompt_tokens": stats.prompt_tokens,
            "tokens": stats.generated_tokens,
            "prompt_seconds": stats.prompt_seconds,
            "time_to_first_token_seconds": stats.time_to_first_token,
            "tokens_per_second": stats.tokens_per_second,
        }
    )
