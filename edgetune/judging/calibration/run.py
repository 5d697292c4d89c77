"""A calibration from end to end: what `edgetune judge calibrate` does, for Python."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from edgetune.judging.asking.asker import Asker
from edgetune.judging.asking.cost import Budget, CostEstimate, estimate
from edgetune.judging.calibration.bars import Bars
from edgetune.judging.calibration.calibrate import Calibration, Grading, calibrate, calibration_requests
from edgetune.judging.calibration.certificate import write_certificate
from edgetune.judging.calibration.gold import GoldSet
from edgetune.judging.calibration.read import read_gold
from edgetune.judging.settings import Settings, check_judges, opened_cache
from edgetune.judging.suites.judge_file import Judge, load_judge
from edgetune.judging.suites.rubric import Rubric, load_rubric
from edgetune.outputs import check_target


@dataclass(frozen=True)
class Gold:
    """The data and settings of a calibration: people's votes, the rubric, and the way of grading."""

    sets: tuple[GoldSet, ...]
    rubric: Rubric
    grading: Grading


def load_gold(
    data: Path, rubric: str, *, grading: Grading = "pairwise", limit: int | None = None, seed: int = 0
) -> Gold:
    """Read people's votes from a file or a folder of files. Raises DataError or RecipeError."""
    return Gold(read_gold(data, limit, seed), load_rubric(rubric), grading)


def calibrate_judge(
    reference: str, gold: Gold, bars: Bars, settings: Settings, out: Path | None = None, *, force: bool = False
) -> Calibration:
    """Measure a judge against people; with `out`, the certificate is written there, even if the judge failed.

    Raises UsageError, RecipeError, ModelError or OutputError before the judge is asked. Its answers are cached.
    """
    if out is not None:
        check_target(out, force=force)
    judge = load_judge(reference)
    check_judges([judge], settings)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    with opened_cache(settings) as cache:
        asker = Asker(judge, cache=cache, budget=Budget(settings.max_cost_usd), threads=settings.threads)
        measured = calibrate(judge, gold.sets, gold.rubric, asker, created=created, grading=gold.grading, bars=bars)
        calibration = replace(measured, costs=asker.costs)
    if out is not None:
        write_certificate(calibration, out, force=force)
    return calibration


def estimate_calibration(reference: str, gold: Gold, settings: Settings) -> CostEstimate:
    """An estimate of a calibration's cost, without asking the judge."""
    judge: Judge = load_judge(reference)
    with opened_cache(settings) as cache:
        return estimate(calibration_requests(gold.sets, gold.rubric, judge.repeats, gold.grading), judge, cache)
