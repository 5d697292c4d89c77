"""Experiment trackers beside metrics.jsonl: each gets the same rows, and the recipe as its configuration.

They are accelerate's trackers, because those take the step of each row: Transformers' callbacks let wandb and trackio
count the rows by themselves, so that a step with an evaluation counts twice and the x axis is no longer the step.

Values are named as in Transformers (train/loss, eval/loss). A resumed run opens new runs in its trackers and sends them
the earlier rows, so that each shows one whole curve. A tracker that fails never stops a training: the user gets one
warning, and metrics.jsonl has every row.
"""

from __future__ import annotations

import contextlib
import io
import netrc
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgetune import events
from edgetune.errors import MissingComponent, first_line_of
from edgetune.keys import find_key
from edgetune.recipe.load import dump_recipe
from edgetune.recipe.schema import Recipe

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

PROJECT = "edgetune"
"""The project in wandb and trackio, unless WANDB_PROJECT names another."""

_WANDB_LOGINS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
_WANDB_UNSENT = ("offline", "disabled", "dryrun")
"""Values of WANDB_MODE with which wandb needs no account."""


def open_tensorboard(recipe: Recipe, run: Path) -> GeneralTracker:
    """Event files in RUN/tensorboard: `tensorboard --logdir RUN`."""
    from accelerate.tracking import TensorBoardTracker

    shutil.rmtree(run / "tensorboard", ignore_errors=True)
    tracker = TensorBoardTracker("tensorboard", logging_dir=run)
    tracker.start()
    tracker.writer.add_text("recipe", f"```yaml\n{dump_recipe(recipe)}```")
    return tracker


def open_wandb(recipe: Recipe, run: Path) -> GeneralTracker:
    """Weights & Biases. Without an account or with WANDB_MODE=offline its files wait in RUN/wandb for `wandb sync`."""
    import wandb
    from accelerate.tracking import WandBTracker

    key = _wandb_key_of_file()
    offline = key is None and not _has_wandb_login()
    tracker = WandBTracker(
        _project(),
        name=recipe.name,
        dir=str(run),
        config=recipe.model_dump(mode="json"),
        mode="offline" if offline and "WANDB_MODE" not in os.environ else None,
        # wandb writes a key that is given here neither into ~/.netrc nor into the run.
        settings=wandb.Settings(silent=True, console="off", **({} if key is None else {"api_key": key})),
        reinit="create_new",
    )
    tracker.start()
    if tracker.run.offline:
        events.note(f"wandb writes to {run / 'wandb'}; send it with: wandb sync {Path(tracker.run.dir).parent}")
    else:
        events.note(f"wandb: {tracker.run.url}")
    return tracker


def open_trackio(recipe: Recipe, run: Path) -> GeneralTracker:
    """Trackio's local database, in the folder that TRACKIO_DIR names: `trackio show --project edgetune`."""
    import trackio
    from accelerate.tracking import TrackioTracker

    tracker = TrackioTracker(_project(), name=recipe.name, config=recipe.model_dump(mode="json"), embed=False)
    tracker.start()
    tracker.finish = trackio.finish  # a run that ends otherwise ends again at exit, with a line on stdout
    events.note(f"trackio: see it with: trackio show --project {_project()}")
    return tracker


TRACKERS: dict[str, Callable[[Recipe, Path], GeneralTracker]] = {
    "tensorboard": open_tensorboard,
    "wandb": open_wandb,
    "trackio": open_trackio,
}


class Trackers:
    def __init__(self, recipe: Recipe, run: Path) -> None:
        self._recipe, self._path = recipe, run
        self._open: dict[str, GeneralTracker] = {}

    def start(self, rows: Sequence[dict[str, Any]]) -> None:
        """Open them and send `rows`, which an earlier part of the run has logged."""
        for name in self._recipe.train.trackers:
            with self._guarded(name):
                self._open[name] = TRACKERS[name](self._recipe, self._path)
        for row in rows:
            self.log(row)

    def log(self, row: dict[str, Any]) -> None:
        from transformers.integrations.integration_utils import rewrite_logs

        values = rewrite_logs({key: value for key, value in row.items() if key != "step" and value is not None})
        for name, tracker in list(self._open.items()):
            with self._guarded(name):
                tracker.log(values, step=row["step"])

    def close(self) -> None:
        """Let each write what it has and end."""
        for name, tracker in list(self._open.items()):
            with self._guarded(name):
                tracker.finish()
        self._open.clear()

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """A failure inside ends this tracker with a warning. Trackio prints to stdout, which belongs to results."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except Exception as problem:
            self._open.pop(name, None)
            events.warn(
                f"{name} failed and gets no more rows ({first_line_of(problem)}); training continues, "
                "and metrics.jsonl has every row"
            )


def check_trackers(recipe: Recipe) -> None:
    """Raise MissingComponent, before any work, when a tracker or codecarbon is needed and not installed.

    Raises UsageError where wandb's key cannot be read from .env.
    """
    wanted = [(name, "train.trackers") for name in recipe.train.trackers]
    for name, field in (*wanted, *recipe.train.energy * [("codecarbon", "train.energy")]):
        if find_spec(name) is None:
            raise MissingComponent(
                f"{field} needs {name}, which is not installed",
                remedy=f"run: pip install {name} (or all trackers: pip install 'edgetune[track]')",
            )
    if "wandb" in recipe.train.trackers:
        _wandb_key_of_file()


def _project() -> str:
    return os.environ.get("WANDB_PROJECT", PROJECT)


def _wandb_key_of_file() -> str | None:
    """wandb's key in .env; None where the environment has a login of its own, or nothing is sent."""
    if any(name in os.environ for name in _WANDB_LOGINS) or os.environ.get("WANDB_MODE") in _WANDB_UNSENT:
        return None
    return find_key("WANDB_API_KEY")


def _has_wandb_login() -> bool:
    """True when wandb finds an account without asking for one."""
    if any(os.environ.get(name) for name in _WANDB_LOGINS):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host is not None and netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
