"""The judge from end to end: what `edgetune judge` does, for Python."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from edgetune.errors import DataError
from edgetune.judging.baseline import read_baseline
from edgetune.judging.evaluate import evaluate
from edgetune.judging.gate import decide
from edgetune.judging.items import hash_items, read_items
from edgetune.judging.judgement import Judgement
from edgetune.judging.report import write_report
from edgetune.judging.statistics import count_pairs
from edgetune.judging.subject import check_subject
from edgetune.judging.suite import Suite
from edgetune.outputs import check_target


def judge_model(
    suite: Suite,
    model: Path,
    baseline: Path | None = None,
    out: Path | None = None,
    *,
    force: bool = False,
    threads: int | None = None,
) -> Judgement:
    """Measure `model` on the suite and, with a baseline, decide whether it may replace it.

    `baseline` is a GGUF file, or the report.json of an earlier run that judged it on the same suite. With `out` the
    report is written there, complete or not at all. What can be refused is refused before any model is asked: raises
    DataError, ModelError, UsageError or OutputError.
    """
    if out is not None:
        check_target(out, force=force)
    items = read_items(suite)
    hashes = {**suite.hashes(), "data": hash_items(items)}
    check_subject(model)
    measured = None
    if baseline is not None:
        if len(items) < 2:
            raise DataError(
                f"suite {suite.name} has {len(items)} item, and a comparison needs at least 2",
                where=suite.data[0].source,
            )
        if baseline.suffix == ".json":
            measured = read_baseline(baseline, hashes, items)
        else:
            check_subject(baseline)
            measured = evaluate(suite, items, baseline, threads=threads)
    candidate = evaluate(suite, items, model, threads=threads)
    verdict = None
    if measured is not None:
        counts = count_pairs([item.right for item in candidate.items], [item.right for item in measured.items])
        verdict = decide(counts, suite.gate, same_model=candidate.sha256 == measured.sha256)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    judgement = Judgement(suite, hashes, created, candidate, measured, verdict)
    if out is not None:
        write_report(judgement, out, force=force)
    return judgement
