"""How often the gate is wrong, and what it finds: simulated with a seed.

    python benchmarks/false_alarms.py [--quick] [--seed 0] [--only TABLE ...]

Each row is one kind of data, drawn many times. The first tables draw candidate and baseline alike, so every alarm is a
false one: `p < 0.05` counts both directions (nominal 5 %), REGRESSION only losses of at least the margin (nominal 2.5
%). `coverage` counts the intervals that hold the true difference (nominal 95 %), `too high` those that lie above it,
and so could let a candidate pass that lost the margin (nominal 2.5 %). Others draw a candidate that lost exactly the
margin, so every PASS is a false one. Ends with exit code 1 when false alarms of scores or accuracy reach 6.5 % in any
row, when from 50 items (or 10 clusters) on such a candidate passes in more than 3 % of the runs, and when a planted
loss of half a grade is found in fewer than 80 % of them; simulation errors (two standard errors) aside.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from simulated import (
    ACCURACY_MARGIN,
    Sides,
    Values,
    aggregates_of,
    draw_accuracy_loss,
    draw_clusters,
    draw_collapse,
    draw_f1,
    draw_fallen_clusters,
    draw_grade_loss,
    draw_grades,
    draw_lost_answers,
    draw_normal,
    draw_outliers,
    draw_perplexity,
    draw_right,
    draw_skewed,
    draw_tied,
    pairing_of,
    score_of,
    truth_of,
)

from edgetune.judging.gate.comparison import Outcome
from edgetune.judging.gate.gate import decide
from edgetune.judging.results.prepared import GRADE_MARGIN
from edgetune.judging.statistics.bootstrap import bca_interval, bootstrap_p, resample
from edgetune.judging.statistics.bounded import bounded_interval
from edgetune.judging.statistics.evidence import interval_of_aggregates
from edgetune.judging.statistics.intervals import Interval
from edgetune.judging.statistics.quantity import Pairing
from edgetune.judging.statistics.scores import Mean, t_interval
from edgetune.judging.suites.suite import Gate
from edgetune.metrics.units import SCALES

GATE = Gate()
LIMIT = 0.065
"""For false alarms; quick runs are allowed two of their standard errors more."""

RULED_OUT = 0.03
"""Of losses that are ruled out although they are there; two standard errors more are allowed."""

RULED_OUT_FROM = 50

FOUND = 0.8
SIZES = (20, 50, 200)
Differences = Callable[[np.random.Generator, int], Values]


@dataclass
class Tally:
    """What happened in the runs of one row."""

    alarms: list[bool] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    covered: list[bool] = field(default_factory=list)
    too_high: list[bool] = field(default_factory=list)

    def add(self, pairing: Pairing, truth: float) -> None:
        """One run through the gate."""
        found = decide([pairing], GATE).comparisons[0]
        self.outcomes.append(found.outcome)
        self.note(found.p_value, found.interval, truth)

    def note(self, p_value: float, interval: Interval, truth: float) -> None:
        """One run's test and interval."""
        self.alarms.append(p_value < 0.05)
        self.covered.append(interval.lower - 1e-12 <= truth <= interval.upper + 1e-12)
        self.too_high.append(interval.lower - 1e-12 > truth)

    def share(self, outcome: Outcome) -> float:
        """Of all runs, those with this outcome."""
        return self.outcomes.count(outcome) / len(self.outcomes)

    def cells(self) -> list[str]:
        """The row's figures."""
        regressions = f"{self.share(Outcome.REGRESSION):.1%}" if self.outcomes else ""
        shares = (np.mean(self.alarms), np.mean(self.covered), np.mean(self.too_high))
        alarms, covered, too_high = (f"{share:.1%}" for share in shares)
        return [alarms, regressions, covered, too_high]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs, in seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), help="the tables to draw")
    options = parser.parse_args()
    runs = 300 if options.quick else 3000
    # Each table has a seed of its own, so that it does not depend on which others are drawn.
    seeds = dict(zip(TABLES, np.random.SeedSequence(options.seed).spawn(len(TABLES)), strict=True))
    failures = []
    for name in options.only:
        draw, part = TABLES[name]
        failures += [*draw(seeds[name], runs // part)]
    for failure in failures:
        print(f"FAILED: {failure}")
    sys.exit(bool(failures))


def compare_scores(seed: np.random.SeedSequence, runs: int) -> Iterator[str]:
    """Two equal models, graded; differences of several shapes, symmetric about zero."""
    heading("Scores, two equal models", ["data", "items", "p < 0.05", "REGRESSION", "coverage", "too high"])
    shapes: dict[str, Differences] = {
        "normal": draw_normal,
        "grades 1 to 5, most of them 4 or 5": draw_grades,
        "ties: 4 of 5 items the same": draw_tied,
        "heavy tails: 1 item in 20 far off": draw_outliers,
    }
    yield from alarms_of(seed, runs, shapes, "score")


def compare_accuracies(seed: np.random.SeedSequence, runs: int) -> Iterator[str]:
    """Two models that are equally often right, and differ on a share of the items."""
    heading("Accuracy, two equal models", ["data", "items", "p < 0.05", "REGRESSION", "coverage", "too high"])
    shapes: dict[str, Differences] = {
        f"{share:.0%} of items differ": partial(draw_right, differing=share) for share in (0.02, 0.1, 0.3, 0.6)
    }
    yield from alarms_of(seed, runs, shapes, "accuracy")


def compare_clusters(seed: np.random.SeedSequence, runs: int) -> Iterator[str]:
    """Equal models on items that come in clusters of 1 to 9, alike within a cluster."""
    heading(
        "Clusters of 1 to 9 items that are alike, two equal models",
        ["data", "clusters", "p < 0.05", "REGRESSION", "coverage", "too high"],
    )
    generator = np.random.default_rng(seed)
    for kind in ("score", "accuracy"):
        for clusters in (10, 20, 50):
            tally, ignoring = Tally(), Tally()
            for _ in range(runs):
                pairing = draw_clusters(generator, kind, clusters)
                tally.add(pairing, 0.0)
                ignoring.add(replace(pairing, clusters=None), 0.0)
            row([kind, clusters, *tally.cells()])
            row([f"{kind}, clusters not named", clusters, *ignoring.cells()])
            if too_many(tally):
                yield f"{kind} in {clusters} clusters: {np.mean(tally.alarms):.1%} false alarms"


def find_planted_losses(seed: np.random.SeedSequence, runs: int) -> Iterator[str]:
    """A candidate that truly lost half a grade, 100 items."""
    heading("A loss of half a grade, 100 items", ["noise of an item (SD)", "REGRESSION", "PASS"])
    generator = np.random.default_rng(seed)
    for spread in (1.0, 1.25, 1.5):
        tally = Tally()
        for _ in range(runs):
            tally.add(score_of(np.round(generator.normal(-0.5, spread, 100) * 2) / 2), -0.5)
        found = tally.share(Outcome.REGRESSION)
        row([spread, f"{found:.1%}", f"{tally.share(Outcome.PASS):.1%}"])
        if found < FOUND:
            yield f"half a grade lost, noise {spread}: found in {found:.1%}"


def compare_lost_grades(seed: np.random.SeedSequence, runs: int) -> Iterator[str]:
    """Losses that are anything but symmetric: some answers collapse, the others stay as they are."""
    heading(
        "Some answers lose 1 to 4 grades, the others nothing",
        ["losers", "items", "p < 0.05", "REGRESSION", "coverage", "too high"],
    )
    generator = np.random.default_rng(seed)
    for share in (0.05, 0.1, 0.2):
        for items in SIZES:
            tally = Tally()
            for _ in range(runs):
                losses = generator.integers(1, 5, items) * (generator.random(items) < share)
                tally.add(score_of(-losses.astype(float)), -2.5 * share)
            row([f"{share:.0%}", items, *tally.cells()])
            if items >= RULED_OUT_FROM:
                yield from ruled_out_too_often(tally.too_high, f"{share:.0%} of {items} answers lose 1 to 4 grades")


def pass_lost_margins(seed: np.random.SeedSequence, runs: int) -> Iterator[str]:
    """A candidate that lost exactly the margin, by losses that are as rare and as large as they can be."""
    heading("The margin is lost: PASS is wrong", ["data", "items", "PASS", "coverage", "too high"])
    generator = np.random.default_rng(seed)
    cases: list[tuple[str, Callable[[np.random.Generator, int], Pairing], tuple[int, ...]]] = [
        ("accuracy, only losses", draw_lost_answers, (100, 150, 200, 300)),
        ("grades, 5 % fall from 5 to 1", partial(draw_collapse, noisy=0.0), (20, 50, 100, 200)),
        ("grades, the same, and 30 % move by one", partial(draw_collapse, noisy=0.3), (20, 50, 100)),
    ]
    for name, draw, sizes in cases:
        for items in sizes:
            tally = Tally()
            for _ in range(runs):
                pairing = draw(generator, items)
                tally.add(pairing, -pairing.margin)
            passed = tally.share(Outcome.PASS)
            row([name, items, f"{passed:.1%}", *tally.cells()[2:]])
            if items >= RULED_OUT_FROM:
                wrong = [outcome is Outcome.PASS for outcome in tally.outcomes]
                yield from ruled_out_too_often(wrong, f"{name}, {items} items")


def compare_unequal_clusters(seed: np.random.SeedSequence, runs: int) -> Iterator[str]:
    """Equal models on items in few clusters of very different sizes."""
    heading("Clusters of 1 to 30 items that are alike", ["data", "clusters", "coverage", "too high"])
    generator = np.random.default_rng(seed)
    for name, unit in (("grades", "grade"), ("accuracy", "share"), ("a score without a scale", "number")):
        for clusters in (10, 20, 50):
            tally = Tally()
            for _ in range(runs):
                kind = "accuracy" if unit == "share" else "score"
                tally.add(replace(draw_clusters(generator, kind, clusters, largest=30), unit=unit), 0.0)
            row([name, clusters, *tally.cells()[2:]])
            yield from ruled_out_too_often(tally.too_high, f"{name} in {clusters} clusters of 1 to 30")
    for clusters in (50, 100):
        tally = Tally()
        for _ in range(runs):
            tally.add(draw_fallen_clusters(generator, clusters), -GRADE_MARGIN)
        row(["grades, 5 % of the clusters fall from 5 to 1", clusters, *tally.cells()[2:]])
        yield from ruled_out_too_often(tally.too_high, f"{clusters} clusters, of which 5 % fall whole")


def cover_skewed_means(seed: np.random.SeedSequence, runs: int) -> Iterator[str]:
    """The interval of one model's mean grade, where one answer in twenty has grade 1 and all others 5."""
    heading("One model, mean of grades of which 95 % are 5 and 5 % are 1", ["items", "coverage", "too high", "above 5"])
    generator = np.random.default_rng(seed)
    for items in (20, 50, 100):
        tally, beyond = Tally(), []
        for _ in range(runs):
            interval = bounded_interval(draw_skewed(generator, items), *SCALES["grade"])
            tally.note(1.0, interval, 4.8)
            beyond.append(interval.upper > 5)
        row([items, *tally.cells()[2:], f"{np.mean(beyond):.1%}"])
        if items >= RULED_OUT_FROM:
            yield from ruled_out_too_often(tally.too_high, f"one model, {items} items")


def compare_aggregates(seed: np.random.SeedSequence, runs: int) -> Iterator[str]:
    """F1 and perplexity of two equal models, and of a worse candidate, by the bootstrap."""
    heading(
        "The bootstrap",
        [
            "metric",
            "items",
            "p < 0.05",
            "coverage",
            "too high",
            "t interval alone",
            "too high",
            "BCa alone",
            "too high",
        ],
    )
    generator = np.random.default_rng(seed)
    draws: dict[str, tuple[Callable[[np.random.Generator, int], Sides], float]] = {
        "macro-F1, 3 labels": (partial(draw_f1, accuracy=0.8), 0.0),
        "macro-F1, worse": (partial(draw_f1, accuracy=0.6), truth_of(partial(draw_f1, accuracy=0.6))),
        "perplexity": (draw_perplexity, 0.0),
    }
    for name, (draw, truth) in draws.items():
        for items in (*SIZES, 500):
            tally, student, percentiles = Tally(), Tally(), Tally()
            for run in range(runs):
                first, second = draw(generator, items)
                unit = "log" if name == "perplexity" else "share"
                pairing = aggregates_of(unit, first, second, items)
                candidate, baseline = (resample(side, items, resamples=1000, seed=run) for side in (first, second))
                difference = candidate.minus(baseline)
                interval = interval_of_aggregates(pairing, candidate, baseline, difference, 0.95)
                p_value = bootstrap_p(difference)
                tally.note(p_value, interval, truth)
                mean = Mean(difference.value, difference.standard_error, items, items - 1)
                student.note(p_value, t_interval(mean), truth)
                percentiles.note(p_value, bca_interval(difference), truth)
            alarms, _, *hull = tally.cells()
            row([name, items, alarms, *hull, *student.cells()[2:], *percentiles.cells()[2:]])
            if items >= RULED_OUT_FROM and name != "perplexity":
                yield from ruled_out_too_often(tally.too_high, f"{name}, {items} items")


def count_items(seed: np.random.SeedSequence, runs: int) -> Iterator[str]:
    """How many items two equal models need to pass, and how many show a loss of twice the margin."""
    heading(
        f"How often 50 to 800 items decide, with margins of {GRADE_MARGIN:g} grades and 2 points",
        ["metric, noise", "what is true", "50", "100", "200", "400", "800"],
    )
    generator = np.random.default_rng(seed)
    cases: list[tuple[str, Callable[[float, int], Pairing], float]] = [
        *(
            (f"grades, SD {spread}", partial(draw_grade_loss, generator, spread=spread), GRADE_MARGIN)
            for spread in (0.7, 1.0, 1.5)
        ),
        *(
            (f"accuracy, {share:.0%} differ", partial(draw_accuracy_loss, generator, differing=share), ACCURACY_MARGIN)
            for share in (0.05, 0.1)
        ),
    ]
    for name, draw, margin in cases:
        for truth, loss, wanted in (
            ("no loss: PASS", 0.0, Outcome.PASS),
            ("twice the margin lost: REGRESSION", 2 * margin, Outcome.REGRESSION),
        ):
            shares = []
            for items in (50, 100, 200, 400, 800):
                found = [decide([draw(loss, items)], GATE).outcome for _ in range(runs)]
                shares.append(f"{found.count(wanted) / runs:.0%}")
            row([name, truth, *shares])
    yield from ()


def alarms_of(seed: np.random.SeedSequence, runs: int, shapes: dict[str, Differences], kind: str) -> Iterator[str]:
    generator = np.random.default_rng(seed)
    for name, draw in shapes.items():
        for items in SIZES:
            tally = Tally()
            for _ in range(runs):
                candidate, baseline = draw(generator, items)
                tally.add(pairing_of(kind, candidate, baseline), 0.0)
            row([name, items, *tally.cells()])
            if too_many(tally):
                yield f"{kind}, {name}, {items} items: {np.mean(tally.alarms):.1%} false alarms"


def ruled_out_too_often(wrong: list[bool], what: str) -> Iterator[str]:
    """Whether more than 3 % of the runs rule out what is true, by more than two standard errors."""
    share = float(np.mean(wrong))
    if share > RULED_OUT + 2 * np.sqrt(RULED_OUT * (1 - RULED_OUT) / len(wrong)):
        yield f"{what}: a true loss is ruled out in {share:.1%}"


def too_many(tally: Tally) -> bool:
    runs = len(tally.alarms)
    allowance = 0 if runs >= 1000 else 2 * np.sqrt(LIMIT * (1 - LIMIT) / runs)
    return float(np.mean(tally.alarms)) >= LIMIT + allowance


def heading(title: str, columns: list[str]) -> None:
    print(f"\n## {title}\n")
    row(columns)
    row(["---"] * len(columns))


def row(cells: list[object]) -> None:
    print("|", " | ".join(str(cell) for cell in cells), "|", flush=True)


TABLES: dict[str, tuple[Callable[[np.random.SeedSequence, int], Iterator[str]], int]] = {
    "scores": (compare_scores, 1),
    "accuracies": (compare_accuracies, 1),
    "clusters": (compare_clusters, 2),
    "planted": (find_planted_losses, 4),
    "lost-grades": (compare_lost_grades, 2),
    "margins": (pass_lost_margins, 1),
    "unequal-clusters": (compare_unequal_clusters, 2),
    "one-model": (cover_skewed_means, 1),
    "aggregates": (compare_aggregates, 8),
    "items": (count_items, 8),
}
"""By name: what draws a table, and by which number the runs are divided for it."""


if __name__ == "__main__":
    main()
