"""One training in several processes: which of them this one is, starting them, and ending together.

Processes find each other through the variables that torchrun and `accelerate launch` set too (RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR, MASTER_PORT), so a training joins in whoever started it. `launch` starts them on one machine
itself, because it has to end them otherwise than torchrun does: Ctrl-C reaches every process once and none is killed
before its checkpoint is saved, and a failure is one line whichever process it came from.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from edgetune import errors, events, outputs
from edgetune.cores import physical_cores
from edgetune.errors import EdgetuneError, Interrupted, ProcessFailed, UsageError

T = TypeVar("T")

GRACE_SECONDS = 5.0
"""How long the others may go on by themselves after one process has failed: most notice it when they next meet."""

_FAILURES = "EDGETUNE_FAILURES"
"""Names the folder in which a process that `launch` started leaves what ended it."""

_LAUNCHER = "EDGETUNE_LAUNCHER"
"""Holds the launcher's process id."""

_FORWARDED = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


def world_size() -> int:
    """How many processes train together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them, from 0. Process 0 alone prints and writes files."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """True in the process that prints and writes files; it is the only one where nothing was launched."""
    return rank() == 0


def local_world_size() -> int:
    """How many of the processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def was_launched() -> bool:
    """True in a process that `launch`, torchrun or `accelerate launch` started to train with others."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def must_launch(count: int) -> bool:
    """True when `--processes COUNT` asks for processes that have not been started yet.

    Raises UsageError for a number that cannot be, or that differs from what torchrun has started already.
    """
    if count < 1:
        raise UsageError(f"{count} processes cannot train", where="--processes", remedy="give 1 or more")
    if not was_launched():
        cores = os.cpu_count() or count
        if count > max(cores, 2):
            raise UsageError(
                f"{count} processes were asked for, and this machine has {cores} core{'s' if cores > 1 else ''}",
                where="--processes",
                remedy="start one process per core at most",
            )
        return count > 1
    if count != local_world_size():
        raise UsageError(
            f"this command is one of {local_world_size()} processes that were started already",
            where="--processes",
            remedy="under torchrun or accelerate launch, leave it out",
        )
    return False


def threads_per_process(count: int) -> int:
    """Threads for each of `count` processes on this machine: together one per physical core."""
    return max(1, physical_cores() // count)


def join() -> None:
    """Take this process's share of the machine: a GPU where there are some, and of the cores as many as it should use.

    Raises UsageError when there are fewer GPUs than processes.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads_per_process(local_world_size()))
    if not was_launched() or not torch.cuda.is_available():
        return
    gpus, local_rank = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if local_world_size() > gpus:
        raise UsageError(
            f"{local_world_size()} processes were asked for, and this machine has {gpus} GPU{'s' if gpus > 1 else ''}",
            where="--processes",
            remedy="start one process per GPU at most",
        )
    torch.cuda.set_device(local_rank)


def from_first(value: T | None) -> T:
    """What the first process gives here, in all of them. All must call this, and the first with a value."""
    if world_size() > 1:
        from torch import distributed

        box = [value]
        distributed.broadcast_object_list(box)
        (value,) = box
    assert value is not None
    return value


def lost_launcher() -> bool:
    """True once the launcher of this process is gone without having ended it."""
    launcher = os.environ.get(_LAUNCHER)
    return launcher is not None and os.getppid() != int(launcher)


@contextmanager
def failures_reported() -> Iterator[None]:
    """In a process that `launch` started: leave what ends the work inside to the launcher, which tells the user."""
    folder = os.environ.get(_FAILURES)
    if folder is None:
        yield
        return
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit) as problem:
        record = _record(problem)
        outputs.write_text(Path(folder) / f"{time.time_ns()}-{rank()}.json", json.dumps(record))
        sys.exit(record["exit_code"])


def launch(count: int, arguments: Sequence[str]) -> None:
    """Run `edgetune ARGUMENTS` as `count` processes that train together on this machine, and wait for all of them.

    Raises the EdgetuneError with which the first of them failed.
    """
    with tempfile.TemporaryDirectory(prefix="edgetune-") as folder:
        failures = Path(folder)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads_per_process(count))),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            _FAILURES: folder,
            _LAUNCHER: str(os.getpid()),
        }
        started: list[subprocess.Popen[bytes]] = []
        with _signals_forwarded(started):
            for number in range(count):
                started.append(_start(number, arguments, environment, failures))
            codes = _wait(started)
        if any(codes.values()):
            _raise_failure(failures, count, codes)


def _start(
    number: int, arguments: Sequence[str], environment: dict[str, str], failures: Path
) -> subprocess.Popen[bytes]:
    """Process `number`. A session of its own keeps the terminal's Ctrl-C away: the launcher passes it on, once."""
    environment = {**environment, "RANK": str(number), "LOCAL_RANK": str(number)}
    command = [sys.executable, "-m", "edgetune", *arguments]
    if number == 0:
        nothing = subprocess.DEVNULL  # the launcher prints the result
        return subprocess.Popen(command, env=environment, stdin=nothing, stdout=nothing, start_new_session=True)
    with (failures / f"{number}.log").open("wb") as log:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


@contextmanager
def _signals_forwarded(started: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """While this is open, what would end this process is passed on to those it has started instead."""

    def forward(signum: int, frame: FrameType | None) -> None:
        for process in started:
            process.send_signal(signum)

    previous = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait(started: list[subprocess.Popen[bytes]]) -> dict[int, int]:
    """The exit codes of those that ended by themselves.

    Once one has failed, those that do not notice it within GRACE_SECONDS are ended.
    """
    ended: dict[int, int] = {}
    deadline = math.inf
    while len(ended) < len(started):
        ended |= {number: code for number, process in enumerate(started) if (code := process.poll()) is not None}
        if any(ended.values()):
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() > deadline:
            for number, process in enumerate(started):
                if number not in ended:
                    process.kill()
                    process.wait()
            break
        time.sleep(0.05)
    return ended


def _record(problem: BaseException) -> dict[str, Any]:
    """What ended this process, in JSON's types; `foreseen` where it says by itself what the user is to know."""
    if isinstance(problem, KeyboardInterrupt):
        problem = Interrupted("interrupted; no unfinished output is left behind")
    record: dict[str, Any] = {"rank": rank(), "kind": type(problem).__name__, "foreseen": True}
    if isinstance(problem, EdgetuneError) and hasattr(errors, record["kind"]):
        said = {"what": problem.what, "where": problem.where, "remedy": problem.remedy}
        return record | said | {"exit_code": problem.exit_code}
    if isinstance(problem, SystemExit):
        return record | {"exit_code": problem.code}
    if isinstance(problem, ModuleNotFoundError):
        return record | {"what": str(problem), "module": problem.name, "exit_code": 5}
    text = "".join(traceback.format_exception(problem))
    return record | {"foreseen": False, "what": text, "exit_code": ProcessFailed.exit_code}


def _raise_failure(folder: Path, count: int, codes: dict[int, int]) -> NoReturn:
    """Raise what ended the first process that failed, by `codes`, the exit codes of those that ended by themselves.

    What the processes recorded comes in order of time: the first is the cause, and lost connections are its effect.
    But a process that was killed could record nothing, and then all records are effects.
    """
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    spoke = {record["rank"] for record in records}
    killed = sorted(number for number, code in codes.items() if code and number not in spoke)
    if killed and not any(record["foreseen"] for record in records):
        number, code = killed[0], codes[killed[0]]
        _show_log(folder / f"{number}.log")
        raise ProcessFailed(
            f"process {number} of {count} "
            + (f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"),
            remedy="if it ran out of memory, lower train.batch_size; --resume goes on from the last checkpoint",
        )
    first = records[0]
    if first["kind"] == SystemExit.__name__:
        raise SystemExit(first["exit_code"])  # nobody reads stdout any more
    if first["kind"] == ModuleNotFoundError.__name__:
        raise ModuleNotFoundError(first["what"], name=first["module"])
    if first["foreseen"]:
        raise getattr(errors, first["kind"])(first["what"], where=first["where"], remedy=first["remedy"])
    events.note(first["what"].rstrip())
    raise ProcessFailed(f"process {first['rank']} of {count} failed: {first['what'].rstrip().rsplit(chr(10), 1)[-1]}")


def _show_log(file: Path) -> None:
    """The last that a process without a terminal has written, where there is something."""
    text = file.read_text(encoding="utf-8", errors="replace").rstrip() if file.exists() else ""
    if text:
        events.note(text[-2000:])


def _free_port() -> int:
    """A TCP port on which nothing listens on this machine now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
