"""Finds the recipes, suites and their data that ship with edgetune, in a checkout or inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(kind: str) -> Path:
    """The folder of shipped files of one kind: "recipes" or "judge"."""
    packaged = _PACKAGE / "_shipped" / kind
    return packaged if packaged.is_dir() else _PACKAGE.parent / kind


def shipped_files(kind: str, pattern: str) -> dict[str, Path]:
    """Shipped files by name (the file name without its suffix), sorted: {"demo": …/recipes/demo.yaml, …}."""
    return {file.stem: file for file in sorted(shipped(kind).glob(pattern))}
