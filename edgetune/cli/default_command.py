"""A command with subcommands: `edgetune judge SUITE` and `edgetune judge calibrate JUDGE`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

DEFAULT = "run"
"""The command that runs if none is named."""


class DefaultCommandGroup(TyperGroup):
    """A group whose arguments, including `--help`, go to the command `run` unless the first one is a command's name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the default command's name if no command is named."""
        if args and args[0] not in self.commands:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command and its arguments. The default command's usage line leaves out its name."""
        name, command, rest = super().resolve_command(ctx, args)
        return ("" if name == DEFAULT else name), command, rest
