"""The whole way on the embedded model: train, merge, export, judge against the untouched base, and one chat answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgetune import events
from edgetune.data.prompt import fill_prompt
from edgetune.errors import OutputError
from edgetune.gguf.write import export
from edgetune.judging.results.judgement import Judgement
from edgetune.judging.run import judge_model
from edgetune.judging.suites.suite import load_suite
from edgetune.measure import Stopwatch
from edgetune.outputs import check_target
from edgetune.recipe.load import load_recipe
from edgetune.training.run import train
from edgetune.training.summary import Summary
from edgetune.weights.merge import merge
from edgetune.weights.source import resolve_source

RECIPE, SUITE = "demo", "sentiment-demo"
QUESTION = "Six months in, and it still starts first time, every time."
"""What the fine-tuned model is asked in the end; it is in neither half of the data."""

_MARKER = "demo.txt"


@dataclass(frozen=True)
class DemoReport:
    """What the demo made. `seconds` tells where the time went, by step; `files` sizes in bytes, by what they are."""

    folder: Path
    model: Path
    baseline: Path
    summary: Summary
    judgement: Judgement
    question: str
    answer: str
    files: dict[str, int]
    seconds: dict[str, float]


def run_demo(folder: Path, *, force: bool = False, overrides: Sequence[str] = ()) -> DemoReport:
    """Do everything that the README shows, into `folder`. `overrides` change the demo recipe.

    Raises OutputError when `folder` exists (without `force`) or holds something else than an earlier demo.
    """
    check_target(folder, force=force)
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARKER).exists():
        raise OutputError("holds something else than an earlier demo", where=folder, remedy="choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).write_text("Made by `edgetune demo`, which may replace everything in here.\n", encoding="utf-8")
    run, merged = folder / "run", folder / "merged"
    tuned, base = folder / "demo-q4_k_m.gguf", folder / "base-q4_k_m.gguf"
    recipe = load_recipe(RECIPE, overrides)
    clock = Stopwatch()

    with _step(clock, "train"):
        summary = train(recipe, run, force=True)
    with _step(clock, "merge"):
        merged_bytes = merge(resolve_source(str(run)), merged, force=True).bytes
    with _step(clock, "export"):
        tuned_bytes = export(resolve_source(str(run)), tuned, force=True).bytes
    with _step(clock, "export base"):
        base_bytes = export(resolve_source(recipe.base.model), base, requantize=True, force=True).bytes
    with _step(clock, "judge"):
        judgement = judge_model(load_suite(SUITE), tuned, base, folder / "report", force=True)
    with _step(clock, "chat"):
        question = fill_prompt(recipe.data.prompt or "{text}", QUESTION)
        answer = _ask_once(tuned, question)

    files = {
        "adapter": sum(file.stat().st_size for file in (run / "adapter").glob("adapter_model*")),
        "merged safetensors": merged_bytes,
        "Q4_K_M, fine-tuned": tuned_bytes,
        "Q4_K_M, base": base_bytes,
    }
    return DemoReport(folder, tuned, base, summary, judgement, question, answer, files, clock.seconds)


def _ask_once(model: Path, question: str) -> str:
    from edgetune.runtime.chat import Conversation
    from edgetune.runtime.sampling import Sampling
    from edgetune.runtime.session import Session

    with Session.open(model) as session:
        conversation = Conversation(session, system=None, sampling=Sampling(temperature=0), max_tokens=32)
        return "".join(conversation.ask(question))


@contextmanager
def _step(clock: Stopwatch, name: str) -> Iterator[None]:
    """Announce a step of the demo and time it."""
    events.note(f"── {name}")
    with clock.phase(name):
        yield
