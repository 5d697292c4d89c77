"""The folder where edgetune remembers things between calls: answers of the probe, chat history, compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$EDGETUNE_CACHE, else $XDG_CACHE_HOME/edgetune, else ~/.cache/edgetune. It may not exist yet."""
    if chosen := os.environ.get("EDGETUNE_CACHE"):
        return Path(chosen)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "edgetune"
    return Path.home() / ".cache" / "edgetune"
