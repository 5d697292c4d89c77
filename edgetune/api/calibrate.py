"""`edgetune.calibrate`: may a judge judge? `estimate_calibration`: what asking it would cost."""

from __future__ import annotations

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
    from edgetune.judging.calibration.bars import Bars
    from edgetune.judging.calibration.run import calibrate_judge, load_gold
    from edgetune.judging.settings import Settings

    settings = Settings(max_cost_usd=max_cost, use_cache=cache, threads=threads)
    gold = load_gold(Path(on), rubric, grading=grading, limit=limit, seed=seed)
    certificate = None if out is None else Path(out)
    return calibrate_judge(judge, gold, Bars(kappa=min_kappa), settings, certificate, force=force)


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
    from edgetune.judging.calibration.run import estimate_calibration as estimate
    from edgetune.judging.calibration.run import load_gold
    from edgetune.judging.settings import Settings

    gold = load_gold(Path(on), rubric, grading=grading, limit=limit, seed=seed)
    return estimate(judge, gold, Settings(use_cache=cache))
