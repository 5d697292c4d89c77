"""`edgetune.judge`: may a model replace its baseline? `estimate_judging`: what asking its judges would cost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from edgetune.api.public import PathLike, public
from edgetune.errors import UsageError

if TYPE_CHECKING:
    from edgetune.judging.costs_ahead import CostsAhead
    from edgetune.judging.results.judgement import Judgement
    from edgetune.judging.settings import Settings
    from edgetune.judging.show import SideBySide
    from edgetune.judging.suites.suite import Suite
    from edgetune.recipe.load import Named
    from edgetune.runtime.model import Model


Candidate: TypeAlias = "PathLike | Model"
"""A model under test: a path, hub id or address, or a loaded model, which stands for its file."""


@public
def judge(
    suite: Named | Suite,
    *,
    model: Candidate,
    baseline: Candidate | None = None,
    judge: str | Sequence[str] = (),
    out: PathLike | None = None,
    inconclusive: Literal["fail", "warn", "pass"] = "fail",
    max_cost: float | None = None,
    cache: bool = True,
    threads: int | None = None,
    force: bool = False,
) -> Judgement:
    """Measure a model on a suite and, with a baseline, decide whether it may replace it.

    `suite` is the name of one that ships, the path of a YAML file, a dict of what such a file says, or a `Suite`.
    `model` is a .gguf file, a loaded Model, a Run, a run directory, a model folder, a hub id, URL#MODEL of an endpoint
    or a file of outputs; `baseline` the same, or the report.json of an earlier run. `judge` names judges instead of the
    suite's own: shipped ones, YAML files, .gguf files or URL#MODEL. With `out`, the report is written to that folder.
    `max_cost` is in US dollars. Without `cache`, everything is asked anew and nothing remembered.
    Raises RecipeError, DataError, ModelError, UsageError or OutputError before any model is asked.
    """
    from edgetune.judging.run import judge_model
    from edgetune.judging.suites.suite import load_suite

    settings = _settings(judge, max_cost=max_cost, cache=cache, threads=threads, inconclusive=inconclusive)
    folder = None if out is None else Path(out)
    return judge_model(load_suite(suite), *_references(model, baseline), folder, settings=settings, force=force)


@public
def estimate_judging(
    suite: Named | Suite,
    *,
    model: Candidate,
    baseline: Candidate | None = None,
    judge: str | Sequence[str] = (),
    max_cost: float | None = None,
    cache: bool = True,
    threads: int | None = None,
) -> CostsAhead:
    """What `judge` would cost. No judge and no model is asked: answers that are not remembered are assumed."""
    from edgetune.judging.costs_ahead import estimate_costs
    from edgetune.judging.suites.suite import load_suite

    settings = _settings(judge, max_cost=max_cost, cache=cache, threads=threads)
    return estimate_costs(load_suite(suite), *_references(model, baseline), settings)


@public
def side_by_side(
    first: Candidate,
    second: Candidate,
    *,
    prompt: str | Sequence[str] = (),
    suite: Named | Suite = "first-look",
    limit: int | None = None,
    threads: int | None = None,
) -> tuple[SideBySide, ...]:
    """What two models write on the same questions: those of `prompt`, or the first `limit` of the suite."""
    from edgetune.judging.show import questions_of, show_side_by_side
    from edgetune.judging.suites.suite import load_suite

    loaded = load_suite(suite)
    questions = questions_of([prompt] if isinstance(prompt, str) else prompt, loaded, limit)
    return show_side_by_side(loaded, questions, reference_of(first), reference_of(second), threads=threads)


def reference_of(model: Candidate) -> str:
    """The path, hub id or address of a model under test; of a loaded one, its file. Raises UsageError for no model."""
    reference = getattr(model, "path", model) if not isinstance(model, str) else model
    if not isinstance(reference, str | os.PathLike):
        raise UsageError(f"{model!r} is no model", remedy="give a path, a hub id, URL#MODEL, a Run or a loaded model")
    return os.fspath(reference)


def _references(model: Candidate, baseline: Candidate | None) -> tuple[str, str | None]:
    return reference_of(model), None if baseline is None else reference_of(baseline)


def _settings(
    judge: str | Sequence[str],
    *,
    max_cost: float | None,
    cache: bool,
    threads: int | None,
    inconclusive: Literal["fail", "warn", "pass"] = "fail",
) -> Settings:
    from edgetune.judging.settings import Settings

    judges = (judge,) if isinstance(judge, str) else tuple(judge)
    return Settings(judges, max_cost_usd=max_cost, use_cache=cache, threads=threads, inconclusive=inconclusive)
