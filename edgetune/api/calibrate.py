"""`edgetune.calibrate`: may a judge judge? `estimate_calibration`: what asking it would cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgetune.api.public import PathLike, public

if TYPE_CHECKING:
    from edgetune.judging.asking.cost import CostEstimate
    from edgetune.judging.calibration.calibrate import Calibration


@public
def calibrate(
    judge: str,
    *,
    on: PathLike,
    rubric: str = "answer-quality",
    grading: Literal["pairwise", "pointwise"] = "pairwise",
    min_kappa: float = 0.4,
    out: PathLike | None = None,
    limit: int | None = None,
    seed: int = 0,
    max_cost: float | None = None,
    cache: bool = True,
    threads: int | None = None,
    force: bool = False,
) -> Calibration:
    """Measure a judge against people, and with `out` write the certificate that a gate can demand.

    `judge` is a shipped judge, a YAML file, a .gguf file or URL#MODEL; `on` holds people's votes, a file or a folder of
    files; `min_kappa` is the agreement beyond chance that the judge must reach. `limit` items are drawn with `seed`.
    Raises UsageError, RecipeError, DataError, ModelError or OutputError before the judge is asked.
    """
    from edgetune.judging.asking.asker import Asker
    from edgetune.judging.asking.cost import Budget
    from edgetune.judging.calibration.bars import Bars
    from edgetune.judging.calibration.calibrate import calibrate as measure
    from edgetune.judging.calibration.certificate import write_certificate
    from edgetune.judging.calibration.read import read_gold
    from edgetune.judging.settings import Settings, check_judges, opened_cache
    from edgetune.judging.suites.judge_file import load_judge
    from edgetune.judging.suites.rubric import load_rubric
    from edgetune.outputs import check_target

    settings = Settings(max_cost_usd=max_cost, use_cache=cache, threads=threads)
    votes, criteria = read_gold(Path(on), limit, seed), load_rubric(rubric)
    if out is not None:
        check_target(Path(out), force=force)
    loaded = load_judge(judge)
    check_judges([loaded], settings)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    with opened_cache(settings) as answers:
        asker = Asker(loaded, cache=answers, budget=Budget(max_cost), threads=threads)
        bars = Bars(kappa=min_kappa)
        measured = measure(loaded, votes, criteria, asker, created=created, grading=grading, bars=bars)
    calibration = replace(measured, costs=asker.costs)
    if out is not None:
        write_certificate(calibration, Path(out), force=force)
    return calibration


@public
def estimate_calibration(
    judge: str,
    *,
    on: PathLike,
    rubric: str = "answer-quality",
    grading: Literal["pairwise", "pointwise"] = "pairwise",
    limit: int | None = None,
    seed: int = 0,
    cache: bool = True,
) -> CostEstimate:
    """What `calibrate` would cost, without asking the judge anything."""
    from edgetune.judging.asking.cost import estimate
    from edgetune.judging.calibration.calibrate import calibration_requests
    from edgetune.judging.calibration.read import read_gold
    from edgetune.judging.settings import Settings, opened_cache
    from edgetune.judging.suites.judge_file import load_judge
    from edgetune.judging.suites.rubric import load_rubric

    votes, criteria, loaded = read_gold(Path(on), limit, seed), load_rubric(rubric), load_judge(judge)
    with opened_cache(Settings(use_cache=cache)) as answers:
        return estimate(calibration_requests(votes, criteria, loaded.repeats, grading), loaded, answers)
