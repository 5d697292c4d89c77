"""`edgetune.demo`: train, merge, export, judge against the untouched base, and chat, on the embedded model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune import events
from edgetune.api.export import export
from edgetune.api.judge import judge
from edgetune.api.merge import merge
from edgetune.api.public import PathLike, public
from edgetune.api.run import Run
from edgetune.api.train import train
from edgetune.data.prompt import fill_prompt
from edgetune.errors import OutputError
from edgetune.outputs import check_target
from edgetune.recipe.load import Overrides, load_recipe
from edgetune.runtime.model import load
from edgetune.usage import Stopwatch

if TYPE_CHECKING:
    from edgetune.judging.results.judgement import Judgement

RECIPE, SUITE = "demo", "sentiment-demo"
QUESTION = "Six months in, and it still starts first time, every time."
"""What the fine-tuned model is asked in the end; it is in neither half of the data."""

_MARKER = "demo.txt"


@dataclass(frozen=True)
class DemoReport:
    """What the demo made. `seconds` tells where the time went, by step; `files` sizes in bytes, by what they are."""

    folder: Path
    run: Run
    model: Path
    baseline: Path
    judgement: Judgement
    question: str
    answer: str
    files: dict[str, int]
    seconds: dict[str, float]


@public
def demo(out: PathLike = "demo", *, overrides: Overrides = (), force: bool = False) -> DemoReport:
    """Train, merge, export, judge and chat on the embedded model, into the folder `out`.

    `overrides` change the recipe "demo". Raises OutputError when `out` exists (without `force`) or holds something else
    than an earlier demo.
    """
    folder = Path(out)
    check_target(folder, force=force)
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARKER).exists():
        raise OutputError("holds something else than an earlier demo", where=folder, remedy="choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).write_text("Made by `edgetune demo`, which may replace everything in here.\n", encoding="utf-8")
    recipe = load_recipe(RECIPE, overrides)
    clock = Stopwatch()

    with _step(clock, "train"):
        run = train(recipe, out=folder / "run", force=True)
    with _step(clock, "merge"):
        merged = merge(run, out=folder / "merged", force=True)
    with _step(clock, "export"):
        tuned = export(run, out=folder / "demo-q4_k_m.gguf", force=True)
    with _step(clock, "export base"):
        base = export(recipe.base.model, out=folder / "base-q4_k_m.gguf", requantize=True, force=True)
    with _step(clock, "judge"):
        judgement = judge(SUITE, model=tuned, baseline=base, out=folder / "report", force=True)
    with _step(clock, "chat"):
        question = fill_prompt(recipe.data.prompt or "{text}", QUESTION)
        with load(tuned) as model:
            answer = model.chat(question, temperature=0, max_tokens=32).text

    files = {
        "adapter": sum(file.stat().st_size for file in run.adapter.glob("adapter_model*")),
        "merged safetensors": merged.bytes,
        "Q4_K_M, fine-tuned": tuned.bytes,
        "Q4_K_M, base": base.bytes,
    }
    return DemoReport(folder, run, tuned.path, base.path, judgement, question, answer, files, clock.seconds)


@contextmanager
def _step(clock: Stopwatch, name: str) -> Iterator[None]:
    """Announce a step of the demo and time it."""
    events.note(f"── {name}")
    with clock.phase(name):
        yield
