"""A training that is killed anywhere and resumed is, bit for bit, one that never was."""

from __future__ import annotations

import errno
import importlib
import itertools
import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.children import kill_this_process, rows, train_in_children
from support.tiny_tasks import LABELS, PROMPT, save_tiny, write_rows

from edgetune.errors import OutputError, UsageError
from edgetune.recipe.load import load_recipe
from edgetune.training.run_directory import COMPLETE, RunDirectory

KILLED = [-signal.SIGKILL]

VARIANTS: dict[str, dict[str, Any]] = {
    "dropout and accumulation": {"method": {"type": "lora", "rank": 4, "dropout": 0.2}, "train": {"save_every": 3}},
    "16 bits": {"base": {"dtype": "bfloat16"}, "train": {"adapter_dtype": "bfloat16"}},
    "batches by length": {"train": {"group_by_length": True, "accumulate": 3, "schedule": "cosine", "warmup_steps": 3}},
    "adalora": {"method": {"type": "adalora", "init_rank": 6, "target_rank": 2, "dropout": 0.1}},
    "every weight": {"method": {"type": "full"}, "train": {"learning_rate": 1e-3, "eval_every": 6}},
}
"""What a checkpoint has to hold beyond the weights. 24 texts by 4 are 6 updates an epoch, and 12 in all."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("durable")
    save_tiny("LlamaForCausalLM", folder / "llama")
    write_rows(folder / "rows.jsonl")
    for name, changes in VARIANTS.items():
        values = {
            "name": "tiny",
            "task": "classify",
            "base": {"model": str(folder / "llama"), "dtype": "float32"} | changes.get("base", {}),
            "data": {
                "train": [{"source": "rows.jsonl", "format": "text-label"}],
                "eval": [{"source": "rows.jsonl", "format": "text-label"}],
                "labels": list(LABELS),
                "prompt": PROMPT,
            },
            "method": changes.get("method", {"type": "lora", "rank": 4}),
            "train": {"epochs": 2, "batch_size": 2, "accumulate": 2, "learning_rate": 1e-2, "eval_every": 5}
            | changes.get("train", {}),
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder


def train_steadily(
    recipe: Path, run: Path, *, resume: bool = False, hook: Callable[[], None] | None = None
) -> list[int]:
    return train_in_children(recipe, run, resume=resume, hook=partial(fix_kernels, hook))


def fix_kernels(then: Callable[[], None] | None) -> None:
    """Each process measures which of two kernels is quicker; they add in different orders, and a tiny model is too
    small for a steady answer."""
    from edgetune.training import frozen_linear

    frozen_linear._gain = lambda weight: 1.0
    if then is not None:
        then()


def train_whole(folder: Path, variant: str) -> Path:
    """The run that nothing happens to, trained once."""
    run = folder / f"whole {variant}"
    if not run.exists():
        assert train_steadily(folder / f"{variant}.yaml", run) == [0]
    return run


def assert_same_run(run: Path, whole: Path) -> None:
    """Rows without times, weights and summary are the same to the last bit."""
    assert rows(run) == rows(whole)
    (weights,) = [*whole.glob("adapter/*.safetensors"), *whole.glob("model/*.safetensors")]
    assert (run / weights.relative_to(whole)).read_bytes() == weights.read_bytes()
    summaries = [json.loads((path / "summary.json").read_text(encoding="utf-8")) for path in (run, whole)]
    for summary in summaries:
        for timed in ("train_seconds", "seconds_per_epoch", "tokens_per_second", "peak_memory_bytes"):
            assert summary.pop(timed) > 0
    assert summaries[0] == summaries[1]


def trap(place: str, call: int, *, after: bool = False, act: Callable[..., None] | None = None) -> None:
    """Kill this process before (or `after`) the numbered call of `place`, module:path; first `act` on its arguments."""
    module, path = place.split(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original, calls = getattr(owner, name), itertools.count(1)

    def trapped(*arguments: Any, **options: Any) -> Any:
        caught = next(calls) == call
        if caught and not after:
            if act is not None:
                act(*arguments, **options)
            kill_this_process()
        result = original(*arguments, **options)
        if caught:
            kill_this_process()
        return result

    setattr(owner, name, trapped)


def lose_part_of_the_oldest(checkpoints: str, limit: int) -> None:
    oldest = min(Path(checkpoints).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    (oldest / "optimizer.pt").unlink()


def write_half_a_row(telemetry: Any, *, step: int, **_: Any) -> None:
    telemetry._file.write(f'{{"step": {step}, "lo')
    telemetry._file.flush()


def steps_of_checkpoints(run: Path) -> list[int]:
    return sorted(int(folder.name.split("-")[1]) for folder in (run / "checkpoints").glob("checkpoint-*"))


def fill_the_disk() -> None:
    """There is no room for the rest of the row of step 11."""
    from edgetune.training.telemetry import Telemetry

    log = Telemetry.log

    def log_until_the_disk_is_full(self: Telemetry, *, step: int, **rest: Any) -> None:
        if step == 11:
            write_half_a_row(self, step=step)
            raise OSError(errno.ENOSPC, "No space left on device")
        log(self, step=step, **rest)

    setattr(Telemetry, "log", log_until_the_disk_is_full)  # noqa: B010


FULL = [OutputError.exit_code]

CHAIN: list[tuple[str, Callable[[], None], list[int], list[int]]] = [
    (
        "between the two batches of update 5",
        partial(trap, "edgetune.training.trainer:ObjectiveTrainer.compute_loss", 9, after=True),
        KILLED,
        [3],
    ),
    ("between writing a checkpoint and renaming it", partial(trap, "edgetune.outputs:_replace_folder", 1), KILLED, [3]),
    (
        "while an old checkpoint is deleted",
        partial(trap, "edgetune.training.checkpoints:rotate_checkpoints", 2, act=lose_part_of_the_oldest),
        KILLED,
        [3, 6, 9],
    ),
    ("the disk is full in the middle of a row of metrics.jsonl", fill_the_disk, FULL, [3, 6, 9]),
    ("after the last update", partial(trap, "edgetune.training.saving:summarize", 1), KILLED, [9, 12]),
]
"""Moments, how each is brought about, what the process ends with, and the checkpoints that are there then.

Each training goes on where the one before ended.
"""


def test_a_run_that_ends_early_at_every_kind_of_moment_equals_one_that_did_not(folder: Path):
    variant = "dropout and accumulation"
    recipe, run = folder / f"{variant}.yaml", folder / "killed"
    for number, (moment, hook, ended, kept) in enumerate(CHAIN):
        assert train_steadily(recipe, run, resume=number > 0, hook=hook) == ended, moment
        assert steps_of_checkpoints(run) == kept, moment
        assert not (run / "summary.json").exists(), moment
    assert train_steadily(recipe, run, resume=True) == [0]
    assert_same_run(run, train_whole(folder, variant))
    assert not [*(run / "checkpoints").glob(".*")], "nothing half-written is left"


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant != "dropout and accumulation"])
def test_every_way_of_training_goes_on_exactly(folder: Path, variant: str):
    run = folder / f"killed {variant}"
    hook = partial(trap, "edgetune.training.trainer:ObjectiveTrainer.compute_loss", 15)
    assert train_steadily(folder / f"{variant}.yaml", run, hook=hook) == KILLED
    assert train_steadily(folder / f"{variant}.yaml", run, resume=True) == [0]
    assert_same_run(run, train_whole(folder, variant))


def test_no_step_is_evaluated_twice(folder: Path):
    run = train_whole(folder, "every weight")  # whose evaluations after updates 6 and 12 end epochs
    assert [row["step"] for row in rows(run) if "eval_loss" in row] == [6, 12]


def test_a_finished_run_has_nothing_to_resume(folder: Path):
    whole = RunDirectory(train_whole(folder, "dropout and accumulation"))
    with pytest.raises(OutputError, match="this run is finished"):
        whole.check_resumable(load_recipe(str(whole.recipe)), processes=1)


def test_two_trainings_do_not_share_a_folder(tmp_path: Path):
    run = RunDirectory(tmp_path / "runs" / "one")
    with run.locked():
        with pytest.raises(OutputError, match=r"another training is running here \(process \d+\); wait"), run.locked():
            pass
        with RunDirectory(tmp_path / "runs" / "two").locked():
            pass
    with run.locked():  # free again
        pass
    assert not [*(tmp_path / "runs").iterdir()]


@pytest.mark.parametrize("before", [1, 2])
def test_another_number_of_processes_cannot_go_on(folder: Path, tmp_path: Path, before: int):
    recipe = load_recipe(str(folder / "adalora.yaml"))
    run = RunDirectory(tmp_path / "run")
    run.start(recipe)
    checkpoint = run.checkpoints / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    for number in range(before):
        (checkpoint / (f"rng_state_{number}.pth" if before > 1 else "rng_state.pth")).touch()
    (checkpoint / COMPLETE).write_text("0", encoding="utf-8")
    assert run.check_resumable(recipe, processes=before) == checkpoint
    with pytest.raises(UsageError, match=rf"trained by {before} process.*resume with --processes {before}"):
        run.check_resumable(recipe, processes=3)


def test_the_newest_complete_checkpoint_is_the_one_to_go_on_from(tmp_path: Path):
    run = RunDirectory(tmp_path)
    for step, complete in ((9, True), (10, True), (11, False)):
        (run.checkpoints / f"checkpoint-{step}").mkdir(parents=True)
        if complete:
            (run.checkpoints / f"checkpoint-{step}" / COMPLETE).write_text("0", encoding="utf-8")
    assert run.last_checkpoint() == run.checkpoints / "checkpoint-10"


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path: Path):
    run = RunDirectory(tmp_path)
    kept = '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n'
    run.metrics.write_text(kept, encoding="utf-8")
    checkpoint = run.checkpoints / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    run.seal(checkpoint)
    with run.metrics.open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "eval_loss": 1.0}\n{"step": 3, "lo')
    assert [row["step"] for row in run.read_metrics()] == [1, 2, 2]
    (run.checkpoints / ".checkpoint-4.abc.partial").mkdir()
    (run.checkpoints / "checkpoint-3").mkdir()
    run.rewind(checkpoint)
    assert run.metrics.read_text(encoding="utf-8") == kept
    assert [*run.checkpoints.iterdir()] == [checkpoint]
