"""Outputs are complete or absent."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgetune import outputs
from edgetune.errors import OutputError


def leftovers(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path: Path):
    target = tmp_path / "new" / "model.gguf"
    with outputs.staged_file(target) as staged:
        staged.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert leftovers(target.parent) == ["model.gguf"]


def test_an_existing_file_is_never_replaced_without_force(tmp_path: Path):
    target = tmp_path / "model.gguf"
    target.write_text("old")
    with pytest.raises(OutputError, match="--force"), outputs.staged_file(target):
        pytest.fail("the block must not be entered")
    with outputs.staged_file(target, force=True) as staged:
        staged.write_text("new")
    assert target.read_text() == "new"


@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_the_old_file_survives_whatever_happens_while_writing(tmp_path: Path, problem: BaseException):
    target = tmp_path / "model.gguf"
    target.write_text("old")

    def write() -> None:
        with outputs.staged_file(target, force=True) as staged:
            staged.write_text("half")
            raise problem

    with pytest.raises((OutputError, KeyboardInterrupt)):
        write()
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == ["model.gguf"]


def test_a_disk_that_is_full_only_at_the_flush_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full"), outputs.staged_file(tmp_path / "x") as staged:
        staged.write_text("whole")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "problem",
    [
        OSError("Not enough free space to write 113246208 bytes after offset 1787104"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
    ids=["numpy", "safetensors"],
)
def test_a_full_disk_is_understood_in_the_words_of_every_library(tmp_path: Path, problem: Exception):
    with pytest.raises(OutputError, match="the disk is full"), outputs.staged_file(tmp_path / "x"):
        raise problem


def test_a_failure_on_a_disk_without_space_is_put_down_to_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail() -> None:
        with outputs.staged_file(tmp_path / "x"):
            raise RuntimeError("unexpected pos 26182784 vs 26182676")

    with pytest.raises(RuntimeError):
        fail()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OutputError, match="the disk is full"):
        fail()


def test_a_folder_replaces_the_old_one_only_when_it_is_whole(tmp_path: Path):
    target = tmp_path / "merged"
    target.mkdir()
    (target / "old.txt").write_text("old")

    def fail() -> None:
        with outputs.staged_folder(target, force=True) as staged:
            (staged / "half.txt").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="the disk is full"):
        fail()
    assert leftovers(target) == ["old.txt"]
    with outputs.staged_folder(target, force=True) as staged:
        (staged / "new.txt").write_text("new")
    assert leftovers(target) == ["new.txt"]
    assert leftovers(tmp_path) == ["merged"]


def test_a_target_below_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        outputs.check_target(tmp_path / "file" / "model.gguf")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_refused(tmp_path: Path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            outputs.check_target(tmp_path / "model.gguf")
    finally:
        tmp_path.chmod(0o700)


def test_a_refused_write_is_one_clear_error(tmp_path: Path):
    with pytest.raises(OutputError, match="cannot be written"), outputs.staged_file(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that takes no new files")
def test_a_place_that_takes_no_files_is_refused_whoever_asks():
    with pytest.raises(OutputError, match="cannot be written"), outputs.staged_file(Path("/proc/model.gguf")):
        pytest.fail("the block must not be entered")
