"""The command line: every command is one thin file beside this one and one line here."""

from __future__ import annotations

import os
import sys

import typer

from edgetune import __version__, console
from edgetune.cli import chat, demo, export, judge, merge, recipes, train
from edgetune.errors import EdgetuneError

app = typer.Typer(
    name="edgetune",
    help="Fine-tune a small language model by recipe, ship it as a quantized GGUF, and prove that nothing got worse.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command(rich_help_panel="The way of a model")(train.train)
app.command(rich_help_panel="The way of a model")(merge.merge)
app.command(rich_help_panel="The way of a model")(export.export)
app.command(rich_help_panel="The way of a model")(chat.chat)
app.command(rich_help_panel="The way of a model")(judge.judge)
app.command(rich_help_panel="Around it")(recipes.recipes)
app.command(rich_help_panel="Around it")(demo.demo)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.verbatim(f"edgetune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", help="Show the version.", callback=_show_version, is_eager=True),
) -> None:
    pass


OPENMP_SPINS = "30000"
"""How long GNU OpenMP's threads spin for the next piece of work before they sleep. By default they spin on, and another
busy program on the same cores slows training down tenfold; with this limit it loses about half, and nothing when alone."""


def main() -> None:
    """Run a command; every EdgetuneError becomes one line on stderr and its own exit code."""
    os.environ.setdefault("GOMP_SPINCOUNT", OPENMP_SPINS)
    try:
        app()
    except EdgetuneError as problem:
        _fail(problem)


def _fail(problem: EdgetuneError) -> None:
    console.error(problem)
    console.document({"error": str(problem), "exit_code": problem.exit_code})
    sys.exit(problem.exit_code)
