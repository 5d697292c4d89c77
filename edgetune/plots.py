"""Whether pictures can be drawn: matplotlib comes with the extras `plots` and `train`."""

from __future__ import annotations

from importlib.util import find_spec

from edgetune import events


def can_draw(picture: str) -> bool:
    """True where matplotlib is installed. Elsewhere a note says that `picture` is missing, and how to get it."""
    if find_spec("matplotlib") is not None:
        return True
    events.note(f'{picture} is left out, because it needs matplotlib; to get it, run: pip install "edgetune[plots]"')
    return False
