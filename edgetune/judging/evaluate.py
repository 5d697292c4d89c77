"""One model asked all items of a suite."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetune import console
from edgetune.errors import NumericalError
from edgetune.judging.items import Item
from edgetune.judging.subject import hash_file, open_subject
from edgetune.judging.suite import Suite
from edgetune.metrics.classification import ClassificationMetrics, measure_classification


@dataclass(frozen=True)
class ItemResult:
    """One item and what the model made of it.

    `predicted` is None when the answer could not be read. `log_probabilities` (nats, by label) come with likelihood
    scoring, `answer` with generated answers.
    """

    id: str
    where: str
    text: str
    gold: str
    predicted: str | None
    log_probabilities: dict[str, float] | None
    answer: str | None
    seconds: float

    @property
    def right(self) -> bool:
        """True when the prediction is the gold label."""
        return self.predicted == self.gold


@dataclass(frozen=True)
class Evaluation:
    """One model on one suite. `seconds` is the time for all items, without loading the model."""

    model: str
    sha256: str
    size_bytes: int
    seconds: float
    metrics: ClassificationMetrics
    items: tuple[ItemResult, ...]

    @property
    def name(self) -> str:
        """The model's file name."""
        return Path(self.model).name


def evaluate(suite: Suite, items: Sequence[Item], model: Path, *, threads: int | None = None) -> Evaluation:
    """Ask a GGUF model every item, with progress on stderr.

    Raises ModelError when it cannot be loaded, and NumericalError when it gives a log-probability that is no number.
    """
    results = []
    with open_subject(model, suite, threads=threads) as predict:
        started = time.perf_counter()
        with console.progress(f"asking {model.name}", total=len(items), unit="items") as progress:
            for item in items:
                asked = time.perf_counter()
                prediction = predict(item.messages)
                _check_finite(prediction.log_probabilities, item, model)
                results.append(
                    ItemResult(
                        id=item.id,
                        where=item.where,
                        text=item.text,
                        gold=item.gold,
                        predicted=prediction.label,
                        log_probabilities=prediction.log_probabilities,
                        answer=prediction.text,
                        seconds=time.perf_counter() - asked,
                    )
                )
                progress.advance()
        seconds = time.perf_counter() - started
    return Evaluation(
        model=str(model),
        sha256=hash_file(model),
        size_bytes=model.stat().st_size,
        seconds=seconds,
        metrics=measure_classification(
            [result.gold for result in results], [result.predicted for result in results], suite.labels
        ),
        items=tuple(results),
    )


def _check_finite(log_probabilities: dict[str, float] | None, item: Item, model: Path) -> None:
    for label, value in (log_probabilities or {}).items():
        if not math.isfinite(value):
            raise NumericalError(
                f"the log-probability of {label!r} at {item.where} is {value}",
                where=model,
                remedy="the file's weights are damaged; export it again",
            )
