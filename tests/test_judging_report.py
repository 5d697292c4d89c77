"""The report folder and the terminal: what they say of a judgement, and that nothing judged can act in them."""

from __future__ import annotations

import html
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from pydantic import TypeAdapter
from rich.console import Console
from support.sample_judgement import (
    CRITERIA,
    HOSTILE,
    classified,
    compare,
    hostile,
    judged,
    make_item,
    modelled,
    of_labels,
    of_many_items,
    preferred,
)

from edgetune.errors import OutputError
from edgetune.judging.asking.request import Failed, JudgeRequest, Reply
from edgetune.judging.gate.comparison import Outcome
from edgetune.judging.gate.explanation import explain
from edgetune.judging.gate.gate import Verdict
from edgetune.judging.grading.pairwise import ComparingTask
from edgetune.judging.metrics.estimate import MetricValue
from edgetune.judging.report import (
    github_annotations,
    report_document,
    report_html,
    report_junit,
    report_markdown,
    write_report,
)
from edgetune.judging.report.changes import find_changes, worst_first
from edgetune.judging.report.document import report_lines
from edgetune.judging.report.glyphs import Fonts, find_fonts
from edgetune.judging.report.interval_picture import draw_intervals
from edgetune.judging.report.markdown import LARGEST_CHARACTERS
from edgetune.judging.report.matrices import panels_of
from edgetune.judging.report.matrix_picture import draw_matrices
from edgetune.judging.report.metrics_table import label_rows, metrics_headings, metrics_rows
from edgetune.judging.report.terminal_report import render_judges, render_matrices, render_metrics, render_verdict
from edgetune.judging.results.baseline import REPORT_FORMAT
from edgetune.judging.results.judgement import Evaluation, Judgement
from edgetune.judging.results.prepared import compared_metric, criterion_metric
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.rubric import load_rubric
from edgetune.judging.suites.suite import Gate
from edgetune.metrics.registry import METRICS
from edgetune.visible_text import visible

SAMPLES = {
    "classify": classified,
    "judged": judged,
    "pairwise": preferred,
    "perplexity": modelled,
    "hostile": hostile,
    "alone": lambda: classified(40, baseline=False),
    "judged alone": lambda: judged(10, baseline=False),
}


def shown(*renderables: Any, width: int = 100) -> str:
    console = Console(width=width, soft_wrap=True, highlight=False)
    with console.capture() as capture:
        for renderable in renderables:
            console.print(renderable)
    return capture.get()


def page_data(page: str) -> dict[str, Any]:
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert block is not None
    return json.loads(block[1])


# The folder


@pytest.mark.parametrize("name", SAMPLES)
def test_every_kind_of_judgement_makes_a_whole_report(tmp_path: Path, name: str) -> None:
    judgement = SAMPLES[name]()
    write_report(judgement, tmp_path / "report")
    files = {file.name: file.stat().st_size for file in (tmp_path / "report").iterdir()}
    pictures = {"confusion.png"} if judgement.suite.task == "classify" else set()
    assert set(files) == {"report.html", "report.md", "report.json", "junit.xml"} | pictures
    assert all(files.values())


def test_a_report_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    judgement = modelled()
    broken = replace(judgement, candidate=replace(judgement.candidate, seconds=float("nan")))
    with pytest.raises(ValueError, match="JSON"):
        write_report(broken, tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_replaced_only_by_force(tmp_path: Path) -> None:
    judgement = classified(30)
    write_report(judgement, tmp_path / "report")
    with pytest.raises(OutputError, match="--force"):
        write_report(judgement, tmp_path / "report")
    write_report(preferred(8), tmp_path / "report", force=True)
    assert not (tmp_path / "report" / "confusion.png").exists()


def test_a_file_name_that_is_no_text_breaks_no_report(tmp_path: Path) -> None:
    judgement = classified(30)
    named = replace(judgement, candidate=replace(judgement.candidate, model="models/caf\udce9.gguf"))
    write_report(named, tmp_path / "report")
    document = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert document["candidate"]["model"] == "models/caf\udce9.gguf"
    assert "caf⟨U+DCE9⟩.gguf" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


# report.json


@pytest.mark.parametrize("name", SAMPLES)
def test_report_json_holds_the_candidate_to_the_last_bit(tmp_path: Path, name: str) -> None:
    judgement = SAMPLES[name]()
    write_report(judgement, tmp_path / "report")
    document = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert document["format"] == REPORT_FORMAT
    assert TypeAdapter(Evaluation).validate_python(document["candidate"]) == judgement.candidate
    assert [item["id"] for item in document["items"]] == [item.id for item in judgement.items]
    assert len(document["preferences"]) == len(judgement.preferences)


def test_report_json_tells_verdict_costs_and_reasons_and_not_where_the_data_lie() -> None:
    judgement = judged(10)
    document = report_document(judgement)
    assert (document["exit_code"], document["verdict"]["outcome"]) == (1, "REGRESSION")
    assert [one["explanation"] for one in document["verdict"]["comparisons"]] == [
        explain(one)
        for one in judgement.verdict.comparisons  # type: ignore[union-attr]
    ]
    assert document["costs"]["usd"] == 0.87
    assert document["candidate"]["grades"][0]["judge"] == "gpt-small"
    assert "/somewhere/on/this/machine" not in json.dumps(document)


@pytest.mark.parametrize("name", SAMPLES)
def test_report_json_is_the_document_that_python_gets(name: str) -> None:
    judgement = SAMPLES[name]()
    text = "".join(report_lines(judgement))
    assert json.loads(text) == json.loads(json.dumps(report_document(judgement)))
    assert REPORT_FORMAT in text[:200]


def test_each_answer_is_one_line_of_report_json() -> None:
    lines = "".join(report_lines(classified(40))).splitlines()
    answers = [line for line in lines if line.startswith('      {"id":"q')]
    assert len(answers) == 80
    assert json.loads(answers[0].removesuffix(","))["id"] == "q000"


# Items


def test_the_worst_regressions_come_first_and_unscored_items_last() -> None:
    judgement = judged(200)
    changes = worst_first(find_changes(judgement))
    means = []
    for change in changes:
        sides = [side.metrics for side in (judgement.candidate, judgement.baseline)]  # type: ignore[union-attr]
        now, before = ([side[name].values[change.place] for name in CRITERIA] for side in sides)
        if None not in (*now, *before):
            means.append(sum(now) - sum(before))  # type: ignore[arg-type]
    assert means == sorted(means)
    assert means[0] < 0 < means[-1]
    sizes = [change.size for change in changes]
    assert all(size is None for size in sizes[len(means) :])


def test_an_item_is_worse_when_more_perplexity_says_so() -> None:
    judgement = modelled()
    before, now = (side.metrics[("perplexity")].values for side in (judgement.baseline, judgement.candidate))  # type: ignore[union-attr]
    for change in find_changes(judgement):
        assert change.status == ("worse" if now[change.place] > before[change.place] else "better")  # type: ignore[operator]


def test_items_of_a_model_by_itself_are_right_or_wrong() -> None:
    judgement = classified(60, baseline=False)
    for change, item, answer in zip(find_changes(judgement), judgement.items, judgement.candidate.answers, strict=True):
        assert change.status == ("right" if item.gold == answer.predicted else "wrong")


def test_pairs_with_one_unscored_order_are_unscored_and_neither_better_nor_worse() -> None:
    statuses = [(change.status, change.unscored) for change in find_changes(preferred(8))]
    assert statuses == [("better", False), ("worse", False), ("same", False), ("", True)] * 2


def test_equal_answers_are_not_called_degenerate_but_empty_ones_are() -> None:
    def ask(requests: list[JudgeRequest]) -> list[Reply | Failed]:
        return [Reply('{"reason": "", "winner": "first"}') for _ in requests]

    judgement = preferred(3)
    texts = ["the same answer", "", "a good answer of some words"]
    ours = [Answer(item.id, text=text) for item, text in zip(judgement.items, texts, strict=True)]
    theirs = [replace(answer, text=text) for answer, text in zip(ours, ["the same answer", "one", "two"], strict=True)]
    found = ComparingTask(judgement.items, ours, theirs, load_rubric("answer-quality")).verdicts("stub", 1, ask)
    compared = replace(judgement, preferences=found)
    assert [change.degenerate for change in find_changes(compared)] == [False, True, False]


# Tables and pictures


def test_the_table_of_metrics_holds_what_scikit_learn_measured() -> None:
    judgement = classified()
    rows = {row[0]: row[1:] for row in metrics_rows(judgement)}
    rows |= {f"{label}: {row[0]}": row[1:] for label, found in label_rows(judgement) for row in found}
    assert metrics_headings(judgement) == ["", "baseline", "candidate", "difference"]
    assert all(len(row) == 3 for row in rows.values())
    for place, side in enumerate((judgement.baseline, judgement.candidate)):
        metrics = side.classification  # type: ignore[union-attr]
        assert rows[("negative: recall")][place] == f"{metrics.per_label[0].recall * 100:.1f} %"  # type: ignore[union-attr]
        assert rows["Unparsed items"][place] == str(metrics.unparsed)  # type: ignore[union-attr]
    assert rows["File size"][0] == "91.8 MB"


@pytest.mark.parametrize("name", SAMPLES)
def test_every_row_of_the_table_has_a_cell_for_every_heading(name: str) -> None:
    judgement = SAMPLES[name]()
    assert {len(row) for row in metrics_rows(judgement)} == {len(metrics_headings(judgement))}


def test_counts_are_written_in_one_way_everywhere() -> None:
    judgement = of_many_items()
    counts = [str(count) for panel in panels_of(judgement) for row in panel.metrics.confusion for count in row]
    unparsed = [str(panel.metrics.unparsed) for panel in panels_of(judgement)]
    texts = [
        shown(render_metrics(judgement), render_matrices(panels_of(judgement))),
        report_markdown(judgement),
        re.sub(r"<style>.*?</style>|<script.*?</script>", "", report_html(judgement), flags=re.DOTALL),
    ]
    for count in {*counts, *unparsed} - {"0"}:
        assert len(count) >= 4
        for text in texts:
            assert f"{int(count):,}" in text
            assert not re.search(rf"\b{count}\b", text)


MANY = tuple(f"label_{number:02d}" for number in range(20))


def test_the_terminal_shows_of_many_labels_those_that_fell_most() -> None:
    judgement = of_labels(MANY)
    before, now = (side.classification.per_label for side in (judgement.baseline, judgement.candidate))  # type: ignore[union-attr]
    fell = sorted(range(20), key=lambda place: now[place].f1 - before[place].f1)
    text = shown(render_metrics(judgement), width=80)
    assert re.findall(r"(label_..): F1", text) == [MANY[place] for place in fell[:6]]
    assert "Of 20 labels, the 6 whose F1 fell most." in text
    assert len(re.findall(r": F1", shown(render_metrics(classified(30))))) == 3


def test_a_matrix_that_is_wider_than_the_terminal_is_told_by_its_largest_confusions() -> None:
    judgement = of_labels(MANY, 2000)
    panels = panels_of(judgement)
    text = shown(render_matrices(panels), width=80)
    assert "…" not in text
    assert "The report (--out) has the matrices of 21 columns." in text
    confusion = panels[0].metrics.confusion
    largest = max(confusion[row][column] for row in range(20) for column in range(21) if row != column)
    first = next(line for line in text.splitlines() if line.startswith("label_"))
    assert first.split()[2] == str(largest)
    assert shown(render_matrices(panels), width=250).count("label_00") == 4


def test_many_labels_are_folded_on_the_page_and_in_the_comment() -> None:
    page, comment = report_html(of_labels(MANY)), report_markdown(of_labels(MANY))
    metrics = page[page.index('id="metrics"') : page.index('id="matrices"')]
    assert "<details" in metrics
    assert metrics.index("<details") < metrics.index("label_07")
    assert "Precision, recall and F1 of 20 labels" in metrics
    folded = comment[comment.index("<details>") : comment.index("</details>")]
    assert folded.count("| label\\_") == 60
    assert comment.index("label\\_07") > comment.index("<details>")


def test_a_comment_of_hundreds_of_labels_lists_those_that_fell_most_and_closes_what_it_opens() -> None:
    comment = report_markdown(of_labels(tuple(f"l{number}" for number in range(300)), 900))
    assert len(comment) < LARGEST_CHARACTERS
    assert "Precision, recall and F1 of 300 labels: the 50 whose F1 fell most" in comment
    assert comment.count("<details>") == comment.count("</details>") == 1


EMOJI = ("👍", "👎", "👩\u200d👧", "$x$ _y^2", "正面", "سلبي", "tab\there")


def test_labels_that_the_font_lacks_are_drawn_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_matrices(panels_of(of_labels(EMOJI)), tmp_path / "confusion.png")
    assert "👩\u200d👧" in report_html(of_labels(EMOJI))


def test_a_symbol_without_a_glyph_is_drawn_by_its_name_and_a_word_by_its_number() -> None:
    fonts = Fonts(("sans-serif",), frozenset("👍👧👩\u200d正面\t"))
    assert fonts.label("👍", 1) == "[thumbs up sign]"
    assert fonts.label("👩\u200d👧", 2) == "[woman][girl]"
    assert fonts.label("正面", 3) == "#3"
    assert fonts.label("good 👍", 4) == "good [thumbs up sign]"
    flags = Fonts(("sans-serif",), frozenset("🇪🇺👎🏽"))
    assert flags.label("🇪🇺", 1) == "[e][u]"
    assert flags.label("👎🏽", 2) == "[thumbs down sign][type-4]"
    assert fonts.label("naïve", 5) == "naïve"
    assert fonts.text("model-正面.gguf") == "model-??.gguf"
    assert find_fonts(["plain", "naïve €"]).lacking == frozenset()
    assert find_fonts(["a\tb", "x\ud83d"]).lacking == frozenset("\t\ud83d")


@pytest.mark.parametrize("labels", [3, 20, 60, 300])
def test_a_picture_of_matrices_stays_of_a_size_that_opens(tmp_path: Path, labels: int) -> None:
    file = tmp_path / "confusion.png"
    draw_matrices(panels_of(of_labels(tuple(f"label {number}" for number in range(labels)), 600)), file)
    width, height = (int.from_bytes(file.read_bytes()[start : start + 4], "big") for start in (16, 20))
    assert width * height < 30e6
    assert file.stat().st_size < 3e6


def test_metrics_are_called_as_the_registry_calls_them() -> None:
    for metric in METRICS.values():
        compared = compared_metric(metric, Gate())
        assert (compared.title, compared.unit, compared.is_judged) == (metric.title, metric.unit, False)
    criterion = criterion_metric("faithfulness_to_source", Gate())
    assert (criterion.title, criterion.unit, criterion.is_judged) == ("Faithfulness to source", "grade", True)


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.REGRESSION, Outcome.INCONCLUSIVE])
@pytest.mark.parametrize("metric", ["accuracy", "correctness", "perplexity"])
def test_an_interval_is_drawn_with_worse_on_the_left_whatever_the_metric(metric: str, outcome: Outcome) -> None:
    (picture,) = draw_intervals([compare(metric, outcome)])
    places = (picture.zero, picture.margin, picture.lower, picture.upper, picture.estimate)
    assert all(0 <= place <= 100 for place in places)
    assert picture.lower < picture.estimate < picture.upper
    assert picture.margin < picture.zero
    assert (picture.estimate > picture.zero) == (outcome is Outcome.PASS)
    assert (picture.lower > picture.margin) == (outcome is Outcome.PASS)


def test_comparisons_in_one_unit_share_a_scale() -> None:
    pictures = draw_intervals([compare("correctness", Outcome.PASS), compare("clarity", Outcome.REGRESSION)])
    assert pictures[0].zero == pictures[1].zero
    assert pictures[0].margin == pictures[1].margin


# The page


def test_the_page_says_verdict_reason_and_interval_without_any_script() -> None:
    judgement = classified()
    page = report_html(judgement)
    assert '<span id="verdict">REGRESSION</span>' in page
    assert judgement.verdict.reason in html.unescape(page)  # type: ignore[union-attr]
    assert page.index('id="verdict"') < page.index('<svg class="interval') < page.index('id="metrics"')
    assert "margin −5.0 points" in page


def test_the_page_of_an_invalid_judge_lists_what_is_wrong_with_it() -> None:
    page = report_html(judged(20, outcome=Outcome.JUDGE_INVALID))
    assert "JUDGE INVALID" in page
    assert "7.4 % of the verdicts are unscored" in page


def test_a_page_of_500_items_stays_small() -> None:
    page = report_html(judged(500, answer_characters=1000))
    assert len(page.encode()) < 3_000_000
    assert len(page_data(page)["items"]) == 500


def test_the_page_asks_no_network_and_allows_nothing_but_itself() -> None:
    page = report_html(classified(30))
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    policy = html.unescape(policy)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"\s(?:src|href|action|srcset)=\"(?!#)", page)
    assert not re.search(r"url\(|@import|https?:", page)


def test_judged_text_is_never_markup_in_the_page() -> None:
    page = report_html(hostile())
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert not any(character in page for character in "\x00\x1b\u202e\u2028\ud83d")
    assert not re.search(r"<!--", page)
    items = {item["id"].split()[0]: item for item in page_data(page)["items"]}
    assert set(items) == set(HOSTILE)
    for name, text in HOSTILE.items():
        assert items[name]["text"] == visible(text)
        assert [side["text"] for side in items[name]["sides"]] == [visible(text)] * 2


def test_very_long_texts_are_cut_in_the_page_and_the_page_says_where_the_rest_is() -> None:
    judgement = preferred(4)
    long = tuple(replace(answer, text="x" * 100_000) for answer in judgement.candidate.answers)
    page = report_html(replace(judgement, candidate=replace(judgement.candidate, answers=long)))
    assert len(page) < 150_000
    assert "92,000 more characters are in report.json" in page


def test_a_page_of_very_many_items_shows_the_worst_and_says_so() -> None:
    judgement = classified(4000)
    page = report_html(judgement)
    data = page_data(page)
    assert len(data["items"]) == 3000
    assert "The 3,000 worst of 4,000 items" in page
    lost = sum(change.status == "worse" for change in find_changes(judgement))
    assert sum(item["status"] == "worse" for item in data["items"]) == lost


def test_a_page_of_very_long_texts_holds_as_many_items_as_a_browser_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetune.judging.report.page_data.SHOWN_CHARACTERS_IN_ALL", 50_000)
    page = report_html(judged(60))
    items = page_data(page)["items"]
    assert 0 < len(items) < 60
    assert len(page) < 50_000 + 60_000
    assert f"The {len(items)} worst of 60 items; all of them are in report.json." in page


def test_a_page_says_how_many_items_of_each_kind_it_leaves_out() -> None:
    judgement = classified(4000)
    totals = page_data(report_html(judgement))["totals"]
    assert totals["worse"] == sum(change.status == "worse" for change in find_changes(judgement))
    assert totals["worse"] + totals["better"] + totals["same"] == 4000


def test_invisible_characters_are_shown_and_ordinary_ones_are_left_alone() -> None:
    assert visible("a\x00b\u202ec\ud800") == "a␀b⟨U+202E⟩c⟨U+D800⟩"
    assert visible("line\r\nline\ttab 👩\u200d👧 é שלום") == "line\nline\ttab 👩\u200d👧 é שלום"


# Markdown


def test_markdown_begins_with_the_verdict_and_its_reason() -> None:
    judgement = classified()
    markdown = report_markdown(judgement)
    assert markdown.startswith("# REGRESSION: demo-q4\\_k\\_m.gguf on sentiment\n\n")
    assert markdown.split("\n\n")[1].startswith("Accuracy changed by −10.0 points (95 % interval −15.0 to −5.0;")
    assert "| negative: recall | " in markdown
    assert "| true \\\\ predicted | negative | neutral | positive | unparsed |" in markdown


def test_markdown_without_a_baseline_says_so_first() -> None:
    markdown = report_markdown(classified(40, baseline=False))
    assert markdown.startswith("# Not compared: ")
    assert "Items that got worse" not in markdown


def test_markdown_lists_the_items_that_got_worse() -> None:
    judgement = classified(60)
    worse = [change.place for change in find_changes(judgement) if change.status == "worse"]
    table = report_markdown(judgement).split("## Items that got worse")[1].split("##")[0]
    assert table.count("items.jsonl:") == len(worse) > 0
    assert f"| {judgement.items[worse[0]].id} | items.jsonl:{worse[0] + 1} | " in table


@pytest.mark.parametrize("name", SAMPLES)
def test_markdown_fits_a_comment_on_github(name: str) -> None:
    assert len(report_markdown(SAMPLES[name]())) < LARGEST_CHARACTERS


def test_markdown_of_a_hundred_labels_is_cut_within_the_limit() -> None:
    from edgetune.metrics.classification import classification_metrics

    labels = [f"label-number-{number}" for number in range(150)]
    metrics = classification_metrics(labels, labels, labels)
    judgement = classified(30)
    sides = [replace(side, classification=metrics) for side in (judgement.candidate, judgement.baseline)]  # type: ignore[type-var]
    markdown = report_markdown(replace(judgement, candidate=sides[0], baseline=sides[1]))
    assert len(markdown) < LARGEST_CHARACTERS
    assert markdown.endswith("The rest is in report.html and report.json.\n")


def test_judged_text_is_never_markup_in_markdown() -> None:
    markdown = report_markdown(hostile())
    prose = re.sub(r"^(`{3,})text\n.*?\n\1$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"<(?!/?details>|/?summary>|details><summary>)[a-z!/]", prose)
    assert "](" not in prose.replace("\\](", "").replace("[click](", "")
    assert not re.search(r"@(?=\w)|#(?=\d)", prose)
    assert markdown.count("<details>") == markdown.count("</details>") == len(HOSTILE)
    assert not any(character in markdown for character in "\x00\x1b\u202e")
    markdown.encode()


def test_no_run_of_backticks_ends_a_block_early() -> None:
    judgement = hostile()
    answers = tuple(replace(answer, text="````\n@octocat\n```````` <b>") for answer in judgement.candidate.answers)
    markdown = report_markdown(replace(judgement, candidate=replace(judgement.candidate, answers=answers)))
    assert "`````````text\n````\n@octocat\n```````` <b>\n`````````" in markdown


# JUnit


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (Outcome.REGRESSION, {"failures": "1", "errors": "0", "skipped": "1"}),
        (Outcome.JUDGE_INVALID, {"failures": "0", "errors": "1", "skipped": "3"}),
        (Outcome.INCONCLUSIVE, {"failures": "0", "errors": "0", "skipped": "2"}),
        (Outcome.PASS, {"failures": "0", "errors": "0", "skipped": "1"}),
    ],
)
def test_junit_fails_errs_or_skips_with_the_verdict(outcome: Outcome, counts: dict[str, str]) -> None:
    root = ElementTree.fromstring(report_junit(judged(10, outcome=outcome)))
    (suite,) = root
    assert suite.get("tests") == "4"
    assert {name: suite.get(name) for name in counts} == counts
    assert [case.get("name") for case in suite.iter("testcase")] == [
        "Correctness",
        "Completeness",
        "Instruction",
        "judge validity",
    ]


def test_junit_without_a_baseline_skips_and_says_why() -> None:
    suite = ElementTree.fromstring(report_junit(classified(10, baseline=False)))[0]
    skipped = suite.find("testcase/skipped")
    assert skipped is not None
    assert "--baseline" in str(skipped.get("message"))


def test_a_metric_that_no_judge_gave_still_fails_under_an_invalid_judge() -> None:
    judgement = judged(10, outcome=Outcome.JUDGE_INVALID)
    verdict = Verdict(Outcome.JUDGE_INVALID, (compare("token_f1", Outcome.REGRESSION),), ("it drifted",), False)
    suite = ElementTree.fromstring(report_junit(replace(judgement, verdict=verdict)))[0]
    assert (suite.get("failures"), suite.get("errors")) == ("1", "1")


def test_junit_is_xml_whatever_was_judged() -> None:
    text = report_junit(hostile())
    root = ElementTree.fromstring(text)
    assert b"\x00" not in text
    assert "<script>alert(1)</script>" in "".join(root.itertext())


# Annotations


def test_annotations_follow_the_verdict() -> None:
    lines = github_annotations(judged(10))
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning", "::notice"]
    assert lines[0].startswith("::error title=REGRESSION%3A Correctness of candidate-q4_k_m.gguf on support-answers::")
    assert github_annotations(classified(10, baseline=False))[0].startswith("::notice title=edgetune judge%3A ")


def test_no_judged_text_can_forge_an_annotation() -> None:
    lines = github_annotations(hostile())
    assert 0 < len(lines) <= 30
    for line in lines:
        assert line.startswith("::error title=")
        assert "\n" not in line
        assert "\r" not in line
    forged = next(line for line in lines if "forged" in line)
    assert "::error::forged%0A%250A::set-output" in forged


# The terminal


@pytest.mark.parametrize("name", SAMPLES)
def test_the_terminal_shows_every_kind_of_judgement(name: str) -> None:
    judgement = SAMPLES[name]()
    panels = panels_of(judgement)
    assert bool(panels) == (judgement.suite.task == "classify")
    text = shown(render_metrics(judgement), render_verdict(judgement.verdict))
    assert (judgement.verdict.outcome if judgement.verdict else "Nothing was compared") in text
    assert "\x1b[31m" not in text
    if panels:
        assert "unparsed" in shown(render_matrices(panels))


def test_several_metrics_are_a_table_in_the_terminal() -> None:
    text = shown(render_verdict(judged(10).verdict))
    rows = [line.split() for line in text.splitlines()]
    row = ["Correctness", "−0.50", "grades", "−0.75", "to", "−0.25", "0.25", "grades", "0.001", "REGRESSION"]
    assert row in rows
    assert any(row[:1] == ["Completeness"] and row[-1:] == ["PASS"] for row in rows)


def test_the_terminal_says_what_the_judges_took_and_what_they_missed() -> None:
    text = shown(render_judges(judged(500)))
    assert "panel gpt-small, local-judge" in text
    assert "$0.87" in text
    assert "2,000 verdicts asked for" in text
    pairs = shown(render_judges(preferred(40)))
    assert "price unknown" in pairs
    assert "both orders agree: 66.7 % (20 of 30); the gate requires at least 60 %" in pairs


def test_a_price_below_a_cent_is_told() -> None:
    judgement = judged(4)
    text = shown(render_judges(replace(judgement, costs=replace(judgement.costs, usd=0.0004))))
    assert "$0.0004" in text


def test_an_item_without_a_value_is_shown_as_such() -> None:
    judgement = judged(4)
    empty = MetricValue(0.0, None, (None,) * 4)
    side = replace(judgement.candidate, metrics=dict.fromkeys(CRITERIA, empty))
    data = page_data(report_html(replace(judgement, candidate=side)))
    assert data["items"][0]["sides"][1]["values"] == ["–"] * 3
    assert "status" not in data["items"][0]


def test_a_conversation_is_shown_with_its_earlier_turns() -> None:
    from edgetune.data.example import Message

    turns = (Message("user", "Hello"), Message("assistant", "Hi!"), Message("user", "How are you?"))
    item = replace(make_item(0, "How are you?"), messages=turns)
    judgement: Judgement = preferred(4)
    data = page_data(report_html(replace(judgement, items=(item, *judgement.items[1:]))))
    asked = next(shown for shown in data["items"] if shown["id"] == item.id)
    assert asked["context"] == [["user", "Hello"], ["assistant", "Hi!"]]
