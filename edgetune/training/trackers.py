"""Experiment trackers beside metrics.jsonl: each gets the same rows, and the recipe as its configuration.

Rows are named as Transformers' own integrations name them (train/loss, eval/loss). A resumed run opens its trackers
anew and sends them the rows so far, so that each shows one whole curve. What a tracker cannot take never stops a
training: the user is told once, and metrics.jsonl has it anyway.
"""

from __future__ import annotations

import contextlib
import io
import netrc
import os
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from edgetune import events
from edgetune.errors import MissingComponent
from edgetune.keys import find_key
from edgetune.recipe.load import dump_recipe
from edgetune.recipe.schema import Recipe

PROJECT = "edgetune"
"""Under this name wandb and trackio collect runs, unless WANDB_PROJECT says otherwise."""

_WANDB_LOGINS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
_WANDB_UNSENT = ("offline", "disabled", "dryrun")
"""Values of WANDB_MODE with which wandb needs no account."""


class Tracker(Protocol):
    """What a tracker's library is reduced to."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take the values of one row."""

    def close(self) -> None:
        """Write out what was taken."""


class TensorBoard:
    """Event files in RUN/tensorboard: `tensorboard --logdir RUN`."""

    def __init__(self, recipe: Recipe, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))
        self._writer.add_text("recipe", f"```yaml\n{dump_recipe(recipe)}```")

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """Weights & Biases. Without an account or with WANDB_MODE=offline its files wait in RUN/wandb for `wandb sync`."""

    def __init__(self, recipe: Recipe, run: Path) -> None:
        import wandb

        key = _wandb_key_of_file()
        offline = key is None and not _has_wandb_login()
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=recipe.name,
            dir=str(run),
            config=recipe.model_dump(mode="json"),
            mode="offline" if offline and "WANDB_MODE" not in os.environ else None,
            # wandb writes a key that is given here neither into ~/.netrc nor into the run.
            settings=wandb.Settings(silent=True, console="off", **({} if key is None else {"api_key": key})),
            reinit="create_new",
        )
        if self._run.offline:
            events.note(f"wandb writes to {run / 'wandb'}; send it with: wandb sync {Path(self._run.dir).parent}")
        else:
            events.note(f"wandb: {self._run.url}")

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """Trackio's local database: `trackio show --project edgetune`. TRACKIO_DIR says where it lies."""

    def __init__(self, recipe: Recipe, run: Path) -> None:
        import trackio

        self._library = trackio
        self._project = os.environ.get("WANDB_PROJECT", PROJECT)
        # Its notes go to stdout, which belongs to results.
        with contextlib.redirect_stdout(io.StringIO()):
            self._run = trackio.init(
                project=self._project, name=recipe.name, config=recipe.model_dump(mode="json"), embed=False
            )
        events.note(f"trackio: see it with: trackio show --project {self._project}")

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._library.finish()


TRACKERS: dict[str, Callable[[Recipe, Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": Trackio,
}


class Trackers:
    """All trackers of a recipe. Use as a context manager around the training."""

    def __init__(self, recipe: Recipe, run: Path) -> None:
        self._recipe, self._path = recipe, run
        self._open: dict[str, Tracker] = {}

    def start(self, rows: Sequence[dict[str, Any]]) -> None:
        """Open them and send `rows`, which an earlier part of the run has logged."""
        for name in self._recipe.train.trackers:
            with self._unharmed(name):
                self._open[name] = TRACKERS[name](self._recipe, self._path)
        for row in rows:
            self.log(row)

    def log(self, row: dict[str, Any]) -> None:
        """Send one row of metrics.jsonl."""
        values = {_public_name(key): value for key, value in row.items() if key != "step" and value is not None}
        for name, tracker in list(self._open.items()):
            with self._unharmed(name):
                tracker.log(row["step"], values)

    def close(self) -> None:
        """Let each write out what it has."""
        for name, tracker in list(self._open.items()):
            with self._unharmed(name):
                tracker.close()
        self._open.clear()

    @contextlib.contextmanager
    def _unharmed(self, name: str) -> Any:
        try:
            yield
        except Exception as problem:
            self._open.pop(name, None)
            reason = str(problem).strip().split("\n")[0] or type(problem).__name__
            events.warn(f"{name} cannot be used any more ({reason}); training goes on, metrics.jsonl has every row")


def check_trackers(recipe: Recipe) -> None:
    """Raise, before any work, when the recipe asks for a tracker that cannot be used.

    That is MissingComponent for one that is not installed, and UsageError where wandb's key cannot be read from .env.
    """
    for name in recipe.train.trackers:
        if find_spec(name) is None:
            raise MissingComponent(
                f"train.trackers asks for {name}, which is not installed",
                remedy=f"run: pip install {name} (or all trackers: pip install 'edgetune[track]')",
            )
    if "wandb" in recipe.train.trackers:
        _wandb_key_of_file()


def _public_name(key: str) -> str:
    return f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}"


def _wandb_key_of_file() -> str | None:
    """wandb's key in .env; None where the environment has a login of its own, or nothing is to be sent."""
    if any(name in os.environ for name in _WANDB_LOGINS) or os.environ.get("WANDB_MODE") in _WANDB_UNSENT:
        return None
    return find_key("WANDB_API_KEY")


def _has_wandb_login() -> bool:
    """True when wandb would find an account by itself, without asking for one."""
    if any(os.environ.get(name) for name in _WANDB_LOGINS):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host is not None and netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
