"""Trainings in processes of their own, started quickly: one server imports the libraries and forks for each."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["edgetune.training.run", "edgetune.training.trainer", "edgetune.training.saving", "peft"]
)

Hook = Callable[[], None]
"""What a child does before it trains, such as laying a trap."""


def train_in_children(
    recipe: Path, out: Path, *, processes: int = 1, resume: bool = False, hook: Hook | None = None
) -> list[int]:
    """Train in `processes` fresh processes; their exit codes, negative where one was killed."""
    port = free_port()
    children = [
        _CONTEXT.Process(target=_train, args=(recipe, out, resume, rank, processes, port, hook))
        for rank in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(240)
    codes = [child.exitcode for child in children]
    assert None not in codes, "a process hangs"
    return codes


def free_port() -> int:
    """A TCP port on which nothing listens now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _train(recipe: Path, out: Path, resume: bool, rank: int, processes: int, port: int, hook: Hook | None) -> None:
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch

    from edgetune.errors import EdgetuneError
    from edgetune.recipe.load import load_recipe
    from edgetune.training import saving
    from edgetune.training.run import train

    torch.set_num_threads(1)
    gc.freeze()  # the trainer's garbage collections pass over what was imported
    saving.plot_training = lambda *_, **__: None  # plots take as long as all else, and have tests of their own
    if hook is not None:
        hook()
    try:
        train(load_recipe(str(recipe)), out, resume=resume)
    except EdgetuneError as problem:
        print(f"process {rank}: {problem}")
        os._exit(problem.exit_code)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def kill_this_process() -> None:
    """As the system does when memory runs out: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def rows(run: Path) -> list[dict[str, object]]:
    """metrics.jsonl without what differs from run to run: the times."""
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    timed = ("seconds", "tokens_per_second", "peak_memory_bytes")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in text.splitlines()]
