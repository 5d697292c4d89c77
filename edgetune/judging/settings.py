"""Settings of a judgement beside its suite and models."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import get_args

from edgetune.errors import UsageError
from edgetune.judging.asking.cache import AnswerCache
from edgetune.judging.asking.cost import require_price
from edgetune.judging.results.judgement import Inconclusive
from edgetune.judging.suites.judge_file import EndpointJudge, Judge


@dataclass(frozen=True)
class Settings:
    """`judges` stand in for the suite's own; `threads` None are the physical cores.

    `inconclusive` says what exit code the verdict INCONCLUSIVE has: 3 (fail), 0 with a warning (warn), or 0 (pass).
    Raises UsageError for another word there.
    """

    judges: tuple[str, ...] = ()
    max_cost_usd: float | None = None
    use_cache: bool = True
    threads: int | None = None
    inconclusive: Inconclusive = "fail"

    def __post_init__(self) -> None:
        known = get_args(Inconclusive)
        if self.inconclusive not in known:
            raise UsageError(f"inconclusive is {self.inconclusive!r}", remedy=f"give one of {', '.join(known)}")


DEFAULTS = Settings()


def opened_cache(settings: Settings) -> AbstractContextManager[AnswerCache | None]:
    """The cache of answers; None with `use_cache` off."""
    return AnswerCache() if settings.use_cache else nullcontext()


def check_judges(judges: Iterable[Judge], settings: Settings) -> None:
    """Raise UsageError or ModelError where a judge lacks its key, its file, or its price under a cap on the cost."""
    for judge in judges:
        if isinstance(judge, EndpointJudge):
            judge.read_key()
        else:
            judge.find_file()
        if settings.max_cost_usd is not None:
            require_price(judge)
