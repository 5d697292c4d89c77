"""llama.cpp opened by another door than edgetune's, as a reference: in a child, so that a crash there fails one test.

A native crash in the test's own process would take all tests of the run with it.
"""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

from edgetune.runtime.guarded import respect_probe
from edgetune.runtime.probe import name_signal

_SPAWN = multiprocessing.get_context("spawn")

TIMEOUT_SECONDS = 300

Result = TypeVar("Result")


class ReferenceDied(AssertionError):
    """The child died; the message names the signal."""


def in_child(function: Callable[..., Result], *arguments: object) -> Result:
    """What `function`, which stands at the top of a module, returns in a process that respects the probe's answer.

    Raises ReferenceDied when the process dies or takes too long, and AssertionError with its traceback when it fails.
    """
    receiver, sender = _SPAWN.Pipe(duplex=False)
    child = _SPAWN.Process(target=_work, args=(sender, function, arguments), daemon=True)
    child.start()
    sender.close()  # so that the end of the child is the end of the pipe
    try:
        if not receiver.poll(TIMEOUT_SECONDS):
            raise ReferenceDied(f"{function.__name__} gave no answer in {TIMEOUT_SECONDS} s")
        succeeded, result = receiver.recv()
    except EOFError:
        child.join()
        code = child.exitcode or 0
        how = name_signal(-code) if code < 0 else f"exit status {code}"
        raise ReferenceDied(f"{function.__name__} died of {how}") from None
    finally:
        child.kill()
        child.join()
    if not succeeded:
        raise AssertionError(f"{function.__name__} failed:\n{result}")
    return result


def _work(sender: Connection, function: Callable, arguments: tuple) -> None:
    try:
        respect_probe()
        sender.send((True, function(*arguments)))
    except Exception:
        sender.send((False, traceback.format_exc()))
