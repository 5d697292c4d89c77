"""The environment of a user who has run `pip install edgetune`, made in a second: the wheel, and links to its needs.

Nothing is downloaded: every distribution that the core's requirements lead to is linked from the environment that the
tests run in. Whatever else lies there, torch above all, cannot be imported.
"""

from __future__ import annotations

import shutil
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def make_core_environment(folder: Path, *, beside: Iterable[str] = ()) -> Path:
    """Make it in `folder`, with the distributions `beside`, without what those need; returns its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    for name in sorted({*closure(PROJECT["project"]["dependencies"]), *beside}):
        _link(metadata.distribution(name), site)
    with zipfile.ZipFile(_build_wheel(folder)) as wheel:
        wheel.extractall(site)
    return folder / "bin" / "python"


def closure(requirements: Iterable[str]) -> set[str]:
    """The names of all distributions that these requirements lead to, here."""
    found: set[tuple[str, str]] = set()
    open_ = [Requirement(text) for text in requirements]
    while open_:
        wanted = open_.pop()
        for extra in {"", *wanted.extras}:
            if (wanted.name.lower(), extra) in found:
                continue
            found.add((wanted.name.lower(), extra))
            needs = map(Requirement, metadata.requires(wanted.name) or ())
            open_ += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


def _link(distribution: metadata.Distribution, site: Path) -> None:
    """What the distribution has in site-packages, its metadata included."""
    for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
        link = site / top
        if not link.exists():
            link.symlink_to(Path(str(distribution.locate_file(top))))


def _build_wheel(folder: Path) -> Path:
    """The project's wheel, built by hatchling; where that is not installed, packed as pyproject.toml tells it to."""
    if find_spec("hatchling"):
        from hatchling.builders.wheel import WheelBuilder

        (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
        return Path(wheel)
    target = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    packed = folder / "wheel"
    for source, place in {**{name: name for name in target["packages"]}, **target["force-include"]}.items():
        shutil.copytree(ROOT / source, packed / place, ignore=shutil.ignore_patterns("__pycache__"))
    return Path(shutil.make_archive(str(folder / "edgetune"), "zip", packed))


def isolated(environment: dict[str, str]) -> dict[str, str]:
    """These variables without those that let Python look elsewhere."""
    return {name: value for name, value in environment.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
