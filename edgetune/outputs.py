"""Outputs that are complete or absent: written under a temporary name beside the target, flushed, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgetune.errors import EdgetuneError, OutputError
from edgetune.notebook_view import table_html

FULL_BYTES = 2**18
"""A disk with less free space than this is taken for full."""


@dataclass(frozen=True)
class WrittenModel:
    """A model that was written to the file or folder `path`, and can be given wherever a path can. `bytes` is its size,
    of a folder that of the weights."""

    path: Path
    bytes: int

    def __fspath__(self) -> str:
        return str(self.path)

    def document(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        values = asdict(self)
        return {"out": str(values.pop("path")), **values}

    def _repr_html_(self) -> str:
        return table_html(self.document())


def check_target(target: Path, *, force: bool = False) -> None:
    """Raise OutputError now, before long work, when `target` exists (without `force`) or cannot be created."""
    if target.exists() and not force:
        raise OutputError("exists already", where=target, remedy="choose another --out, or pass --force to replace it")
    folder = _existing_folder(target)
    if not folder.is_dir():
        raise OutputError("is a file, so nothing can be written below it", where=folder, remedy="choose another --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError("this folder cannot be written", where=folder, remedy="choose another --out")


@contextmanager
def staged_file(target: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `target`; when the block ends well, flush it to disk and rename it into place.

    Whatever happens inside the block (an error, a full disk, an interrupt), `target` is the old file or absent and the
    temporary file is gone. Raises OutputError when `target` exists (without `force`) or cannot be written.
    """
    check_target(target, force=force)
    with explain_refused_writes(target):
        staged = _stage(target, folder=False)
        try:
            yield staged
            flush_to_disk(staged)
            staged.chmod(0o666 & ~_umask())
            staged.replace(target)
        finally:
            staged.unlink(missing_ok=True)


@contextmanager
def staged_folder(target: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `target`, moved into place when the block ends well; else as `staged_file`."""
    check_target(target, force=force)
    with explain_refused_writes(target):
        staged = _stage(target, folder=True)
        try:
            yield staged
            for file in staged.rglob("*"):
                if file.is_file():
                    flush_to_disk(file)
            staged.chmod(0o777 & ~_umask())
            _replace_folder(staged, target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def write_text(target: Path, text: str, *, force: bool = False) -> None:
    """Write `text` to `target` as UTF-8, complete or not at all."""
    with staged_file(target, force=force) as staged:
        staged.write_text(text, encoding="utf-8")


@contextmanager
def explain_refused_writes(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into one clear OutputError."""
    try:
        yield
    except EdgetuneError:
        raise
    except Exception as problem:
        if _disk_is_full(problem, target):
            raise OutputError(
                "the disk is full, so this was not written",
                where=target,
                remedy="free some space or choose another --out",
            ) from problem
        number = getattr(problem, "errno", None)
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError(
                f"cannot be written ({os.strerror(number)})", where=target, remedy="choose another --out"
            ) from problem
        raise


def _disk_is_full(problem: Exception, target: Path) -> bool:
    """True when `problem` came from a full disk. Libraries in Rust and C++ say so in words of their own, or not at all
    (torch: "unexpected pos"); then the disk itself is asked."""
    if getattr(problem, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    if any(words in str(problem) for words in ("No space left on device", "Not enough free space")):
        return True
    return shutil.disk_usage(_existing_folder(target)).free < FULL_BYTES


def _existing_folder(target: Path) -> Path:
    """The nearest folder above `target` that exists."""
    folder = target.absolute().parent
    while not folder.exists():
        folder = folder.parent
    return folder


def flush_to_disk(file: Path) -> None:
    """Block until the file's bytes are on the disk. A full disk shows here at the latest."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stage(target: Path, *, folder: bool) -> Path:
    """A new temporary file or folder beside `target`, whose folder is made where it is missing."""
    prefix, suffix = f".{target.name}.", ".partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            return Path(tempfile.mkdtemp(suffix, prefix, target.parent))
        handle, name = tempfile.mkstemp(suffix, prefix, target.parent)
        os.close(handle)
        return Path(name)
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OutputError(
            f"cannot be written ({problem.strerror})", where=target, remedy="choose another --out"
        ) from problem


def _replace_folder(staged: Path, target: Path) -> None:
    """Rename `staged` to `target`; an old folder steps aside first and is deleted only after the new one stands."""
    if not target.exists():
        staged.replace(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    target.replace(aside / target.name)
    try:
        staged.replace(target)
    except OSError:
        (aside / target.name).replace(target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
