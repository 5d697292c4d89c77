"""What is published: a source archive from which the same wheel can be built as from the checkout."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest
from support.core_environment import ROOT

pytest.importorskip("hatchling")


def build_wheel(source: Path, folder: Path) -> dict[str, bytes]:
    from hatchling.builders.wheel import WheelBuilder

    (file,) = WheelBuilder(str(source)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(file) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}


def test_the_source_archive_makes_the_wheel_of_the_checkout(tmp_path: Path) -> None:
    from hatchling.builders.sdist import SdistBuilder

    (archive,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    unpacked = Path(archive.removesuffix(".tar.gz"))
    wheel = build_wheel(ROOT, tmp_path / "checkout")
    assert build_wheel(unpacked, tmp_path / "archive") == wheel
    for name in (
        "edgetune/cli/app.py",
        "edgetune/py.typed",
        "edgetune/_shipped/recipes/demo.yaml",
        "edgetune/_shipped/judge/suites/sentiment-demo.yaml",
    ):
        assert name in wheel
    for name in ("Makefile", "constraints.txt", "deploy/set_up.py", "deploy/llama-cpp.cmake", "tests/conftest.py"):
        assert (unpacked / name).is_file(), "make needs it"
