"""Training in several processes: their ranks, their start, and their common end.

Processes find each other through the variables of torchrun and `accelerate launch` (RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR, MASTER_PORT), so all three can start a training. `launch` does not use torchrun, which ends processes
differently: here Ctrl-C reaches every process once, none is killed before its checkpoint is saved, and a failure is one
line whichever process it came from.
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
"""How long the other processes may run after one has failed: most notice it at their next exchange of gradients."""

_FAILURES = "EDGETUNE_FAILURES"
"""The environment variable with the folder for records of failures."""

_LAUNCHER = "EDGETUNE_LAUNCHER"
"""The environment variable with the launcher's process id."""

_FORWARDED = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


def world_size() -> int:
    """The number of processes that train together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them, from 0. Only process 0 prints and writes files."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    return rank() == 0


def local_world_size() -> int:
    """The number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def was_launched() -> bool:
    """True in a process that `launch`, torchrun or `accelerate launch` started to train with others."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def must_launch(count: int) -> bool:
    """True when `--processes COUNT` asks for processes that are not started yet.

    Raises UsageError for an invalid number, or one that differs from the number that torchrun has started.
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
            remedy="under torchrun or accelerate launch, remove it",
        )
    return False


def threads_per_process(count: int) -> int:
    """Threads for each of `count` processes on this machine, so that together they use one per physical core."""
    return max(1, physical_cores() // count)


def join() -> None:
    """Take this process's share of the machine: its GPU and its cores.

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
    """The first process's `value`, in all processes. All must call this."""
    if world_size() > 1:
        from torch import distributed

        box = [value]
        distributed.broadcast_object_list(box)
        (value,) = box
    assert value is not None
    return value


def lost_launcher() -> bool:
    """True once the launcher of this process has died without ending it."""
    launcher = os.environ.get(_LAUNCHER)
    return launcher is not None and os.getppid() != int(launcher)


@contextmanager
def failures_reported() -> Iterator[None]:
    """In a process that `launch` started: record what ends the work inside, for the launcher to report."""
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
    """Start process `number` in its own session, so that Ctrl-C reaches it only once, through the launcher."""
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
    """While this is open, signals that would end this process go to the processes that it has started instead."""

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
    """The exit codes of the processes that ended by themselves.

    Once one has failed, those that still run after GRACE_SECONDS are killed.
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
    """What ended this process, in JSON's types; `foreseen` where its message is meant for the user."""
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
    """Raise what ended the first process that failed. `codes` are the exit codes of those that ended by themselves.

    The earliest record is the cause, and lost connections are its effect. A process that was killed has no record; then
    all records are effects.
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
            remedy="if it ran out of memory, lower train.batch_size; --resume continues from the last checkpoint",
        )
    first = records[0]
    if first["kind"] == SystemExit.__name__:
        raise SystemExit(first["exit_code"])  # the reader of stdout is gone
    if first["kind"] == ModuleNotFoundError.__name__:
        raise ModuleNotFoundError(first["what"], name=first["module"])
    if first["foreseen"]:
        raise getattr(errors, first["kind"])(first["what"], where=first["where"], remedy=first["remedy"])
    events.note(first["what"].rstrip())
    raise ProcessFailed(f"process {first['rank']} of {count} failed: {first['what'].rstrip().rsplit(chr(10), 1)[-1]}")


def _show_log(file: Path) -> None:
    """Show the end of the output of a process without a terminal, if there is any."""
    text = file.read_text(encoding="utf-8", errors="replace").rstrip() if file.exists() else ""
    if text:
        events.note(text[-2000:])


def _free_port() -> int:
    """A TCP port on which nothing listens on this machine now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
