"""`edgetune chat`: talk to a GGUF in the terminal, or ask it once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import edgetune
from edgetune import console, events
from edgetune.cli.options import JsonOption
from edgetune.data.text_file import read_text
from edgetune.errors import DataError, Interrupted, UsageError
from edgetune.runtime.sampling import Sampling

if TYPE_CHECKING:
    from edgetune.runtime.generation import Generation
    from edgetune.runtime.model import ChatAnswer, GenerationOptions

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
    schema: Annotated[
        Path | None,
        typer.Option("--schema", metavar="FILE", help="Answer in JSON that fits the JSON schema in this file."),
    ] = None,
    json_mode: JsonOption = False,
) -> None:
    """Chat with a model on the CPU, through llama.cpp.

    In a terminal, /help lists the chat's commands. With --prompt or piped input, one answer goes to stdout.
    """
    console.configure(json_mode=json_mode)
    sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)
    form = None if schema is None else _read_schema(schema)
    try:
        question = _read_question(prompt)
        if question is None and (json_mode or form is not None):
            option = "--json" if json_mode else "--schema"
            raise UsageError(f"{option} needs a single message", remedy="give it with --prompt or pipe it in")

        with edgetune.load(file, context_tokens=context, threads=threads) as model:
            if question is None:
                from edgetune.cli.terminal_chat import prompt_line, run_terminal
                from edgetune.runtime.chat import Conversation

                events.note(
                    f"{file.name}, {model.session.context.capacity} tokens of context; /help lists the commands"
                )
                conversation = Conversation(model.session, system=system, sampling=sampling, max_tokens=max_tokens)
                run_terminal(conversation, prompt_line())
                return
            messages = [{"role": "system", "content": system}] if system else []
            messages.append({"role": "user", "content": question})
            options: GenerationOptions = {
                "temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed, "max_tokens": max_tokens,
            }  # fmt: skip
            parsed = {}
            if form is None:
                answer: Generation | ChatAnswer[Any] = _stream(model.chat(messages, stream=True, **options))
            else:
                answer = filled = model.chat(messages, schema=form, **options)
                parsed = {"parsed": filled.parsed}
                console.verbatim(answer.text)
    except KeyboardInterrupt:
        raise Interrupted("stopped") from None
    stats = answer.stats
    console.document(
        {
            "model": str(file),
            "prompt": question,
            "answer": answer.text,
            **parsed,
            "finish_reason": stats.finish_reason,
            "prompt_tokens": stats.prompt_tokens,
            "tokens": stats.generated_tokens,
            "prompt_seconds": stats.prompt_seconds,
            "time_to_first_token_seconds": stats.time_to_first_token,
            "tokens_per_second": stats.tokens_per_second,
        }
    )


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


def _stream(answer: Generation) -> Generation:
    """Print the pieces as they come."""
    try:
        for piece in answer:
            console.verbatim(piece, end="")
    finally:
        if answer.text:
            console.verbatim("")
    return answer


def _read_schema(file: Path) -> dict[str, Any]:
    """Raises DataError for a file that cannot be read or holds no JSON object."""
    try:
        schema = json.loads(read_text(file))
    except ValueError as problem:
        raise DataError(f"is not valid JSON ({problem})", where=file) from None
    if not isinstance(schema, dict):
        raise DataError("is not a JSON schema (an object)", where=file)
    return schema
