"""A command with others below it: `edgetune judge SUITE` beside `edgetune judge calibrate JUDGE`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

DEFAULT = "run"
"""The command that is meant where none is named."""


class DefaultCommandGroup(TyperGroup):
    """A group in which words that begin with no command's name, `--help` among them, belong to the command `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command's name in front where no command is named."""
        if args and args[0] not in self.commands:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command and its arguments; the default one's help says how it is usually called: without its name."""
        name, command, rest = super().resolve_command(ctx, args)
        return ("" if name == DEFAULT else name), command, rest
