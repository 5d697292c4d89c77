"""The command line. Each command is one thin file in this folder and one line here."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer

from edgetune import __version__, console, display, events
from edgetune.cli import chat, data, demo, export, inspect, judge, merge, plan, recipes, train, verify
from edgetune.cores import limit_spinning
from edgetune.errors import EdgetuneError, Interrupted, OutputError
from edgetune.standard_streams import guarded_streams

app = typer.Typer(
    name="edgetune",
    help="Fine-tune a small language model by recipe, ship it as a quantized GGUF, and check that nothing got worse.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _register(command: Callable[..., None], panel: str, to: typer.Typer = app) -> None:
    """Register a function as a command; Ctrl-C becomes an EdgetuneError."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; no unfinished output is left behind") from None

    to.command(rich_help_panel=panel)(run)


_register(train.train, "Workflow")
_register(merge.merge, "Workflow")
_register(export.export, "Workflow")
_register(chat.chat, "Workflow")
app.add_typer(judge.app, name="judge", rich_help_panel="Workflow")
_register(judge.run, "Commands", judge.app)
_register(judge.calibrate, "Commands", judge.app)
_register(judge.show, "Commands", judge.app)
_register(plan.plan, "Utilities")
_register(recipes.recipes, "Utilities")
_register(inspect.inspect, "Utilities")
_register(verify.verify, "Utilities")
app.add_typer(data.app, name="data", rich_help_panel="Utilities")
_register(data.check, "Commands", data.app)
_register(demo.demo, "Utilities")


def _show_version(wanted: bool) -> None:
    if wanted:
        console.verbatim(f"edgetune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", help="Show the version.", callback=_show_version, is_eager=True),
) -> None:
    pass


def main() -> None:
    """Run a command; every EdgetuneError becomes one line on stderr and its own exit code."""
    limit_spinning()
    with guarded_streams(), _events_shown():
        try:
            try:
                app()
            finally:
                sys.stdout.flush()  # a failed write is reported here, not by the interpreter at exit
        except EdgetuneError as problem:
            _fail(problem)


@contextmanager
def _events_shown() -> Iterator[None]:
    """Show events on stderr, and only once: a library may have given logging's root a handler that prints them too."""
    logger = logging.getLogger("edgetune")
    propagated, logger.propagate = logger.propagate, False
    try:
        with events.listen(display.show):
            yield
    finally:
        logger.propagate = propagated


def _fail(problem: EdgetuneError) -> None:
    problem.parameters = {}  # the user gave options
    console.error(problem)
    with suppress(OutputError, SystemExit):  # stdout may be closed or full, too
        console.document({"error": str(problem), "exit_code": problem.exit_code})
    sys.exit(problem.exit_code)
