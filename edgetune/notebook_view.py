"""Results as HTML, for notebooks (`_repr_html_`). Text is escaped, and its control characters are made visible."""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Mapping
from io import StringIO
from typing import TYPE_CHECKING

from edgetune.visible_text import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

_WIDTH = 110
"""Characters."""

_PREFORMATTED = '<pre style="line-height:1.25;white-space:pre;overflow-x:auto">{code}</pre>'


def terminal_html(renderable: RenderableType) -> str:
    """What the command line prints, with its colors."""
    from edgetune.display import SafeConsole

    console = SafeConsole(record=True, file=StringIO(), width=_WIDTH, force_jupyter=False)
    console.print(renderable)
    return str(console.export_html(inline_styles=True, code_format=_PREFORMATTED))


def table_html(rows: Mapping[str, object]) -> str:
    """Names and values, one pair a line; values that are None are left out."""
    lines = [
        f'<tr><th style="text-align:left">{_escaped(name.replace("_", " "))}</th>'
        f'<td style="text-align:left">{_escaped(_plain(value))}</td></tr>'
        for name, value in rows.items()
        if value is not None
    ]
    return f"<table>{''.join(lines)}</table>"


def picture_html(png: bytes, description: str) -> str:
    """A picture inside the page."""
    data = b64encode(png).decode()
    return f'<img alt="{_escaped(description)}" style="max-width:100%" src="data:image/png;base64,{data}">'


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(member)}" for name, member in value.items())
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def _escaped(text: str) -> str:
    return html.escape(visible(text))
