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
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .gguf file, for instance from `edgetune export`.")],
    *,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            "-p",
            metavar="TEXT",
            help="Answer this message on stdout, then exit. Piped input does the same.",
        ),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="The system message.")] = None,
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature; 0 always takes the most likely token.")
    ] = _DEFAULT.temperature,
    top_p: Annotated[
        float, typer.Option(help="Sample from the most likely tokens whose probabilities add up to this.")
    ] = _DEFAULT.top_p,
    top_k: Annotated[
        int, typer.Option(help="Sample from this many of the most likely tokens; 0 means all.")
    ] = _DEFAULT.top_k,
    max_tokens: Annotated[int, typer.Option(help="Maximum tokens per answer.")] = 1024,
    context: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", help="Context size in tokens. (default: the model's own, at most 4096)"),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads. (default: the physical cores)")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed; the same seed gives the same answer.")] = None,
    json: JsonOption = False,
) -> None:
    """Chat with a model on the CPU, through llama.cpp.

    In a terminal, /help lists the chat's commands. With --prompt or piped input, one answer goes to stdout.
    """
    console.configure(json_mode=json)
    sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)
    try:
        question = _read_question(prompt)
        if question is None and json:
            raise UsageError("--json needs a single message", remedy="give it with --prompt or pipe it in")

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
    """The one message to answer, or None for a conversation in the terminal. Raises UsageError if it is empty."""
    if prompt is None and sys.stdin.isatty():
        return None
    try:
        text = _read_piped() if prompt is None else _decode_again(prompt)
    except UnicodeError:
        raise UsageError("the prompt is not UTF-8 text") from None
    if not text.strip():
        given = "--prompt is empty" if prompt is not None else "standard input is empty"
        raise UsageError(given, remedy='give a message: --prompt "..."')
    return text if prompt is not None else text.rstrip("\r\n")


def _read_piped() -> str:
    """All of standard input, read as UTF-8 whatever the locale is."""
    text = sys.stdin.buffer.read().decode("utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode_again(argument: str) -> str:
    """An argument decoded as UTF-8 where the locale's encoding could not decode it. Raises UnicodeError."""
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
