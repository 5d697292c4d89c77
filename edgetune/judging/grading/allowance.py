"""When a judge need not be asked any more: so many verdicts are unscored that it is invalid however the rest goes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Allowance:
    """Counts the unscored of all `verdicts` that a judge is to give, of which a share of `max_unscored` may be."""

    verdicts: int
    max_unscored: float
    unscored: int = 0

    @property
    def is_spent(self) -> bool:
        """True once even scored verdicts alone from here on would leave too many unscored."""
        return self.verdicts > 0 and self.unscored / self.verdicts > self.max_unscored


@dataclass
class Stop:
    """Shared by the judges of a panel: `judge` names the one whose allowance is spent, which invalidates all."""

    judge: str | None = None
