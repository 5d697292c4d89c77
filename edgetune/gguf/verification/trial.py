"""Computes a few tokens of a file with llama.cpp in a child process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from edgetune.errors import VerificationFailed
from edgetune.gguf.verification import trial_process
from edgetune.gguf.verification.excerpt import Excerpt, open_excerpt, plan_excerpt
from edgetune.models.gguf_file import GgufFile

_SOURCE_LINE = re.compile(r"^.*/(?=[^/]+:\d+: )")
"""llama.cpp's messages name its source files with the folder of the build machine."""


@dataclass(frozen=True)
class Trial:
    """`kind` is decoder, encoder or encoder-decoder; `blocks` the number of computed leading blocks, None for all."""

    kind: str
    blocks: int | None


@contextmanager
def begin_trial(file: GgufFile, *, bound_bytes: int | None = None) -> Iterator[Callable[[], Trial]]:
    """Start the computation and yield a function that waits for its end. Leaving the block kills a running child.

    Of a file larger than `bound_bytes`, only the leading blocks that fit are computed. If llama.cpp refuses this
    excerpt, the whole file is computed. The function raises VerificationFailed if llama.cpp refuses the file, crashes,
    or computes values that are not finite.
    """
    excerpt = None if bound_bytes is None else plan_excerpt(file, bound_bytes)
    with ExitStack() as stack:
        child = stack.enter_context(_child(file, excerpt))

        def finish() -> Trial:
            try:
                return Trial(_wait(child), None if excerpt is None else excerpt.blocks)
            except VerificationFailed:
                if excerpt is None:
                    raise
            return Trial(_wait(stack.enter_context(_child(file, None))), None)

        yield finish


@contextmanager
def _child(file: GgufFile, excerpt: Excerpt | None) -> Iterator[subprocess.Popen[str]]:
    program = [sys.executable, "-P", str(trial_process.__file__)]
    with ExitStack() as stack:
        files, inherited = [str(file.path)], tuple[int, ...]()
        if excerpt is not None:
            path, inherited = stack.enter_context(open_excerpt(file, excerpt))
            files.insert(0, path)
        child = stack.enter_context(
            subprocess.Popen(
                [*program, *files],
                env=os.environ | {"GGML_NO_BACKTRACE": "1"},  # otherwise llama.cpp starts a debugger if it aborts
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=inherited,
                text=True,
                errors="replace",
            )
        )
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def _wait(child: subprocess.Popen[str]) -> str:
    """The kind of model that the child prints. Raises VerificationFailed."""
    said, complained = child.communicate()
    if child.returncode == 0:
        return said
    last = complained.strip().splitlines()[-1:]
    reason = _SOURCE_LINE.sub("", last[0]) if last else "no reason given"
    if child.returncode == trial_process.REFUSED:
        raise VerificationFailed(f"llama.cpp cannot compute with it ({reason})")
    how = _name_signal(-child.returncode) if child.returncode < 0 else f"status {child.returncode}"
    raise VerificationFailed(f"llama.cpp crashed while loading or running this file ({how}: {reason})")


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
